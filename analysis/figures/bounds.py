"""The theory over the data: crossovers and both forms of the bounds on the axes of accuracy against IPC.

A crossover IPC* lies, by definition, where a curve meets the dashed line of full-data training at the same rate. So do
its bounds here: the stretch of IPC that a bound allows is drawn along that line, as a broad band for the form that is
printed and between brackets for the form that the proof gives. A crossover outside the IPCs that were run is an arrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.analyze import Analysis, SeriesBounds
from analysis.figures.accuracy import (
    AccuracyData,
    default_columns,
    draw_full,
    draw_points,
    dress_panel,
    series_handles,
    share_limits,
)
from analysis.figures.style import FULL, LIGHT, Theme, legend, log_ticks, panel_grid, series_styles
from analysis.fits.crossover import Crossover
from analysis.names import listed
from analysis.panels import Panel, Series, series_name, series_order, series_setting
from analysis.theory.symbols import Form

NO_CROSSOVER = "No series has both a distilled set and full-data training under the same noise, so there is no IPC*."

BAND: dict[str, Any] = {"linewidth": 8, "alpha": 0.22, "solid_capstyle": "butt"}
CAP: dict[str, Any] = {"linestyle": "none", "markersize": 11, "markeredgewidth": 1.3}
STAR: dict[str, Any] = {"linestyle": "none", "marker": "D", "markersize": 6.5}
INTERVAL_WIDTH, CENSORED_WIDTH = 2.4, 1.3
ARROWS = {"left": "<", "right": ">"}


@dataclass(frozen=True)
class Mark:
    """What the theory and the crossover say about one curve.

    Attributes:
        series: Which curve.
        level: Accuracy of full-data training, 0..1.
        crossover: Of the curve with that level.
        bounds: By form; unknown ones are left out.
    """

    series: Series
    level: float
    crossover: Crossover
    bounds: dict[Form, SeriesBounds]

    @property
    def ends(self) -> list[float]:
        """The ends of the bounds that a logarithmic axis can show."""
        both = [end for each in self.bounds.values() for end in (each.lower, each.upper)]
        return [end for end in both if 0 < end < math.inf]


def marked_panels(data: AccuracyData, analysis: Analysis) -> list[tuple[Panel, list[Mark]]]:
    """Return the panels in which a crossover is known, censored or not, with what is marked in them."""
    crossings = {item.setting: item.crossover for item in analysis.crossovers if item.crossover.is_known}
    found = []
    for panel in data.panels:
        marks = []
        for series in sorted(panel.curves, key=series_order):
            setting, full = series_setting(panel.key, series), panel.curves[series].full
            if setting in crossings and full is not None:
                own = [each for each in analysis.bounds if each.setting == setting and not math.isnan(each.upper)]
                marks.append(Mark(series, full.mean, crossings[setting], {each.form: each for each in own}))
        if marks:
            found.append((panel, marks))
    return found


def bounds_figure(
    marked: Sequence[tuple[Panel, list[Mark]]],
    data: AccuracyData,
    *,
    theme: Theme = LIGHT,
    columns: int | None = None,
) -> Figure:
    """Draw crossovers and bounds over the accuracy curves.

    Args:
        marked: Of :func:`marked_panels`, at least one.
        data: What the panels were taken from; it decides colours.
        theme: Colours.
        columns: Panels per row; by default one column per method, at most four.
    """
    panels = [panel for panel, _ in marked]
    grid = panel_grid(len(panels), columns or default_columns(panels), theme)
    styles = series_styles(data.series, theme)
    for (panel, marks), axis in zip(marked, grid.axes, strict=True):
        dress_panel(axis, panel, theme)
        _widen(axis, panel, marks)
        for series in sorted(panel.curves, key=series_order):
            style = styles[series_name(series)]
            draw_full(axis, panel.curves[series], style[0])
            draw_points(axis, panel.curves[series], style, theme)
        for mark in marks:
            _draw_bounds(axis, mark, styles[series_name(mark.series)][0])
            _draw_crossover(axis, mark, styles[series_name(mark.series)][0], theme)
        _say_empty(axis, marks, theme)
    grid.label_rows("accuracy (%)", theme)
    share_limits(list(zip(panels, grid.axes, strict=True)))
    legend(grid.figure, series_handles(panels, styles, theme), "upper", theme)
    legend(grid.figure, _kinds([mark for _, marks in marked for mark in marks], theme), "lower", theme)
    return grid.figure


def _widen(axis: Axes, panel: Panel, marks: Sequence[Mark]) -> None:
    """Make room for the bounds and for arrows, and put decades beyond the IPCs that were run on the axis."""
    ipcs = sorted({ipc for curve in panel.curves.values() for ipc, _ in curve.points + curve.random})
    ends = [end for mark in marks for end in mark.ends]
    low, high = min([ipcs[0] / 2.4, *(end / 1.5 for end in ends)]), max([2.4 * ipcs[-1], *(1.5 * end for end in ends)])
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    beyond = [10.0**power for power in decades if 10.0**power < ipcs[0] / 2 or 10.0**power > 2 * ipcs[-1]]
    ticks = sorted([*map(float, ipcs), *beyond])
    log_ticks(axis, ticks, [f"{tick:g}" for tick in ticks], (low, high))


def _draw_bounds(axis: Axes, mark: Mark, colour: Any) -> None:
    first, last = axis.get_xlim()
    level = 100 * mark.level
    for form, each in mark.bounds.items():
        if each.lower > each.upper:
            continue
        low, high = max(each.lower, first), min(each.upper, last)
        if form == "published":
            axis.plot([low, high], [level, level], color=colour, zorder=2.5, **BAND)
            continue
        for end, known, cap in ((low, each.lower > 0, "$[$"), (high, each.upper < math.inf, "$]$")):
            if known:
                axis.plot([end], [level], color=colour, marker=cap, zorder=6, **{**CAP, "markeredgewidth": 0.6})


def _draw_crossover(axis: Axes, mark: Mark, colour: Any, theme: Theme) -> None:
    point, level = mark.crossover, 100 * mark.level
    first, last = axis.get_xlim()
    if not math.isnan(point.low):
        low, high = max(point.low, first), min(point.high, last)
        width = INTERVAL_WIDTH if point.censored == "none" else CENSORED_WIDTH
        axis.plot([low, high], [level, level], color=colour, linewidth=width, zorder=6.5)
    edge = {"color": colour, "markeredgecolor": theme.text, "markeredgewidth": 1.1}
    if point.censored == "none":
        axis.plot([point.value], [level], zorder=7, **{**STAR, **edge})
        return
    reach = point.value * 1.6 ** (-1 if point.censored == "left" else 1)
    axis.plot([point.value, reach], [level, level], color=colour, linewidth=INTERVAL_WIDTH, zorder=6.5)
    axis.plot([reach], [level], zorder=7, **{**STAR, **edge, "marker": ARROWS[point.censored], "markersize": 7.5})


def _say_empty(axis: Axes, marks: Sequence[Mark], theme: Theme) -> None:
    empty = [series_name(mark.series) for mark in marks if any(one.lower > one.upper for one in mark.bounds.values())]
    if empty:
        text = f"lower bound above upper: {listed(empty)}"
        axis.text(0.02, 0.02, text, transform=axis.transAxes, color=theme.muted, fontsize=7.5, va="bottom", zorder=8)


def _kinds(marks: Sequence[Mark], theme: Theme) -> list[Artist]:
    """Return the legend entries of what is drawn, and of nothing else."""
    colour, edge = theme.muted, {"markeredgecolor": theme.text, "markeredgewidth": 1.1}
    censored = {mark.crossover.censored for mark in marks}
    drawn = {form for mark in marks for form, each in mark.bounds.items() if each.lower <= each.upper}
    kinds: list[tuple[str, bool, dict[str, Any]]] = [
        ("full data, last epoch", True, FULL),
        ("IPC*, with interval", "none" in censored, {**STAR, **edge}),
        ("IPC* below those run", "left" in censored, {**STAR, **edge, "marker": "<"}),
        ("IPC* above those run", "right" in censored, {**STAR, **edge, "marker": ">"}),
        ("bounds, as printed", "published" in drawn, BAND),
        ("bounds, as derived", "derived" in drawn, {**CAP, "marker": "$[\\;]$", "markersize": 15}),
    ]
    return [Line2D([], [], color=colour, label=name, **look) for name, is_drawn, look in kinds if is_drawn]
