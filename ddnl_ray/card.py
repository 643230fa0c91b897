"""The distilled set as files that a stranger can use: ``distilled.safetensors``, ``card.json``, ``preview.png``.

Reading them needs safetensors and json alone. The images are kept as networks were trained on them, in the
transformed space; ``transform`` in the card says how to come from pixels to that space and back. ``images.sha256`` and
``transform.sha256`` are those of the files, ``sha256`` is that of the card itself (:func:`seal`); cards of version 1
that were written before they had one lack the latter two and ``test``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddnl_ray.data import Normalise, PreparedData, Zca
from ddnl_ray.distill import Distilled
from ddnl_ray.files import canonical, sha256, write_atomic, write_json, write_tensors

FORMAT_VERSION = 1
PREVIEW_CELLS = 10
PREVIEW_PIXELS = 640


@dataclass(frozen=True)
class Expected:
    """The accuracy that retraining on the set should give.

    Attributes:
        split: Where it was measured.
        mean: Mean over the networks.
        low: Lower end of the 95 % Student interval over retraining (None for one network).
        high: Its upper end.
        n: Number of networks.
    """

    split: str
    mean: float
    low: float | None
    high: float | None
    n: int


def expected(split: str, accuracies: list[float]) -> Expected:
    """Return mean and 95 % Student interval of the accuracies of ``n`` retrained networks."""
    from scipy import stats

    n, mean = len(accuracies), float(np.mean(accuracies))
    if n < 2:
        return Expected(split, mean, None, None, n)
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(accuracies, ddof=1)) / math.sqrt(n)
    return Expected(split, mean, mean - half, mean + half, n)


def formation(training: Distilled) -> dict[str, Any] | None:
    """Return how a stored image becomes several training images; None: it is one."""
    found: dict[str, Any] = {}
    if training.factor > 1:
        found |= {
            "factor": training.factor,
            "decode": "cut each image into factor x factor equal crops, row by row (an odd border repeated), and "
            "enlarge each to the full size (bilinear, align_corners=False); each has the label of its image",
        }
    if training.mirrored:
        found["mirror"] = "add every image mirrored from left to right, with the same label"
    return found or None


def label_kind(training: Distilled) -> str:
    """Return what the labels are: ``classes``, ``probabilities``, or ``scores``, the targets of a regression."""
    if training.scores:
        return "scores"
    return "probabilities" if training.labels.is_floating_point() else "classes"


def write_card(
    folder: Path,
    images: Tensor,
    labels: Tensor,
    data: PreparedData,
    about: dict[str, Any],
    kind: str | None = None,
) -> None:
    """Write a distilled set, its card and its preview.

    Args:
        folder: The trial's folder.
        images: [n, C, H, W] in the transformed space.
        labels: Hard labels, int64 [n], or class probabilities or scores [n, classes].
        data: The data that it was made of.
        about: What else the card should say (step size, evaluation recipe, expected accuracy, noise, method).
        kind: What the labels are (:func:`label_kind`); None: classes or probabilities, by their type.
    """
    images, labels = images.detach().cpu().float(), labels.detach().cpu()
    kind = kind or label_kind(Distilled(images, labels))
    path = folder / "distilled.safetensors"
    write_tensors(path, {"images": images, "labels": labels}, {"format_version": FORMAT_VERSION})
    _write_preview(folder / "preview.png", data.transform.to("cpu").invert(images), labels, data.num_classes)
    card = {
        "format_version": FORMAT_VERSION,
        "dataset": data.name,
        "classes": list(data.classes),
        "images": {
            "file": path.name,
            "layout": "NCHW",
            "shape": list(images.shape),
            "sha256": sha256(path.read_bytes()),
        },
        "labels": {"kind": kind},
        "pixels": {"range": [float(images.min()), float(images.max())], "space": "transformed"},
        "transform": _transform(folder, data),
        "test": {
            "images": len(data.test_labels),
            "subset": data.config.test_subset,
            "split_seed": data.config.split_seed,
            "labels_sha256": labels_sha256(data.test_labels),
        },
        "licence": data.licence,
        **about,
    }
    write_json(folder / "card.json", seal(card))


def seal(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card with the SHA-256 of all its other entries, as JSON with sorted keys and no spaces."""
    rest = {key: value for key, value in card.items() if key != "sha256"}
    return {**rest, "sha256": sha256(canonical(rest).encode())}


def labels_sha256(labels: Tensor) -> str:
    """Return the SHA-256 of labels as little-endian 64-bit integers."""
    return sha256(labels.cpu().numpy().astype("<i8").tobytes())


def _transform(folder: Path, data: PreparedData) -> dict[str, Any]:
    """Return how pixels in [0, 1] become network input; the matrices of ZCA go to a file beside the card."""
    if isinstance(data.transform, Zca):
        path = folder / "zca.safetensors"
        shared = folder.parent.parent / "transforms" / f"zca-{data.fingerprint}.safetensors"
        if not shared.is_file():
            tensors = {
                "mean": data.transform.mean,
                "whiten": data.transform.whiten,
                "unwhiten": data.transform.unwhiten,
            }
            write_tensors(shared, tensors, {"format_version": FORMAT_VERSION})
        path.unlink(missing_ok=True)
        try:
            path.hardlink_to(shared)
        except OSError:  # a file system without hard links
            write_atomic(path, shared.read_bytes())
        return {
            "kind": "zca",
            "file": path.name,
            "sha256": sha256(path.read_bytes()),
            "forward": "z = (flatten(x) - mean) @ whiten, x in [0, 1], channel first",
            "inverse": "x = z @ unwhiten + mean",
        }
    assert isinstance(data.transform, Normalise)
    return {
        "kind": "normalise",
        "mean": [float(value) for value in data.transform.mean],
        "std": [float(value) for value in data.transform.std],
        "forward": "z = (x - mean) / std, x in [0, 1]",
        "inverse": "x = z * std + mean",
    }


def _write_preview(path: Path, pixels: Tensor, labels: Tensor, num_classes: int) -> None:
    """Write a picture of up to ten images of each of up to ten classes, one column per class."""
    from PIL import Image

    owners = labels.argmax(1) if labels.is_floating_point() else labels
    columns, rows = min(PREVIEW_CELLS, num_classes), min(PREVIEW_CELLS, max(1, len(pixels) // num_classes))
    channels, height, width = pixels.shape[1:]
    canvas = torch.ones(channels, rows * (height + 1) - 1, columns * (width + 1) - 1)
    for column in range(columns):
        own = (owners == column).nonzero().squeeze(1)[:rows]
        for row, index in enumerate(own.tolist()):
            top, left = row * (height + 1), column * (width + 1)
            canvas[:, top : top + height, left : left + width] = pixels[index].clamp(0, 1)
    array = (canvas * 255).round().to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3).numpy()
    picture = Image.fromarray(array)
    scale = max(1, PREVIEW_PIXELS // max(picture.size))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    write_atomic(path, buffer.getvalue())
