"""The labels of the images that a preview shows: what the report tells on hover, tap and focus."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.names import counted, percent
from ddnl_ray.errors import DdnlError
from ddnl_ray.files import read_json

GRID = 10
"""A preview has at most this many classes (columns) and images of each (rows), as ``ddnl_ray.card`` draws it."""
TOP_CLASSES = 5
LABEL_BYTES = 2 * 2**20
"""Labels that a report embeds beside its pictures."""


@dataclass(frozen=True, slots=True)
class ShownLabels:
    """The labels of the images of one preview.

    Attributes:
        columns: Columns of the preview.
        rows: Its rows.
        classes: Names of the classes.
        tops: For every place, row by row, the largest classes as pairs (class, probability), the largest first; empty
            where the preview has no image.
        is_soft: Whether labels are class probabilities.
        own: Mean of the largest probability over all images of the set, 0..1.
    """

    columns: int
    rows: int
    classes: tuple[str, ...]
    tops: tuple[tuple[tuple[int, float], ...], ...]
    is_soft: bool
    own: float

    @property
    def sentence(self) -> str:
        """What the labels are, for a reader who sees no more of them."""
        return f"soft labels, {percent(self.own)} % on the largest class" if self.is_soft else "hard labels"

    @property
    def text(self) -> str:
        """The labels as compact JSON: columns, names, and per image class, then probability in per mille, and so on."""
        named = sorted({index for top in self.tops for index, _ in top})
        tops = [[number for index, part in top for number in (index, round(1000 * part))] for top in self.tops]
        names = {str(index): self.classes[index] for index in named}
        return json.dumps({"columns": self.columns, "names": names, "tops": tops}, separators=(",", ":"))


def read_labels(trial: Path) -> ShownLabels | None:
    """Return the labels of the images in the preview of a trial; None without files that can be read and agree.

    An image that decodes to several training images has one label for all of them.

    Args:
        trial: The trial's folder, with ``card.json`` and ``distilled.safetensors``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        card: dict[str, Any] = read_json(trial / "card.json")
        with safe_open(trial / "distilled.safetensors", framework="numpy") as file:
            labels = np.asarray(file.get_tensor("labels"))
        return shown_labels(labels, tuple(map(str, card["classes"])))
    except (OSError, SafetensorError, DdnlError, KeyError, TypeError, ValueError):
        return None


def shown_labels(labels: NDArray[Any], classes: tuple[str, ...]) -> ShownLabels:
    """Return the labels in the places of a preview.

    Args:
        labels: Class indices [n], or class probabilities [n, classes].
        classes: Names of all classes.

    Raises:
        ValueError: The labels do not fit the classes.
    """
    num_classes, is_soft = len(classes), labels.ndim == 2
    fits = labels.shape[1] == num_classes if is_soft else bool(((labels >= 0) & (labels < num_classes)).all())
    if not fits:
        raise ValueError(f"labels of shape {labels.shape} do not fit {num_classes} classes")
    owners = labels.argmax(1) if is_soft else labels
    columns, rows = min(GRID, num_classes), min(GRID, max(1, len(labels) // num_classes))
    tops: list[tuple[tuple[int, float], ...]] = [()] * (rows * columns)
    for column in range(columns):
        for row, index in enumerate(np.flatnonzero(owners == column)[:rows].tolist()):
            tops[row * columns + column] = _top(labels[index]) if is_soft else ((int(owners[index]), 1.0),)
    own = float(labels.max(1).mean()) if is_soft and len(labels) else 1.0
    return ShownLabels(columns, rows, classes, tuple(tops), is_soft, own)


def left_out(num: int) -> str:
    """Return what to say of ``num`` pictures whose labels would make the report too large; empty for none."""
    return f"The labels of {counted(num, 'picture')} are not embedded: the report is large." if num else ""


def _top(probabilities: NDArray[Any]) -> tuple[tuple[int, float], ...]:
    order = np.argsort(-probabilities, kind="stable")[:TOP_CLASSES]
    return tuple((int(index), float(probabilities[index])) for index in order)
