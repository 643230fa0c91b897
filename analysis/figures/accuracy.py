"""Accuracy against images per class: one panel per method, data set and kind of noise, one line per noise rate.

Reproduces the layout of figures 3 to 5, 9 and 10 of "Dataset Distillers Are Good Label Denoisers" and of figures 2, 4
and 5 of its in-the-wild paper (IPC on a log axis, full data at the same rate as a dashed line of the same colour) and
adds bands, intervals, the early-stopped rival and random coresets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.style import (
    BAR_MARK,
    BAR_WIDTH,
    DISTILLED,
    EARLY,
    FULL,
    LIGHT,
    MAX_COLUMNS,
    RANDOM,
    Styles,
    Theme,
    accuracy_limits,
    dress,
    ipc_axis,
    legend,
    panel_grid,
    sentence_figure,
    series_styles,
)
from analysis.fits.curves import accuracy_curves
from analysis.names import split_name
from analysis.panels import Curve, Panel, Series, accuracy_panels, series_name, series_order, series_setting
from analysis.scores import Setting, scores

Bands = dict[Setting, list[tuple[int, float, float]]]
"""(IPC, low, high) of the points of a curve that have a band, by setting without IPC."""

BAND_ALPHA = 0.16


@dataclass(frozen=True)
class AccuracyData:
    """What the figures with an IPC axis draw.

    Attributes:
        panels: By method, data set and kind of noise.
        bands: Bootstrap bands of the curves.
        confidence: Coverage of bands and bars.
        split: The split that was scored.
    """

    panels: Sequence[Panel]
    bands: Bands
    confidence: float
    split: str

    @property
    def series(self) -> list[Series]:
        """Every noise setting of any panel, so that a rate has one colour in all figures."""
        return [series for panel in self.panels for series in panel.curves]

    @property
    def noises(self) -> list[str]:
        """The kinds of noise that have a panel, in their order."""
        return list(dict.fromkeys(panel.key.noise for panel in self.panels))


def accuracy_data(frame: pd.DataFrame, split: str = "test", confidence: float = 0.95) -> AccuracyData:
    """Return what there is to draw of a result table.

    Args:
        frame: The result table.
        split: The split that was scored.
        confidence: Coverage of the bands (bootstrap over noise draws, :mod:`analysis.fits.curves`) and of the bars
            (the intervals of the table); what has no interval is drawn without one.
    """
    bands = {
        curve.setting: [(point.ipc, point.low, point.high) for point in curve.points if point.low == point.low]
        for curve in accuracy_curves(frame, split, confidence=confidence)
    }
    return AccuracyData(accuracy_panels(scores(frame, split), confidence), bands, confidence, split)


def accuracy_figure(
    data: AccuracyData, *, noise: str | None = None, theme: Theme = LIGHT, columns: int | None = None
) -> Figure:
    """Draw accuracy against IPC, one panel per method, data set and kind of noise.

    Args:
        data: Of :func:`accuracy_data`.
        noise: Only this kind of noise; every kind if None.
        theme: Colours.
        columns: Panels per row; by default one column per method, at most four.

    Returns:
        A figure without any global state; it holds one sentence if no distilled set has a score.
    """
    panels = [panel for panel in data.panels if noise in (None, panel.key.noise)]
    if not panels:
        return sentence_figure(nothing(data.split, noise), theme)
    grid = panel_grid(len(panels), columns or default_columns(panels), theme)
    styles = series_styles(data.series, theme)
    for panel, axis in zip(panels, grid.axes, strict=True):
        dress_panel(axis, panel, theme)
        for series in sorted(panel.curves, key=series_order):
            style = styles[series_name(series)]
            _draw_curve(axis, panel.curves[series], style, theme)
            _draw_band(axis, data.bands.get(series_setting(panel.key, series), []), style[0])
    grid.label_rows("accuracy (%)", theme)
    share_limits(list(zip(panels, grid.axes, strict=True)))
    _draw_legends(grid.figure, panels, data, styles, theme)
    return grid.figure


def nothing(split: str, noise: str | None = None) -> str:
    """Return the sentence for a table in which no distilled set has a score."""
    place = {None: "", "none": " without noise"}.get(noise, f" under {noise} noise")
    return f"No distilled set{place} has a score on {split_name(split)}."


def default_columns(panels: Sequence[Panel]) -> int:
    """Return one column per method, at most four."""
    return min(MAX_COLUMNS, len({panel.key.method for panel in panels}))


def dress_panel(axis: Axes, panel: Panel, theme: Theme) -> None:
    """Give a panel its titles and its axis of IPC."""
    ipc_axis(axis, sorted({ipc for curve in panel.curves.values() for ipc, _ in curve.points + curve.random}), theme)
    dress(axis, panel.key.method, place_of(panel.key), theme)


def place_of(key: Setting) -> str:
    """Return data set, kind of noise and networks in one line."""
    noise = "no noise" if key.noise == "none" else f"{key.noise} noise"
    return " · ".join(part for part in (key.dataset, noise, key.networks) if part)


def draw_full(axis: Axes, curve: Curve, colour: Any) -> None:
    """Draw full-data training at its last epoch as a dashed line."""
    if curve.full:
        axis.axhline(100 * curve.full.mean, color=colour, zorder=2, **FULL)


def draw_points(axis: Axes, curve: Curve, style: tuple[Any, str], theme: Theme) -> None:
    """Draw the accuracies of distilled sets."""
    xs, ys = [ipc for ipc, _ in curve.points], [100 * it.mean for _, it in curve.points]
    axis.plot(xs, ys, color=style[0], marker=style[1], markeredgecolor=theme.paper, zorder=5, **DISTILLED)


def share_limits(drawn: Sequence[tuple[Panel, Axes]]) -> None:
    """Give all panels of a data set the same accuracy axis."""
    for dataset in {panel.key.dataset for panel, _ in drawn}:
        group = [(panel, axis) for panel, axis in drawn if panel.key.dataset == dataset]
        values = [100 * value for panel, _ in group for curve in panel.curves.values() for value in _extent(curve)]
        accuracy_limits([axis for _, axis in group], values)


def series_handles(panels: Sequence[Panel], styles: Styles, theme: Theme) -> list[Line2D]:
    """Return the legend entries of the noise settings of some panels, in the order of ``styles``."""
    drawn = {series_name(series) for panel in panels for series in panel.curves}
    return [
        Line2D([], [], color=colour, marker=marker, markeredgecolor=theme.paper, label=name, **DISTILLED)
        for name, (colour, marker) in styles.items()
        if name in drawn
    ]


def _draw_curve(axis: Axes, curve: Curve, style: tuple[Any, str], theme: Theme) -> None:
    colour = style[0]
    draw_full(axis, curve, colour)
    if curve.early:
        axis.axhline(100 * curve.early.mean, color=colour, zorder=2, **EARLY)
    if curve.random:
        xs, ys = [ipc for ipc, _ in curve.random], [100 * it.mean for _, it in curve.random]
        axis.plot(xs, ys, color=colour, alpha=0.6, zorder=3, **RANDOM)
    for ipc, it in curve.points:
        if it.is_bounded:
            axis.plot([ipc, ipc], [100 * it.low, 100 * it.high], color=colour, linewidth=BAR_WIDTH, zorder=4)
    draw_points(axis, curve, style, theme)


def _draw_band(axis: Axes, band: list[tuple[int, float, float]], colour: Any) -> None:
    if len(band) > 1:
        xs = [ipc for ipc, _, _ in band]
        lows, highs = [100 * low for _, low, _ in band], [100 * high for _, _, high in band]
        axis.fill_between(xs, lows, highs, color=colour, alpha=BAND_ALPHA, linewidth=0, zorder=1)


def _extent(curve: Curve) -> list[float]:
    intervals = [it for _, it in curve.points + curve.random] + [it for it in (curve.full, curve.early) if it]
    return [it.mean for it in intervals] + [end for _, it in curve.points if it.is_bounded for end in (it.low, it.high)]


def _draw_legends(figure: Figure, panels: Sequence[Panel], data: AccuracyData, styles: Styles, theme: Theme) -> None:
    """Put the noise settings above the panels and the kinds of line below them."""
    curves = [curve for panel in panels for curve in panel.curves.values()]
    settings = [series_setting(panel.key, series) for panel in panels for series in panel.curves]
    is_within = any(it.within for curve in curves for _, it in curve.points)
    is_banded = any(len(data.bands.get(setting, [])) > 1 for setting in settings)
    kinds: list[tuple[str, bool, dict[str, Any]]] = [
        ("distilled, with interval", True, {**DISTILLED, "marker": "o"}),
        ("full data, last epoch", any(curve.full for curve in curves), FULL),
        ("full data, early stopped", any(curve.early for curve in curves), EARLY),
        ("random images", any(curve.random for curve in curves), RANDOM),
        ("interval of retraining only", is_within, BAR_MARK),
    ]
    lines: list[Artist] = [Line2D([], [], color=theme.muted, label=name, **style) for name, on, style in kinds if on]
    if is_banded:
        lines.append(Patch(color=theme.muted, alpha=BAND_ALPHA, linewidth=0, label="bootstrap band"))
    legend(figure, series_handles(panels, styles, theme), "upper", theme)
    legend(figure, lines, "lower", theme)
