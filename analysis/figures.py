"""The accuracy figure: accuracy against images per class, one line per noise rate.

Reproduces the layout of the figures of "Dataset Distillers Are Good Label Denoisers" (IPC on a log axis, full
data at the same rate as a dashed line of the same colour) and adds intervals, the early-stopped rival and
random coresets.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.names import split_name
from analysis.panels import Curve, Panel, Series, accuracy_panels, series_name, series_order
from analysis.scores import scores
from ddnl_ray.files import write_atomic


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        text: Titles and labels.
        muted: Ticks, second lines and legend entries of line styles.
        grid: Grid lines.
        paper: Background.
        ramp: The part of the viridis map, which stays ordered under colour-vision deficiencies and in grey,
            that has contrast with ``paper``.
    """

    text: str
    muted: str
    grid: str
    paper: str
    ramp: tuple[float, float]


LIGHT = Theme(text="#1c2128", muted="#57606a", grid="#e4e7eb", paper="#ffffff", ramp=(0.05, 0.80))
DARK = Theme(text="#e6e9ed", muted="#9aa4af", grid="#2f363e", paper="#171b20", ramp=(0.42, 0.97))

_MARKERS = "os^DvPXp"
_PANEL_INCHES = (3.5, 2.9)
_LEGEND_INCHES = 0.75

_DISTILLED: dict[str, Any] = {"linewidth": 2, "markersize": 6.5}
_FULL: dict[str, Any] = {"linestyle": (0, (5, 2.5)), "linewidth": 1.4}
_EARLY: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 1.2}
_RANDOM: dict[str, Any] = {"linewidth": 0.8, "marker": "x", "markersize": 4.5}
_BAR_WIDTH = 1.1
_BAR_MARK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "|",
    "markersize": 9,
    "markeredgewidth": _BAR_WIDTH,
}


def accuracy_figure(
    frame: pd.DataFrame,
    split: str = "test",
    *,
    confidence: float = 0.95,
    theme: Theme = LIGHT,
    columns: int | None = None,
) -> Figure:
    """Draw accuracy against IPC, one panel per method, data set and kind of noise.

    Args:
        frame: The result table.
        split: The split that was scored.
        confidence: Coverage of the bands and error bars; what has no interval is drawn without one.
        theme: Colours.
        columns: Panels per row; by default one column per method, at most four.

    Returns:
        A figure without any global state; it holds one sentence if no distilled set has a score.
    """
    panels = accuracy_panels(scores(frame, split), confidence)
    if not panels:
        return _sentence_figure(f"No distilled set has a score on {split_name(split)}.", theme)
    wanted = columns or min(4, len({panel.key.method for panel in panels}))
    num_columns = min(wanted, len(panels))
    num_rows = -(-len(panels) // num_columns)
    width, height = _PANEL_INCHES
    inches = (width * num_columns, height * num_rows + _LEGEND_INCHES)
    figure = Figure(figsize=inches, layout="constrained", facecolor=theme.paper)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    series = sorted({name for panel in panels for name in panel.curves}, key=series_order)
    colours = _colours(series, theme)
    for i, axis in enumerate(axes):
        if i >= len(panels):
            axis.set_axis_off()
            continue
        _draw_panel(axis, panels[i], colours, theme)
        if i % num_columns == 0:
            axis.set_ylabel("accuracy (%)", color=theme.muted)
    _share_limits(list(zip(panels, axes, strict=False)))
    _draw_legends(figure, panels, colours, theme)
    return figure


def save_figures(frame: pd.DataFrame, folder: Path, split: str = "test") -> list[Path]:
    """Write the accuracy figure to ``folder`` as accuracy.png and accuracy.pdf, atomically.

    Returns:
        The two paths.
    """
    figure = accuracy_figure(frame, split)
    paths = [folder / "accuracy.png", folder / "accuracy.pdf"]
    write_atomic(paths[0], render(figure, "png", dpi=200, metadata={"Software": None}))
    write_atomic(paths[1], render(figure, "pdf", metadata={"CreationDate": None}))
    return paths


def render(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return a figure as the bytes of a ``png``, ``pdf`` or ``svg`` file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    if kind == "svg":
        options = {"metadata": {"Date": None}, **options}
    with mpl.rc_context({"svg.hashsalt": "ddnl"}):
        figure.savefig(buffer, format=kind, facecolor=figure.get_facecolor(), **options)
    return buffer.getvalue()


def _colours(series: list[Series], theme: Theme) -> dict[str, tuple[Any, str]]:
    """Return colour and marker by legend name.

    Rates run along the ramp, and so do label sets: the two never share a panel. What both may share a panel
    with, no noise, begins either ramp.
    """
    styles: dict[str, tuple[Any, str]] = {}
    clean = [series_name(item) for item in series if item[0] == "none"][:1]
    noisy = [item for item in series if item[0] != "none"]
    for is_label_set in (False, True):
        names = list(dict.fromkeys(series_name(item) for item in noisy if bool(item[2]) == is_label_set))
        low, high = theme.ramp
        for i, name in enumerate(clean + names):
            place = low + (high - low) * i / max(1, len(clean + names) - 1)
            styles[name] = (mpl.colormaps["viridis"](place), _MARKERS[i % len(_MARKERS)])
    return styles


def _draw_panel(axis: Axes, panel: Panel, styles: dict[str, tuple[Any, str]], theme: Theme) -> None:
    for series in sorted(panel.curves, key=series_order):
        colour, marker = styles[series_name(series)]
        _draw_curve(axis, panel.curves[series], colour, marker, theme)
    ipcs = sorted({ipc for curve in panel.curves.values() for ipc, _ in curve.points + curve.random})
    axis.set_xscale("log")
    axis.set_xlim(ipcs[0] / 1.35, ipcs[-1] * 1.35)
    axis.set_xticks(ipcs, [str(ipc) for ipc in ipcs])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("images per class", color=theme.muted)
    key = panel.key
    axis.set_title(key.method, loc="left", color=theme.text, fontweight="bold", fontsize=11, pad=19)
    noise = "no noise" if key.noise == "none" else f"{key.noise} noise"
    place = " · ".join(part for part in (key.dataset, noise, key.networks) if part)
    axis.text(0, 1.035, place, transform=axis.transAxes, color=theme.muted, fontsize=8.5, va="bottom")
    axis.set_facecolor(theme.paper)
    axis.grid(axis="y", color=theme.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=theme.muted, labelcolor=theme.muted, labelsize=8.5, length=3)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)


def _draw_curve(axis: Axes, curve: Curve, colour: Any, marker: str, theme: Theme) -> None:
    if curve.full:
        axis.axhline(100 * curve.full.mean, color=colour, zorder=2, **_FULL)
    if curve.early:
        axis.axhline(100 * curve.early.mean, color=colour, zorder=2, **_EARLY)
    if curve.random:
        xs, ys = [ipc for ipc, _ in curve.random], [100 * it.mean for _, it in curve.random]
        axis.plot(xs, ys, color=colour, alpha=0.6, zorder=3, **_RANDOM)
    bounded = [(ipc, 100 * it.low, 100 * it.high) for ipc, it in curve.points if it.is_bounded]
    for ipc, low, high in bounded:
        axis.plot([ipc, ipc], [low, high], color=colour, linewidth=_BAR_WIDTH, zorder=4)
    if len(bounded) > 1 and not any(it.within for _, it in curve.points):
        xs, lows, highs = (list(values) for values in zip(*bounded, strict=True))
        axis.fill_between(xs, lows, highs, color=colour, alpha=0.14, linewidth=0, zorder=1)
    xs, ys = [ipc for ipc, _ in curve.points], [100 * it.mean for _, it in curve.points]
    axis.plot(xs, ys, color=colour, marker=marker, markeredgecolor=theme.paper, zorder=5, **_DISTILLED)


def _share_limits(drawn: list[tuple[Panel, Axes]]) -> None:
    """Give all panels of a data set the same accuracy axis, so that they compare by eye."""
    for dataset in {panel.key.dataset for panel, _ in drawn}:
        group = [(panel, axis) for panel, axis in drawn if panel.key.dataset == dataset]
        values = [100 * value for panel, _ in group for curve in panel.curves.values() for value in _extent(curve)]
        low, high = max(0.0, min(values)), min(100.0, max(values))
        margin = max(0.06 * (high - low), 1.0)
        for _, axis in group:
            axis.set_ylim(max(0.0, low - margin), min(101.5, high + margin))


def _extent(curve: Curve) -> list[float]:
    intervals = [it for _, it in curve.points + curve.random] + [it for it in (curve.full, curve.early) if it]
    return [it.mean for it in intervals] + [end for _, it in curve.points if it.is_bounded for end in (it.low, it.high)]


def _draw_legends(figure: Figure, panels: list[Panel], styles: dict[str, tuple[Any, str]], theme: Theme) -> None:
    """Put the noise settings above the panels and the kinds of line below them."""
    curves = [curve for panel in panels for curve in panel.curves.values()]
    colours = [
        Line2D([], [], color=colour, marker=marker, markeredgecolor=theme.paper, label=name, **_DISTILLED)
        for name, (colour, marker) in styles.items()
    ]
    is_within = any(it.within for curve in curves for _, it in curve.points)
    kinds: list[tuple[str, bool, dict[str, Any]]] = [
        ("distilled, with interval", True, {**_DISTILLED, "marker": "o"}),
        ("full data, last epoch", any(curve.full for curve in curves), _FULL),
        ("full data, early stopped", any(curve.early for curve in curves), _EARLY),
        ("random images", any(curve.random for curve in curves), _RANDOM),
        ("interval of retraining only", is_within, _BAR_MARK),
    ]
    lines = [Line2D([], [], color=theme.muted, label=name, **style) for name, drawn, style in kinds if drawn]
    per_row = int(figure.get_figwidth() / 1.7)
    shared: dict[str, Any] = {"frameon": False, "fontsize": 8, "columnspacing": 1.1, "handlelength": 2.2}
    figure.legend(
        handles=colours,
        loc="outside upper left",
        ncols=min(len(colours), round(1.5 * per_row)),
        labelcolor=theme.text,
        **shared,
    )
    figure.legend(
        handles=lines,
        loc="outside lower left",
        ncols=min(len(lines), per_row),
        labelcolor=theme.muted,
        **shared,
    )


def _sentence_figure(sentence: str, theme: Theme) -> Figure:
    figure = Figure(figsize=(6, 1.2), facecolor=theme.paper)
    figure.text(0.5, 0.5, sentence, ha="center", va="center", color=theme.muted)
    return figure
