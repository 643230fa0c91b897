"""What all figures share: themes, colours, panels, legends and files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.panels import Series, series_name, series_order
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
        palette: Colours without an order, told apart under colour-vision deficiencies (after Okabe and Ito), each
            with a contrast of at least 3 to ``paper``.
    """

    text: str
    muted: str
    grid: str
    paper: str
    ramp: tuple[float, float]
    palette: tuple[str, ...]


LIGHT = Theme(
    text="#1c2128",
    muted="#57606a",
    grid="#e4e7eb",
    paper="#ffffff",
    ramp=(0.05, 0.80),
    palette=("#0067a8", "#c75000", "#00805f", "#b0578d", "#7a6a00", "#3d8fc4", "#6b4fb3", "#4d4d4d"),
)
DARK = Theme(
    text="#e6e9ed",
    muted="#9aa4af",
    grid="#2f363e",
    paper="#171b20",
    ramp=(0.42, 0.97),
    palette=("#56b4e9", "#f08a3c", "#2fc79c", "#e59ac5", "#e0c53c", "#8fd0f5", "#b39df3", "#c9d1d9"),
)

CHARACTER = 0.024
"""Width of a character of a tick label, as a share of the width of a panel."""
MARKERS = "os^DvPXp"
PANEL_INCHES = (3.5, 2.9)
LEGEND_INCHES = 0.75
MAX_COLUMNS = 4
MAX_IPC_COLUMNS = 5

FULL: dict[str, Any] = {"linestyle": (0, (5, 2.5)), "linewidth": 1.4}
EARLY: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 1.2}
RANDOM: dict[str, Any] = {"linewidth": 0.8, "marker": "x", "markersize": 4.5}
DISTILLED: dict[str, Any] = {"linewidth": 2, "markersize": 6.5}
BAR_WIDTH = 1.1
BAR_MARK: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 9, "markeredgewidth": BAR_WIDTH}

Styles = dict[str, tuple[Any, str]]
"""Colour and marker by legend name."""


def series_styles(series: Sequence[Series], theme: Theme) -> Styles:
    """Return colour and marker of noise settings.

    Rates run along the ramp, and so do label sets: the two never share a panel. What both may share a panel
    with, no noise, begins either ramp.
    """
    styles: Styles = {}
    ordered = sorted(set(series), key=series_order)
    clean = [series_name(item) for item in ordered if item[0] == "none"][:1]
    noisy = [item for item in ordered if item[0] != "none"]
    for is_label_set in (False, True):
        names = list(dict.fromkeys(series_name(item) for item in noisy if bool(item[2]) == is_label_set))
        low, high = theme.ramp
        for i, name in enumerate(clean + names):
            place = low + (high - low) * i / max(1, len(clean + names) - 1)
            styles[name] = (mpl.colormaps["viridis"](place), MARKERS[i % len(MARKERS)])
    return styles


def named_styles(names: Sequence[str], theme: Theme) -> Styles:
    """Return colour and marker of what has no order, such as methods."""
    return {
        name: (theme.palette[i % len(theme.palette)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def panel_grid(num_panels: int, columns: int, theme: Theme, panel: tuple[float, float] = PANEL_INCHES) -> Grid:
    """Return a figure without any global state, with room for a legend above and one below its panels.

    Args:
        num_panels: How many panels are drawn, at least 1.
        columns: Panels per row, where there are as many.
        theme: Colours.
        panel: Width and height of one panel, in inches.
    """
    num_columns = max(1, min(columns, num_panels))
    num_rows = -(-num_panels // num_columns)
    inches = (panel[0] * num_columns, panel[1] * num_rows + LEGEND_INCHES)
    figure = Figure(figsize=inches, layout="constrained", facecolor=theme.paper)
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).ravel())
    for axis in axes[num_panels:]:
        axis.set_axis_off()
    return Grid(figure, axes[:num_panels], num_columns)


@dataclass(frozen=True)
class Grid:
    """A figure and its panels, row by row."""

    figure: Figure
    axes: list[Axes]
    num_columns: int

    def label_rows(self, text: str, theme: Theme) -> None:
        """Write a y label beside the first panel of each row."""
        for axis in self.axes[:: self.num_columns]:
            axis.set_ylabel(text, color=theme.muted)


def dress(axis: Axes, title: str, place: str, theme: Theme) -> None:
    """Give a panel its title, the line below it, and quiet axes."""
    axis.set_title(title, loc="left", color=theme.text, fontweight="bold", fontsize=11, pad=19)
    axis.text(0, 1.035, place, transform=axis.transAxes, color=theme.muted, fontsize=8.5, va="bottom")
    axis.set_facecolor(theme.paper)
    axis.grid(axis="y", color=theme.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=theme.muted, labelcolor=theme.muted, labelsize=8.5, length=3)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)


def ipc_axis(axis: Axes, ipcs: Sequence[int], theme: Theme) -> None:
    """Make the x axis the logarithm of images per class, with the IPCs that were run as ticks."""
    axis.set_xscale("log")
    log_ticks(axis, ipcs, [str(ipc) for ipc in ipcs], (ipcs[0] / 1.35, ipcs[-1] * 1.35))
    axis.set_xlabel("images per class", color=theme.muted)


def log_ticks(axis: Axes, places: Sequence[float], texts: Sequence[str], limits: tuple[float, float]) -> None:
    """Set ticks and limits of a logarithmic x axis; a label that would run into the one before is left out.

    Args:
        axis: The panel.
        places: Where the ticks are, ascending.
        texts: As many labels.
        limits: Ends of the axis.
    """
    span, end, labels = math.log(limits[1] / limits[0]), -math.inf, []
    for place, text in zip(places, texts, strict=True):
        start = math.log(place / limits[0]) / span - CHARACTER * len(text) / 2
        labels.append(text if start > end else "")
        end = start + CHARACTER * (len(text) + 1) if start > end else end
    axis.set_xlim(*limits)
    axis.set_xticks(places, labels)
    axis.set_xticks([], minor=True)


def accuracy_limits(axes: Sequence[Axes], values: Sequence[float]) -> None:
    """Give panels the same accuracy axis, in per cent, so that they compare by eye."""
    low, high = max(0.0, min(values)), min(100.0, max(values))
    margin = max(0.06 * (high - low), 1.0)
    for axis in axes:
        axis.set_ylim(max(0.0, low - margin), min(101.5, high + margin))


def legend(figure: Figure, handles: Sequence[Artist], place: Literal["upper", "lower"], theme: Theme) -> None:
    """Put a legend above (``upper``) or below (``lower``) the panels; none without handles."""
    if not handles:
        return
    column = 0.47 + 0.067 * max(len(str(handle.get_label())) for handle in handles)  # inches of a column of 8 pt
    per_row = max(1, int(figure.get_figwidth() / column))
    figure.legend(
        handles=list(handles),
        loc="outside upper left" if place == "upper" else "outside lower left",
        ncols=min(len(handles), per_row),
        labelcolor=theme.text if place == "upper" else theme.muted,
        frameon=False,
        fontsize=8,
        columnspacing=1.1,
        handlelength=2.2,
    )


def sentence_figure(sentence: str, theme: Theme) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = Figure(figsize=(6, 1.2), facecolor=theme.paper)
    figure.text(0.5, 0.5, sentence, ha="center", va="center", color=theme.muted)
    return figure


def render(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return a figure as the bytes of a ``png``, ``pdf`` or ``svg`` file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    options = {"metadata": undated[kind], **options}
    with mpl.rc_context({"svg.hashsalt": "ddnl"}):
        figure.savefig(buffer, format=kind, facecolor=figure.get_facecolor(), **options)
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, ...]:
    """Write a figure as ``name.svg``, ``name.pdf`` and ``name.png``, each atomically.

    Returns:
        The paths, in this order.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: the three files agree, and the second and third come sooner
    paths = tuple(folder / f"{name}.{kind}" for kind in ("svg", "pdf", "png"))
    for path in paths:
        write_atomic(path, render(figure, path.suffix[1:], **({"dpi": 200} if path.suffix == ".png" else {})))
    return paths
