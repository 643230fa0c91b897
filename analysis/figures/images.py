"""Distilled images at one image per class, one row per noise rate.

Reproduces figure 2 of "Dataset Distillers Are Good Label Denoisers" and figure 3 of its in-the-wild paper, from the
previews in the run folders: the first replicate of each setting, up to ten classes, with the accuracy of the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from analysis.figures.accuracy import place_of
from analysis.figures.style import LIGHT, Theme
from analysis.fits.series import by_noise
from analysis.names import CORESETS, percent
from analysis.panels import series_name
from analysis.previews import Preview, previews
from analysis.scores import Setting

Pixels = NDArray[np.uint8]

NO_IMAGES = "No selected trial at one image per class has a preview."
WIDTH_INCHES = 6.2
LABEL_INCHES = 1.9
TITLE_INCHES = 0.62
GAP = 8
"""Between rows, in pixels of a preview."""


@dataclass(frozen=True)
class ImageRow:
    """The distilled set of one noise setting.

    Attributes:
        name: The rate or the label set.
        accuracy: Mean over the evaluation repeats of this set, 0..1.
        pixels: The preview, uint8, [H, W, 3].
    """

    name: str
    accuracy: float
    pixels: Pixels


@dataclass(frozen=True)
class ImageBlock:
    """The images of one method on one data set under one kind of noise, by rate."""

    key: Setting
    rows: tuple[ImageRow, ...]


def image_blocks(runs: Sequence[tuple[Path, pd.DataFrame]], split: str = "test") -> list[ImageBlock]:
    """Read the previews of the distilled sets at one image per class.

    Args:
        runs: Run folders, each with its own result table.
        split: The split of the accuracies.
    """
    first: dict[Setting, tuple[Path, Preview]] = {}
    for run, frame in runs:
        chosen = frame[frame["ipc"].eq(1).fillna(False).astype(bool) & ~frame["base_method"].isin(["full", *CORESETS])]
        for preview in previews(run, chosen, split):
            first.setdefault(preview.setting, (run, preview))
    groups = by_noise([preview for _, preview in first.values()])
    blocks = [
        ImageBlock(key, tuple(_row(*first[one.setting]) for one in sorted(members, key=lambda one: one.setting.order)))
        for key, members in groups.items()
    ]
    return sorted(blocks, key=lambda block: block.key.order)


def images_figure(blocks: Sequence[ImageBlock], *, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
    """Draw the images, one block per data set, kind of noise and method.

    Args:
        blocks: Of :func:`image_blocks`, at least one.
        theme: Colours.
        columns: Blocks per row; by default one, and two for more than three blocks.
    """
    num_columns = min(columns or (1 if len(blocks) <= 3 else 2), len(blocks))
    lines = [list(blocks[i : i + num_columns]) for i in range(0, len(blocks), num_columns)]
    stacked = {id(block): _stacked(block, theme) for block in blocks}
    inches = WIDTH_INCHES - LABEL_INCHES
    heights = [
        TITLE_INCHES + max(inches * stacked[id(block)].shape[0] / stacked[id(block)].shape[1] for block in line)
        for line in lines
    ]
    total = sum(heights) + 0.1
    figure = Figure(figsize=(WIDTH_INCHES * num_columns, total), facecolor=theme.paper)
    top = total
    for line, height in zip(lines, heights, strict=True):
        for i, block in enumerate(line):
            pixels = stacked[id(block)]
            tall = inches * pixels.shape[0] / pixels.shape[1]
            left = WIDTH_INCHES * i + 0.6 * LABEL_INCHES
            box = (left / (WIDTH_INCHES * num_columns), (top - TITLE_INCHES - tall) / total)
            size = (inches / (WIDTH_INCHES * num_columns), tall / total)
            _draw_block(figure.add_axes((*box, *size)), block, pixels, theme)
        top -= height
    return figure


def _row(run: Path, preview: Preview) -> ImageRow:
    with Image.open(run / preview.path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    setting = preview.setting
    return ImageRow(
        series_name((setting.noise, setting.noise_rate, setting.label_set)).removesuffix(" noise")
        if setting.noise != "none"
        else "no noise",
        preview.accuracy,
        pixels,
    )


def _stacked(block: ImageBlock, theme: Theme) -> Pixels:
    """Return the rows below one another on paper, [H, W, 3]; previews of another size are enlarged by whole factors."""
    width = max(row.pixels.shape[1] for row in block.rows)
    paper = np.array([int(theme.paper[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    pieces: list[Pixels] = []
    for pixels in _enlarged(block, width):
        canvas = np.tile(paper, (pixels.shape[0] + GAP * bool(pieces), width, 1))
        canvas[-pixels.shape[0] :, : pixels.shape[1]] = pixels
        pieces.append(canvas)
    return np.concatenate(pieces)


def _enlarged(block: ImageBlock, width: int) -> list[Pixels]:
    scales = [max(1, width // row.pixels.shape[1]) for row in block.rows]
    return [row.pixels.repeat(s, axis=0).repeat(s, axis=1) for row, s in zip(block.rows, scales, strict=True)]


def _draw_block(axis: Axes, block: ImageBlock, pixels: Pixels, theme: Theme) -> None:
    axis.imshow(pixels, interpolation="nearest", aspect="auto")
    heights = [piece.shape[0] for piece in _enlarged(block, pixels.shape[1])]
    tops = np.cumsum([0, *[height + GAP for height in heights[:-1]]])
    centres = [float(top + height / 2 - 0.5) for top, height in zip(tops, heights, strict=True)]
    axis.set_xticks([])
    axis.set_yticks(centres, [row.name for row in block.rows], color=theme.text, fontsize=9)
    axis.tick_params(length=0)
    for centre, row in zip(centres, block.rows, strict=True):
        axis.text(
            1.02,
            centre,
            f"{percent(row.accuracy)} %",
            transform=axis.get_yaxis_transform(),
            va="center",
            color=theme.muted,
            fontsize=8.5,
        )
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_title(block.key.method, loc="left", color=theme.text, fontweight="bold", fontsize=11, pad=19)
    axis.annotate(
        f"{place_of(block.key)} · IPC 1",
        (0, 1),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        color=theme.muted,
        fontsize=8.5,
    )
