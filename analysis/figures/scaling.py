"""The scaling law of the crossover in log-log axes: IPC* against 1 / (1 - rate), for annotators' noise against kappa.

Corollary I predicts ``IPC* = a (1 - rate)^-b`` with b = 1: a straight line of slope 1. Drawn are the measured
crossovers with their intervals, the censored ones as arrows, the fitted line and, through the middle of the measured
points, a line of slope 1.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWNBASE, CARETUPBASE

from analysis.analyze import Analysis
from analysis.figures.accuracy import place_of
from analysis.figures.style import LIGHT, MAX_COLUMNS, PANEL_INCHES, Styles, Theme, dress, legend, log_ticks, panel_grid
from analysis.fits.crossover import SeriesCrossover
from analysis.fits.scaling import PREDICTED, ScalingLaw
from analysis.names import rate_name
from analysis.panels import series_name

FITTED: dict[str, Any] = {"linewidth": 2}
SLOPE_ONE: dict[str, Any] = {"linewidth": 1.3, "linestyle": (0, (5, 2.5))}
POINT: dict[str, Any] = {"linestyle": "none", "markersize": 6.5}
INTERVAL_WIDTH = 1.4
ARROW = 1.7
"""Length of the arrow of a censored crossover, as a factor."""
HEADS: dict[str, Any] = {"left": CARETDOWNBASE, "right": CARETUPBASE}
NOTE_INCHES = 0.35
NOTE_WIDTH = 48
"""Characters per line of the note below a panel."""


@dataclass(frozen=True)
class LawPanel:
    """A law with its known crossovers, as (factor of the law, crossover of a series)."""

    law: ScalingLaw
    points: tuple[tuple[float, SeriesCrossover], ...]


def law_panels(analysis: Analysis) -> list[LawPanel]:
    """Return every law that has a known crossover, censored or not."""
    panels = []
    for law in analysis.laws:
        points = tuple((factor, item) for factor, item in law.points if item.crossover.is_known)
        if points:
            panels.append(LawPanel(law, points))
    return panels


def law_sentences(panels: Sequence[LawPanel]) -> list[str]:
    """Return what may be said of each law, in words."""
    return [f"{place_of(panel.law.setting)}, {panel.law.setting.method}: {panel.law.fit.sentence}" for panel in panels]


def scaling_figure(
    panels: Sequence[LawPanel], styles: Styles, *, theme: Theme = LIGHT, columns: int | None = None
) -> Figure:
    """Draw the laws, one panel per data set, kind of noise and method.

    Args:
        panels: Of :func:`law_panels`, at least one.
        styles: Colour and marker of the noise settings by name, as in the accuracy figures.
        theme: Colours.
        columns: Panels per row; by default one column per method, at most four.
    """
    methods = len({panel.law.setting.method for panel in panels})
    size = (PANEL_INCHES[0], PANEL_INCHES[1] + NOTE_INCHES)
    grid = panel_grid(len(panels), columns or min(MAX_COLUMNS, methods), theme, size)
    for panel, axis in zip(panels, grid.axes, strict=True):
        dress(axis, panel.law.setting.method, place_of(panel.law.setting), theme)
        _scale(axis, panel, theme)
        _draw_lines(axis, panel, theme)
        for share, item in panel.points:
            setting = item.setting
            name = series_name((setting.noise, setting.noise_rate, setting.label_set))
            _draw_point(axis, 1 / share, item, styles[name], theme)
    grid.label_rows("IPC*", theme)
    legend(grid.figure, _series(panels, styles, theme), "upper", theme)
    legend(grid.figure, _kinds(panels, theme), "lower", theme)
    return grid.figure


def _scale(axis: Axes, panel: LawPanel, theme: Theme) -> None:
    """Make both axes logarithmic; the x axis is labelled with the rates that were run."""
    points = [item.crossover for _, item in panel.points]
    natural = panel.law.setting.noise == "natural"
    places = {
        1 / share: f"{1 / share:.2f}" if natural else rate_name(round(1 - share, 3)).removesuffix(" %")
        for share, _ in panel.points
    }
    ends = [end for one in points for end in (one.low, one.high) if 0 < end < math.inf]
    lines = [panel.law.fit.predict(share) for share, _ in panel.points] if panel.law.fit.exists else []
    shown = [one.value for one in points] + ends + lines
    axis.set_xscale("log")
    axis.set_yscale("log")
    rates = sorted(places)
    log_ticks(axis, rates, [places[rate] for rate in rates], (rates[0] / 1.15, rates[-1] * 1.15))
    axis.set_ylim(min(shown) / 2.2, max(shown) * 2.2)
    low, high = axis.get_ylim()
    steps = [factor * 10.0**power for power in range(-3, 8) for factor in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    ticks = ticks if len(ticks) <= 7 else [tick for tick in ticks if f"{tick:e}"[0] == "1"]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)
    note = "\n".join(textwrap.wrap(_note(panel), NOTE_WIDTH))
    words = "κ of the label set, spaced as log κ" if natural else "noise rate τ (%), spaced as log 1/(1 − τ)"
    axis.set_xlabel(f"{words}\n{note}", color=theme.muted, fontsize=8)


def _note(panel: LawPanel) -> str:
    fit = panel.law.fit
    if not fit.exists:
        return fit.reason
    ends = f"{fit.b.low:.2f} to {fit.b.high:.2f}"
    return f"b = {fit.b.value:.2f} [{ends}], predicted {PREDICTED:g}".replace("-", "−")


def _draw_lines(axis: Axes, panel: LawPanel, theme: Theme) -> None:
    fit = panel.law.fit
    xs = np.array(axis.get_xlim())
    if fit.exists:
        axis.plot(xs, [fit.predict(1 / x) for x in xs], color=theme.text, zorder=3, **FITTED)
    measured = [
        (math.log(share), math.log(it.crossover.value)) for share, it in panel.points if it.crossover.is_measured
    ]
    if measured:
        through = float(np.mean([value + PREDICTED * share for share, value in measured]))
        axis.plot(xs, np.exp(through) * xs**PREDICTED, color=theme.muted, zorder=2, **SLOPE_ONE)


def _draw_point(axis: Axes, x: float, item: SeriesCrossover, style: tuple[Any, str], theme: Theme) -> None:
    point, (colour, marker) = item.crossover, style
    low, high = axis.get_ylim()
    if not math.isnan(point.low):
        ends = [max(point.low, low), min(point.high, high)]
        axis.plot([x, x], ends, color=colour, linewidth=INTERVAL_WIDTH, zorder=4)
    look = {**POINT, "color": colour, "markeredgecolor": theme.paper}
    if point.censored == "none":
        axis.plot([x], [point.value], marker=marker, zorder=5, **look)
        return
    reach = point.value * ARROW ** (-1 if point.censored == "left" else 1)
    axis.plot([x, x], [point.value, reach], color=colour, linewidth=INTERVAL_WIDTH, zorder=4)
    axis.plot([x], [reach], marker=HEADS[point.censored], zorder=5, **{**look, "markeredgecolor": colour})
    hollow = {**look, "markerfacecolor": theme.paper, "markeredgecolor": colour}
    axis.plot([x], [point.value], marker=marker, zorder=5, **hollow)


def _series(panels: Sequence[LawPanel], styles: Styles, theme: Theme) -> list[Line2D]:
    settings = [item.setting for panel in panels for _, item in panel.points]
    drawn = {series_name((one.noise, one.noise_rate, one.label_set)) for one in settings}
    return [
        Line2D([], [], color=colour, marker=marker, markeredgecolor=theme.paper, label=name, **POINT)
        for name, (colour, marker) in styles.items()
        if name in drawn
    ]


def _kinds(panels: Sequence[LawPanel], theme: Theme) -> list[Artist]:
    censored = {item.crossover.censored for panel in panels for _, item in panel.points}
    hollow = {**POINT, "markersize": 13, "color": theme.muted, "markeredgewidth": 0.5}
    kinds: list[tuple[str, bool, dict[str, Any]]] = [
        ("fitted law", any(panel.law.fit.exists for panel in panels), {**FITTED, "color": theme.text}),
        ("slope 1, as predicted", "none" in censored, {**SLOPE_ONE, "color": theme.muted}),
        ("IPC* below those run", "left" in censored, {**hollow, "marker": r"$\circ\!\downarrow$"}),
        ("IPC* above those run", "right" in censored, {**hollow, "marker": r"$\circ\!\uparrow$"}),
    ]
    return [Line2D([], [], label=name, **look) for name, is_drawn, look in kinds if is_drawn]
