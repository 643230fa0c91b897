"""Accuracy against the noise rate at a fixed IPC, one line per method, full data dashed.

Reproduces figures 6 and 7 of "Dataset Distillers Are Good Label Denoisers", for every data set, kind of noise and IPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.accuracy import place_of
from analysis.figures.style import (
    BAR_WIDTH,
    DISTILLED,
    EARLY,
    FULL,
    LIGHT,
    MAX_IPC_COLUMNS,
    RANDOM,
    Styles,
    Theme,
    accuracy_limits,
    dress,
    legend,
    named_styles,
    panel_grid,
)
from analysis.names import rate_name
from analysis.panels import Panel
from analysis.scores import Setting
from analysis.statistics import Interval

ByRate = dict[float, Interval]


@dataclass
class RatePanel:
    """One IPC of one data set under one kind of noise.

    Attributes:
        key: The setting without method and noise rate.
        methods: Accuracy by rate, by method string.
        full: Full-data training at its last epoch, by rate.
        early: Full-data training, early stopped, by rate.
        random: Coresets of random real images, by rate.
    """

    key: Setting
    methods: dict[str, ByRate] = field(default_factory=dict)
    full: ByRate = field(default_factory=dict)
    early: ByRate = field(default_factory=dict)
    random: ByRate = field(default_factory=dict)

    @property
    def rates(self) -> list[float]:
        """The rates of any distilled set, ascending."""
        return sorted({rate for values in self.methods.values() for rate in values})


def rate_panels(panels: Sequence[Panel], noise: str) -> list[RatePanel]:
    """Turn the panels of accuracy against IPC around.

    Args:
        panels: Of :func:`analysis.panels.accuracy_panels`.
        noise: The kind of noise, one that has rates.

    Returns:
        The panels in which some method was run at two rates or more; no noise is the rate zero.
    """
    found: dict[Setting, RatePanel] = {}
    for panel in panels:
        if panel.key.noise != noise:
            continue
        for (kind, rate, _), curve in panel.curves.items():
            at = 0.0 if kind == "none" else rate
            if at is None:
                continue
            for ipc, it in curve.points:
                key = replace(panel.key, base_method="", variant="none", ipc=ipc)
                here = found.setdefault(key, RatePanel(key))
                here.methods.setdefault(panel.key.method, {})[at] = it
                beside = (
                    (here.random, dict(curve.random).get(ipc)),
                    (here.full, curve.full),
                    (here.early, curve.early),
                )
                for values, other in beside:
                    if other is not None:
                        values[at] = other
    enough = [panel for panel in found.values() if any(len(values) > 1 for values in panel.methods.values())]
    return sorted(enough, key=lambda panel: panel.key.order)


def no_rates(noise: str) -> str:
    """Return the sentence for runs without such a panel."""
    return f"No method has a score at one IPC and two rates of {noise} noise (no noise counts as one)."


def rates_figure(panels: Sequence[RatePanel], *, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
    """Draw accuracy against the noise rate, one panel per data set and IPC.

    Args:
        panels: Of :func:`rate_panels`, at least one.
        theme: Colours.
        columns: Panels per row; by default one column per IPC, at most four.
    """
    grid = panel_grid(len(panels), columns or min(MAX_IPC_COLUMNS, len({panel.key.ipc for panel in panels})), theme)
    styles = named_styles([name for panel in panels for name in panel.methods], theme)
    for panel, axis in zip(panels, grid.axes, strict=True):
        dress(axis, f"IPC {panel.key.ipc}", place_of(panel.key), theme)
        axis.set_xlabel("noise rate (%)", color=theme.muted)
        rates = sorted({*panel.rates, *panel.full})
        axis.set_xticks([100 * rate for rate in rates], [rate_name(rate).removesuffix(" %") for rate in rates])
        _draw_references(axis, panel, theme)
        for name in (name for name in styles if name in panel.methods):
            draw_line(axis, {100 * rate: it for rate, it in panel.methods[name].items()}, styles[name], theme)
    grid.label_rows("accuracy (%)", theme)
    for dataset in {panel.key.dataset for panel in panels}:
        group = [(panel, axis) for panel, axis in zip(panels, grid.axes, strict=True) if panel.key.dataset == dataset]
        accuracy_limits([axis for _, axis in group], [value for panel, _ in group for value in _extent(panel)])
    _draw_legends(grid.figure, panels, styles, theme)
    return grid.figure


def draw_line(axis: Axes, values: dict[float, Interval], style: tuple[Any, str], theme: Theme, **changes: Any) -> None:
    """Draw accuracies by place on the x axis, with their intervals."""
    xs = sorted(values)
    for x in xs:
        if values[x].is_bounded:
            low, high = 100 * values[x].low, 100 * values[x].high
            axis.plot([x, x], [low, high], color=style[0], linewidth=BAR_WIDTH, zorder=4)
    means = [100 * values[x].mean for x in xs]
    look = {**DISTILLED, "marker": style[1], "markeredgecolor": theme.paper, **changes}
    axis.plot(xs, means, color=style[0], zorder=5, **look)


def reference(axis: Axes, values: dict[float, Interval], look: dict[str, Any], colour: Any) -> None:
    """Draw means by place on the x axis as a line of a given kind; a single one with a mark, so that it is seen."""
    xs = sorted(values)
    mark = {"marker": "_", "markersize": 14} if len(xs) == 1 else {}
    if xs:
        axis.plot(xs, [100 * values[x].mean for x in xs], color=colour, zorder=3, **{**mark, **look})


def _draw_references(axis: Axes, panel: RatePanel, theme: Theme) -> None:
    for values, look in ((panel.full, FULL), (panel.early, EARLY), (panel.random, RANDOM)):
        reference(axis, {100 * rate: it for rate, it in values.items()}, look, theme.muted)


def _extent(panel: RatePanel) -> list[float]:
    drawn = [it for values in panel.methods.values() for it in values.values()]
    beside = [it for values in (panel.full, panel.early, panel.random) for it in values.values()]
    ends = [end for it in drawn if it.is_bounded for end in (it.low, it.high)]
    return [100 * value for value in [it.mean for it in drawn + beside] + ends]


def _draw_legends(figure: Figure, panels: Sequence[RatePanel], styles: Styles, theme: Theme) -> None:
    methods = [
        Line2D([], [], color=colour, marker=marker, markeredgecolor=theme.paper, label=name, **DISTILLED)
        for name, (colour, marker) in styles.items()
    ]
    kinds = [
        ("full data, last epoch", any(panel.full for panel in panels), FULL),
        ("full data, early stopped", any(panel.early for panel in panels), EARLY),
        ("random images", any(panel.random for panel in panels), RANDOM),
    ]
    legend(figure, methods, "upper", theme)
    legend(figure, [Line2D([], [], color=theme.muted, label=n, **look) for n, on, look in kinds if on], "lower", theme)
