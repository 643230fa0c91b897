"""A folder of images, one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.images import EXTENSIONS, Encoded, decode
from ddnl_ray.data.split import stratified_holdout
from ddnl_ray.errors import DataError, nearest

HELD_OUT = 0.2
TEST_FOLDERS = ("test", "val", "valid")
_SPLIT_SEED = 0


def load_folder(path: Path, size: int | None = None) -> Dataset:
    """Read ``folder:PATH``.

    Args:
        path: Holds ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val``), or ``CLASS/*`` directly; then a
            fixed, stratified fifth is held out as test set. Classes are sorted by name, images within a class
            too.
        size: Height and width to resize to, for images that differ in size.

    Raises:
        DataError: The folder, its classes or its images are missing or do not fit.
    """
    if not path.is_dir():
        raise DataError(f"no folder at {path}; folder:PATH needs a folder with one sub-folder per class")
    root = path / "train" if (path / "train").is_dir() else path
    classes = _class_folders(root)
    items, labels = _list_images(root, classes)
    if root == path:
        kept, held = stratified_holdout(np.array(labels), round(HELD_OUT * len(items)), _SPLIT_SEED)
        rows, test_rows = torch.from_numpy(kept), torch.from_numpy(held)
    else:
        test_items, test_labels = _list_images(_test_folder(path), classes)
        rows, test_rows = torch.arange(len(items)), torch.arange(len(items), len(items) + len(test_items))
        items, labels = items + test_items, labels + test_labels
    images = decode(items, size)
    files = [str(Path(item.name).relative_to(path)) for item in items]
    all_labels = torch.tensor(labels, dtype=torch.int64)
    return Dataset(
        name="folder",
        classes=classes,
        train_images=images[rows],
        train_labels=all_labels[rows],
        test_images=images[test_rows],
        test_labels=all_labels[test_rows],
        max_value=255,
        clean_labels=None,
        licence="unknown: the owner of the images decides",
        source=str(path),
        train_files=tuple(files[row] for row in rows.tolist()),
        held_files=tuple(files[row] for row in test_rows.tolist()) if root == path else None,
    )


def _class_folders(root: Path) -> tuple[str, ...]:
    """Return the names of the class folders, sorted."""
    classes = tuple(sorted(child.name for child in root.iterdir() if child.is_dir() and child.name[0] != "."))
    if len(classes) < 2:
        raise DataError(f"{root} must hold one sub-folder per class, at least 2, but holds {list(classes)}")
    return classes


def _test_folder(path: Path) -> Path:
    """Return the folder of test images beside ``train``."""
    for name in TEST_FOLDERS:
        if (path / name).is_dir():
            return path / name
    looked = ", ".join(f"{name}/" for name in TEST_FOLDERS)
    raise DataError(f"{path} has train/ but no test images; looked for {looked} in it")


def _list_images(root: Path, classes: tuple[str, ...]) -> tuple[list[Encoded], list[int]]:
    """Return the images of a tree and their labels, class by class."""
    unknown = sorted({child.name for child in root.iterdir() if child.is_dir()} - set(classes))
    if unknown:
        raise DataError(f"{root / unknown[0]} is not a class of train/: {nearest(unknown[0], classes)}")
    items: list[Encoded] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = (file for file in (root / name).rglob("*") if file.suffix.lower() in EXTENSIONS)
        found = [Encoded(str(file), file) for file in sorted(files)]
        items += found
        labels += [label] * len(found)
    if not items:
        raise DataError(f"no images below {root}; known file endings: {', '.join(sorted(EXTENSIONS))}")
    return items, labels
