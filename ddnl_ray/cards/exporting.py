"""A distilled set as files that other tools read, in pixels that a screen can show.

The transform is undone, pixels are cut to [0, 1] and rounded to 8 bits: a distilled image usually reaches beyond, so
that the export shows the set, and trains a little differently from it. How much was cut is said.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddnl_ray.cards.read import Card
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.files import write_json

FORMATIONS = ("stored", "decoded")
EXPORT_VERSION = 1


@dataclass(frozen=True)
class Exported:
    """What is written.

    Attributes:
        images: uint8 [n, H, W, C].
        labels: The class of every image, int64 [n].
        soft: float32 [n, classes], where the labels are soft.
        classes: Class names.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    soft: npt.NDArray[np.float32] | None
    classes: tuple[str, ...]


def export(card: Card, kind: str, out: Path, formation: str = "stored") -> dict[str, Any]:
    """Write a set into a new folder, which appears whole or not at all; return the card of the export.

    Args:
        card: The set.
        kind: A key of :data:`FORMATS`.
        out: The folder; it must not exist, or be empty.
        formation: ``stored``: the images as they are stored; ``decoded``: the training images that they hold.

    Raises:
        RequestError: A name is unknown, or the folder is in use.
    """
    require_known("export format", kind, FORMATS)
    require_known("formation", formation, FORMATIONS)
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out} is a file; name a folder that does not exist yet, or is empty")
    if out.is_dir() and any(out.iterdir()):
        raise RequestError(f"--out {out} is not empty, and nothing is overwritten; name another folder, or empty it")
    found, share = _pixels(card, formation)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        about = _about(card, kind, formation, found, share) | {"files": FORMATS[kind](found, temporary)}
        write_json(temporary / "card.json", about)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


def _pixels(card: Card, formation: str) -> tuple[Exported, float]:
    """Return the set in pixels, and the share of its values that were cut."""
    training = card.training.decoded() if formation == "decoded" else card.training
    pixels = card.transform.invert(training.images.double())
    cut = float(((pixels < -0.5 / 255) | (pixels > 1 + 0.5 / 255)).double().mean())
    images = (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    soft = training.labels.is_floating_point()
    labels = training.labels.argmax(1) if soft else training.labels
    return Exported(images, labels.numpy(), training.labels.numpy() if soft else None, card.classes), cut


def _about(card: Card, kind: str, formation: str, found: Exported, share: float) -> dict[str, Any]:
    """Return what the export says of itself."""
    about, held = card.about, card.about.get("formation")
    kept = {
        name: about.get(name)
        for name in ("method", "ipc", "dataset", "classes", "noise", "licence", "network", "evaluation", "step_size")
    }
    return {
        **kept,
        "export": {"format": kind, "version": EXPORT_VERSION, "of_config": about.get("config_hash")},
        "about": "A distilled training set in displayable pixels: the network input of the original set with its "
        "transform undone, cut to [0, 1] and rounded to 8 bits. To train on it, apply the transform again.",
        "pixels": {"space": "pixels", "range": [0, 255], "layout": "NHWC", "share_cut": share},
        "images": {"shape": list(found.images.shape)},
        "labels": {
            "classes": "of soft labels the largest",
            "soft": about["labels"]["kind"] if found.soft is not None else None,
        },
        "formation": held if formation == "stored" else None,
        "transform": {name: value for name, value in about["transform"].items() if name not in ("file", "sha256")},
        "expected_accuracy": {**about["expected_accuracy"], "of": "the original set, before cutting and rounding"},
    }


def _parquet(found: Exported, folder: Path) -> dict[str, str]:
    """Write one table as the hubs of data sets have it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = [{"bytes": _png(image), "path": f"{row:06d}.png"} for row, image in enumerate(found.images)]
    columns = {"image": pa.array(encoded), "label": pa.array(found.labels)}
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(found.classes), "_type": "ClassLabel"},
    }
    if found.soft is not None:
        columns["soft_label"] = pa.array(list(found.soft), type=pa.list_(pa.float32()))
        features["soft_label"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "train.parquet")
    soft = ", soft_label" if found.soft is not None else ""
    return {"train.parquet": f"columns image (png), label{soft}"}


def _imagefolder(found: Exported, folder: Path) -> dict[str, str]:
    """Write a tree with a folder for every class, whose sorted names give the labels, and a table of the labels."""
    names = class_folders(found.classes)
    for name in names:
        (folder / name).mkdir()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    soft = found.soft if found.soft is not None else np.empty((len(found.labels), 0), np.float32)
    writer.writerow(["file", "label", "class", *(f"soft_{index}" for index in range(soft.shape[1]))])
    for row, (image, label) in enumerate(zip(found.images, found.labels.tolist(), strict=True)):
        place = f"{names[label]}/{row:06d}.png"
        (folder / place).write_bytes(_png(image))
        writer.writerow([place, label, found.classes[label], *map(float, soft[row])])
    (folder / "labels.csv").write_text(text.getvalue(), encoding="utf-8")
    return {"CLASS/*.png": "the images", "labels.csv": "file, label, class, and soft labels where there are some"}


def _npz(found: Exported, folder: Path) -> dict[str, str]:
    """Write arrays, which load without pickle."""
    arrays: dict[str, Any] = {"images": found.images, "labels": found.labels, "classes": np.array(found.classes)}
    if found.soft is not None:
        arrays["soft_labels"] = found.soft
    np.savez_compressed(folder / "train.npz", **arrays)
    return {"train.npz": ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items())}


FORMATS: dict[str, Callable[[Exported, Path], dict[str, str]]] = {
    "parquet": _parquet,
    "imagefolder": _imagefolder,
    "npz": _npz,
}
"""Writers by name: each writes a set into a folder and says of every file what it holds."""


def class_folders(classes: Sequence[str]) -> list[str]:
    """Return names of folders whose order is that of the classes: theirs, behind a number where they cannot serve."""
    plain = [name for name in classes if name.strip(". ") == name and name and not set(name) & set('/\\:*?"<>|\0')]
    folded = {name.casefold() for name in classes}
    if len(plain) == len(classes) == len(folded) and sorted(classes) == list(classes):
        return list(classes)
    digits = len(str(len(classes) - 1))
    kept = ["".join(letter if letter.isalnum() or letter in " -_" else "_" for letter in name) for name in classes]
    return [f"{index:0{digits}d}_{name.strip()}"[:100] for index, name in enumerate(kept)]


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    """Return [H, W, C] encoded, grey where there is one channel."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, format="png")
    return buffer.getvalue()
