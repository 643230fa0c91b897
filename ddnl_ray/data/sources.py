"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddnl_ray.data.cifar import load_cifar
from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.digits import load_digits
from ddnl_ray.data.folder import load_folder
from ddnl_ray.data.labels import read_labels
from ddnl_ray.data.parquet import load_parquet
from ddnl_ray.data.tinyimagenet import load_tinyimagenet
from ddnl_ray.errors import RequestError, nearest

DEFAULT_ROOT = Path("~/data")

BENCHMARKS: dict[str, Callable[[Path, bool], Dataset]] = {
    "digits": lambda root, download: load_digits(),
    "cifar10": lambda root, download: load_cifar("cifar10", root, download),
    "cifar100": lambda root, download: load_cifar("cifar100", root, download),
    "tinyimagenet": lambda root, download: load_tinyimagenet(root),
}
"""Sources by name: functions of the folder that holds the data sets and of whether downloading is allowed."""

PATHS: dict[str, Callable[[Path, int | None], Dataset]] = {
    "folder": load_folder,
    "parquet": load_parquet,
}
"""Sources by prefix (``folder:PATH``): functions of the path and of the size to resize to."""


def load(
    name: str,
    root: Path | None = None,
    labels: Path | None = None,
    size: int | None = None,
    download: bool = False,
) -> Dataset:
    """Read a data set.

    Args:
        name: A key of :data:`BENCHMARKS`, ``folder:PATH`` or ``parquet:PATH``.
        root: Where the benchmarks are, ``~/data`` by default; ``digits`` and paths do not need it.
        labels: A csv or parquet file whose labels replace those of the training images, row by row. Where a
            test set had to be held out, the training images are those that were kept, in the order of the
            source.
        size: Height and width that ``folder:`` and ``parquet:`` images are resized to.
        download: Whether CIFAR may be fetched from its authors where it is not in ``root``.

    Raises:
        RequestError: The name is unknown, or ``size`` is given for a benchmark.
        DataError: Files are missing or wrong.
    """
    prefix, colon, path = name.partition(":")
    if colon and prefix in PATHS:
        if not path:
            raise RequestError(f"{name!r} names no path; write {prefix}:PATH")
        if size is not None and size < 1:
            raise RequestError(f"data.size must be at least 1, but got {size}")
        dataset = PATHS[prefix](Path(path).expanduser(), size)
    elif name in BENCHMARKS:
        if size is not None:
            raise RequestError(f"data.size={size} resizes folder: and parquet: images only; {name} has a fixed size")
        dataset = BENCHMARKS[name]((root or DEFAULT_ROOT).expanduser(), download)
    else:
        known = [*BENCHMARKS, *(f"{prefix}:PATH" for prefix in PATHS)]
        raise RequestError(f"unknown data set {name!r}: {nearest(name, known)}")
    if labels is None:
        return dataset
    observed, clean = read_labels(labels.expanduser(), dataset.classes, len(dataset.train_images))
    return replace(dataset, train_labels=observed, clean_labels=clean, source=f"{dataset.source}, labels {labels}")
