"""CIFAR-10 and CIFAR-100, from the folders that torchvision unpacks or from the hub's parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.images import decode
from ddnl_ray.data.legacy_pickle import read_batch
from ddnl_ray.data.parquet import find_splits, read_part
from ddnl_ray.errors import DataError

_LICENCE = "none stated by the authors (Krizhevsky 2009); used for research"

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR100_CLASSES = tuple(
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm".split()
)


@dataclass(frozen=True)
class _Layout:
    """Where one of the two data sets keeps what."""

    name: str
    classes: tuple[str, ...]
    folder: str
    train_batches: tuple[str, ...]
    test_batches: tuple[str, ...]
    label_key: str


_LAYOUTS = {
    "cifar10": _Layout(
        name="cifar10",
        classes=CIFAR10_CLASSES,
        folder="cifar-10-batches-py",
        train_batches=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test_batches=("test_batch",),
        label_key="labels",
    ),
    "cifar100": _Layout(
        name="cifar100",
        classes=CIFAR100_CLASSES,
        folder="cifar-100-python",
        train_batches=("train",),
        test_batches=("test",),
        label_key="fine_labels",
    ),
}


def load_cifar(name: str, root: Path, download: bool = False) -> Dataset:
    """Read CIFAR-10 or CIFAR-100 (fine labels).

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: Holds ``cifar-10-batches-py`` (``cifar-100-python``), or ``train*.parquet`` and
            ``test*.parquet``, or a folder of the data set's name with either.
        download: Whether to fetch the data into ``root`` where it is not there.

    Raises:
        DataError: Files are missing or wrong; the message says which and where they were looked for.
    """
    layout = _LAYOUTS[name]
    found = _find(layout, root)
    if found is None and download:
        _download(layout, root)
        found = _find(layout, root)
    if found is None:
        folders = [root, root / name]
        looked = ", ".join([str(folder / layout.folder) for folder in folders])
        parquet = ", ".join([str(folder / "train*.parquet") for folder in folders])
        raise DataError(
            f"{name} is not there: looked for {looked} and {parquet}; name its folder with "
            "--set data.root=PATH, or fetch it with --download"
        )
    if found.name == layout.folder:
        train, test = (_read_batches(layout, found, part) for part in (layout.train_batches, layout.test_batches))
    else:
        train_files, test_files = find_splits(found)
        if not test_files:
            raise DataError(f"{name}: {found} has train*.parquet but no test*.parquet")
        train, test = _read_parquet(train_files), _read_parquet(test_files)
    return Dataset(
        name=name,
        classes=layout.classes,
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        max_value=255,
        clean_labels=train[1],
        licence=_LICENCE,
        source=str(found),
    )


def _find(layout: _Layout, root: Path) -> Path | None:
    """Return the folder that holds the data, if there is one."""
    for folder in (root, root / layout.name):
        if folder.name == layout.folder and folder.is_dir():
            return folder
        if (folder / layout.folder).is_dir():
            return folder / layout.folder
        if list(folder.glob("train*.parquet")) or list((folder / "data").glob("train*.parquet")):
            return folder
    return None


def _download(layout: _Layout, root: Path) -> None:
    """Fetch and unpack the published archive; torchvision checks its checksum."""
    from torchvision.datasets import CIFAR10, CIFAR100

    {"cifar10": CIFAR10, "cifar100": CIFAR100}[layout.name](str(root), download=True)


def _read_batches(layout: _Layout, folder: Path, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Read the pickled batches of one split."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{layout.name}: {folder} lacks {', '.join(missing)}; unpack the archive again")
    batches = [read_batch(folder / name, layout.label_key) for name in names]
    pixels = np.concatenate([batch[0] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = [label for batch in batches for label in batch[1]]
    return torch.from_numpy(pixels), torch.tensor(labels, dtype=torch.int64)


def _read_parquet(files: list[Path]) -> tuple[Tensor, Tensor]:
    """Read the parquet files of one split."""
    part = read_part(files)
    return decode(part.images), part.labels
