"""From a data set to tensors that a method can use: subset, split, transform.

Differs from the published codes: they fit the ZCA transform on the full training set and choose on the test
set. Here a validation part is held out first, and the transform sees neither it nor the test set.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.normalise import KERNEL_STD, PUBLISHED, Normalise
from ddnl_ray.data.zca import Zca
from ddnl_ray.errors import DataError, RequestError
from ddnl_ray.files import digest
from ddnl_ray.seeds import SeedTree

Whitening: TypeAlias = bool | Literal["relative"]
"""Whether images are whitened, and how."""

_TRANSFORM_FIELDS = {"normalise": ("mean", "std"), "zca": ("mean", "whiten", "unwhiten")}
_TENSORS = (
    "train_images",
    "val_images",
    "test_images",
    "test_labels",
    "train_index",
    "val_index",
    "observed_labels",
    "clean_labels",
)


@dataclass(frozen=True)
class PrepareConfig:
    """How a data set becomes tensors.

    Attributes:
        subset: Training images to keep, drawn at random before anything else; None keeps all.
        test_subset: Test images to keep, drawn at random; None keeps all.
        val_fraction: Share of the (kept) training images that is held out as validation, in [0, 0.5].
        zca: Whether to whiten (ZCA) instead of normalising per channel; ``relative``: as the kernel methods whiten
            (:meth:`ddnl_ray.data.Zca.fit_relative`).
        split_seed: Seed of the subsets and of the split.
    """

    subset: int | None = None
    test_subset: int | None = None
    val_fraction: float = 0.1
    zca: Whitening = False
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: A value is out of range.
        """
        if not 0 <= self.val_fraction <= 0.5:
            raise RequestError(f"data.val_fraction must be in [0, 0.5], but got {self.val_fraction}")
        for key in ("subset", "test_subset"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise RequestError(f"data.{key} must be at least 1, but got {value}; leave it out to keep all")


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Transformed images on one device, and what is needed to draw label noise and to go back to pixels.

    Label noise is drawn on the whole training set in file order and then indexed, so that the same noise seed
    flips the same images whatever the subset and the split are.

    Attributes:
        name: Name of the data set.
        classes: Class names.
        fingerprint: Identifies the data set and the :class:`PrepareConfig`.
        train_images: float32 [M, C, H, H], the part to fit on, transformed.
        val_images: float32 [V, C, H, H], the held-out part, transformed.
        test_images: float32 [T, C, H, H], transformed.
        test_labels: int64 [T].
        train_index: int64 [M], rows of the original training set, ascending.
        val_index: int64 [V], rows of the original training set, ascending.
        observed_labels: int64 [N], of the whole original training set.
        clean_labels: int64 [N] or None, likewise.
        transform: Fitted on ``train_images`` only (or the published constants).
        licence: Of the data set, for the cards of what is distilled from it.
        config: How they were prepared.
    """

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    train_images: Tensor
    val_images: Tensor
    test_images: Tensor
    test_labels: Tensor
    train_index: Tensor
    val_index: Tensor
    observed_labels: Tensor
    clean_labels: Tensor | None
    transform: Normalise | Zca
    licence: str
    config: PrepareConfig

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> PreparedData:
        """Return the same data with every tensor on ``device``."""
        moved: dict[str, Any] = {key: value.to(device) for key, value in self._tensors().items()}
        return replace(self, transform=self.transform.to(device), **moved)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return every tensor as a NumPy array, without copies where the data are on the CPU."""
        kind = _kind(self.transform)
        tensors = self._tensors() | {
            f"transform.{field}": getattr(self.transform, field) for field in _TRANSFORM_FIELDS[kind]
        }
        return {key: tensor.cpu().numpy() for key, tensor in tensors.items()}

    def meta(self) -> dict[str, Any]:
        """Return what :meth:`arrays` leaves out, as a value that JSON can hold."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "fingerprint": self.fingerprint,
            "transform": _kind(self.transform),
            "licence": self.licence,
            "config": asdict(self.config),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> PreparedData:
        """Return the data whose :meth:`arrays` and :meth:`meta` these are.

        The tensors are views of the arrays, also of read-only ones in shared memory: write to none of them in
        place.
        """
        tensors: dict[str, Any] = {key: _view(array) for key, array in arrays.items()}
        fields: dict[str, Any] = {key: tensors.get(key) for key in _TENSORS}
        kind = str(meta["transform"])
        parameters = {field: tensors[f"transform.{field}"] for field in _TRANSFORM_FIELDS[kind]}
        return cls(
            name=meta["name"],
            classes=tuple(meta["classes"]),
            fingerprint=meta["fingerprint"],
            licence=meta["licence"],
            config=PrepareConfig(**meta["config"]),
            transform=Zca(**parameters) if kind == "zca" else Normalise(**parameters),
            **fields,
        )

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors that exist, by attribute name."""
        return {key: getattr(self, key) for key in _TENSORS if getattr(self, key) is not None}


def prepare(dataset: Dataset, config: PrepareConfig | None = None) -> PreparedData:
    """Take the subsets, hold out the validation part, fit the transform on the rest, apply it to all parts.

    Raises:
        DataError: A subset is larger than the data, or a class has no image left to fit on.
    """
    config = config or PrepareConfig()
    seeds = SeedTree.root(config.split_seed)
    kept = _subset("subset", len(dataset.train_images), config.subset, seeds)
    num_val = round(config.val_fraction * len(kept))
    shuffled = seeds.child("validation").numpy().permutation(kept)
    val_index, train_index = np.sort(shuffled[:num_val]), np.sort(shuffled[num_val:])
    test_index = _subset("test_subset", len(dataset.test_images), config.test_subset, seeds)
    _require_every_class(dataset, train_index)

    def pixels(images: Tensor, index: npt.NDArray[np.int64]) -> Tensor:
        return images[torch.from_numpy(index)].float() / dataset.max_value

    train_pixels = pixels(dataset.train_images, train_index)
    transform: Normalise | Zca
    if config.zca == "relative":
        std = torch.tensor(KERNEL_STD[dataset.name]) if dataset.name in KERNEL_STD else Normalise.fit(train_pixels).std
        transform = Zca.fit_relative(train_pixels, std)
    elif config.zca:
        transform = Zca.fit(train_pixels)
    elif dataset.name in PUBLISHED:
        transform = Normalise.published(dataset.name)
    else:
        transform = Normalise.fit(train_pixels)
    return PreparedData(
        name=dataset.name,
        classes=dataset.classes,
        fingerprint=digest({"dataset": dataset.fingerprint, "name": dataset.name, "prepare": asdict(config)}),
        train_images=transform.apply(train_pixels),
        val_images=transform.apply(pixels(dataset.train_images, val_index)),
        test_images=transform.apply(pixels(dataset.test_images, test_index)),
        test_labels=dataset.test_labels[torch.from_numpy(test_index)],
        train_index=torch.from_numpy(train_index),
        val_index=torch.from_numpy(val_index),
        observed_labels=dataset.train_labels,
        clean_labels=dataset.clean_labels,
        licence=dataset.licence,
        config=config,
        transform=transform,
    )


def part_of_test(dataset: Dataset, test_subset: int | None, split_seed: int) -> tuple[Tensor, Tensor]:
    """Return the test images that :func:`prepare` takes, as pixels in [0, 1] [T, C, H, W], and their labels int64 [T].

    Raises:
        DataError: The subset is larger than the test set.
    """
    index = torch.from_numpy(_subset("test_subset", len(dataset.test_images), test_subset, SeedTree.root(split_seed)))
    return dataset.test_images[index].float() / dataset.max_value, dataset.test_labels[index]


def _subset(key: str, available: int, wanted: int | None, seeds: SeedTree) -> npt.NDArray[np.int64]:
    """Return the rows to keep, ascending."""
    if wanted is None:
        return np.arange(available)
    if wanted > available:
        raise DataError(f"data.{key} must be at most the {available} images that there are, but got {wanted}")
    return np.sort(seeds.child(key).numpy().permutation(available)[:wanted])


def _require_every_class(dataset: Dataset, index: npt.NDArray[np.int64]) -> None:
    """Raise when a class has no row in the part that is fitted on."""
    counts = np.bincount(dataset.train_labels.numpy()[index], minlength=dataset.num_classes)
    if (counts == 0).any():
        missing = int(np.argmin(counts))
        raise DataError(
            f"class {missing} ({dataset.classes[missing]!r}) has no image among the {len(index)} to fit on; "
            "raise data.subset, lower data.val_fraction or change data.split_seed"
        )


def _kind(transform: Normalise | Zca) -> str:
    """Return the name of a transform in files."""
    return "zca" if isinstance(transform, Zca) else "normalise"


def _view(array: npt.NDArray[Any]) -> Tensor:
    """Return a tensor that shares the array's memory, be it writable or not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
