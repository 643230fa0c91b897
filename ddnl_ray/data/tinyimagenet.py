"""Tiny-ImageNet: 200 classes, 64x64 pixels, from its own folder or from parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.images import Encoded, decode
from ddnl_ray.data.parquet import find_splits, read_classes, read_part
from ddnl_ray.errors import DataError

_SUBFOLDERS = ("", "tiny-imagenet-200", "tinyimagenet", "tiny-imagenet")
_LICENCE = "ImageNet's terms: non-commercial research and education only"


def load_tinyimagenet(root: Path) -> Dataset:
    """Read Tiny-ImageNet; its validation images are the test set, as in the literature.

    Classes are the sorted WordNet identifiers.

    Args:
        root: The data set's folder or the one above it. Either the published tree (``wnids.txt``,
            ``train/WNID/images/*``, ``val/val_annotations.txt``, ``val/images/*``) or ``train*.parquet``,
            ``val*.parquet`` and ``classes.txt``.

    Raises:
        DataError: Files are missing; the message says which and where they were looked for.
    """
    folders = [root / name for name in _SUBFOLDERS]
    for folder in folders:
        if (folder / "wnids.txt").is_file():
            return _from_tree(folder)
        if list(folder.glob("train*.parquet")) or list((folder / "data").glob("train*.parquet")):
            return _from_parquet(folder)
    looked = ", ".join(map(str, folders))
    raise DataError(
        f"tinyimagenet is not there: looked for wnids.txt or train*.parquet in {looked}; fetch "
        "tiny-imagenet-200.zip, unpack it and name its folder with --set data.root=PATH"
    )


def _from_tree(folder: Path) -> Dataset:
    """Read the published tree."""
    classes = tuple(sorted((folder / "wnids.txt").read_text().split()))
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    train: list[Encoded] = []
    labels: list[int] = []
    for wnid, label in label_of.items():
        files = sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
        if not files:
            raise DataError(f"tinyimagenet: no *.JPEG in {folder / 'train' / wnid / 'images'}; unpack it again")
        train += [Encoded(str(file), file) for file in files]
        labels += [label] * len(files)
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise DataError(f"tinyimagenet: {annotations} is missing; it holds the labels of the test images")
    test: list[Encoded] = []
    test_labels: list[int] = []
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in label_of:
            raise DataError(f"{annotations} line {number} must be FILE<tab>WNID..., but is {line!r}")
        file = folder / "val" / "images" / fields[0]
        test.append(Encoded(str(file), file))
        test_labels.append(label_of[fields[1]])
    return _dataset(classes, train, test, labels, test_labels, folder)


def _from_parquet(folder: Path) -> Dataset:
    """Read parquet files."""
    train_files, test_files = find_splits(folder)
    if not test_files:
        raise DataError(f"tinyimagenet: {folder} has train*.parquet but no val*.parquet (nor test*.parquet)")
    train, test = read_part(train_files), read_part(test_files)
    listed = folder / "classes.txt"
    classes = read_classes(listed) if listed.is_file() else train.class_names
    if classes is None:
        raise DataError(f"tinyimagenet: {listed} is missing; it lists the WordNet identifiers in label order")
    return _dataset(classes, train.images, test.images, train.labels.tolist(), test.labels.tolist(), folder)


def _dataset(
    classes: tuple[str, ...],
    train: Sequence[Encoded],
    test: Sequence[Encoded],
    train_labels: list[int],
    test_labels: list[int],
    folder: Path,
) -> Dataset:
    """Decode the images (some are grey; all become RGB) and put the data set together."""
    images = decode([*train, *test])
    labels = torch.tensor(train_labels, dtype=torch.int64)
    return Dataset(
        name="tinyimagenet",
        classes=classes,
        train_images=images[: len(train)],
        train_labels=labels,
        test_images=images[len(train) :],
        test_labels=torch.tensor(test_labels, dtype=torch.int64),
        max_value=255,
        clean_labels=labels,
        licence=_LICENCE,
        source=str(folder),
    )
