"""A labelled image data set as it was read: whole, in file order, untransformed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ddnl_ray.errors import DataError
from ddnl_ray.files import canonical


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with their labels. It checks itself when it is made.

    Attributes:
        name: For example ``cifar10`` or ``folder``.
        classes: Class names; a label is an index into them.
        train_images: uint8 [N, C, H, H], values 0 to ``max_value``.
        train_labels: int64 [N], as observed: possibly wrong.
        test_images: uint8 [T, C, H, H].
        test_labels: int64 [T].
        max_value: The pixel value that means 1.0.
        clean_labels: int64 [N], the truth for the training images where it is known, else None.
        licence: What the owner of the images allows.
        source: Where the images were read, for a person.
        train_files: Where each training image was read [N], below ``source``; None where a source has no files.
        held_files: Where each test image was read [T], where the source has no test set and these were held out of its
            images; None: it has one.

    Raises:
        DataError: A shape, type or label does not fit; the message names the first offender.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    max_value: int
    clean_labels: Tensor | None
    licence: str
    source: str
    train_files: tuple[str, ...] | None = None
    held_files: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check every attribute."""
        if len(self.classes) < 2:
            raise DataError(f"{self.source}: at least 2 classes are needed, but got {list(self.classes)}")
        if not 1 <= self.max_value <= 255:
            raise DataError(f"{self.source}: max_value must be in 1..255, but got {self.max_value}")
        self._check_images("training", self.train_images)
        self._check_images("test", self.test_images)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.source}: training and test images must have one shape, but got "
                f"{tuple(self.train_images.shape[1:])} and {tuple(self.test_images.shape[1:])}"
            )
        self._check_labels("training", self.train_labels, len(self.train_images))
        self._check_labels("test", self.test_labels, len(self.test_images))
        if self.clean_labels is not None:
            self._check_labels("clean", self.clean_labels, len(self.train_images))
        counts = torch.bincount(self.train_labels, minlength=self.num_classes)
        if (counts == 0).any():
            missing = int((counts == 0).nonzero()[0])
            raise DataError(
                f"{self.source}: every class needs a training image, but class {missing} "
                f"({self.classes[missing]!r}) has none; add images or remove the class"
            )

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def with_held_out(self) -> Dataset:
        """Return the set with the images that were held out as its test set behind the training images.

        For an audit of labels, which needs no test set. The same set where the source has a test set of its own, or
        where the truth is known of the training images alone.
        """
        if self.held_files is None or self.clean_labels is not None:
            return self
        return replace(
            self,
            train_images=torch.cat([self.train_images, self.test_images]),
            train_labels=torch.cat([self.train_labels, self.test_labels]),
            train_files=None if self.train_files is None else self.train_files + self.held_files,
            held_files=None,
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the pixels, the labels and the class names."""
        sha = hashlib.sha256(canonical([list(self.classes), self.max_value]).encode())
        parts = (self.train_images, self.train_labels, self.test_images, self.test_labels, self.clean_labels)
        for tensor in parts:
            sha.update(canonical(None if tensor is None else list(tensor.shape)).encode())
            if tensor is not None:
                sha.update(tensor.contiguous().numpy().data)
        return sha.hexdigest()[:16]

    def _check_images(self, part: str, images: Tensor) -> None:
        """Check one part's images."""
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise DataError(
                f"{self.source}: {part} images must be uint8 [N, C, H, W], but got {images.dtype} {list(images.shape)}"
            )
        if len(images) == 0:
            raise DataError(f"{self.source}: there are no {part} images")
        channels, height, width = images.shape[1:]
        if channels not in {1, 3}:
            raise DataError(f"{self.source}: {part} images must have 1 or 3 channels, but have {channels}")
        if height != width:
            raise DataError(
                f"{self.source}: images must be square, but the {part} images are {height}x{width} pixels; "
                f"resize them with --set data.size={max(height, width)}"
            )
        brightest = int(images.max())
        if brightest > self.max_value:
            raise DataError(f"{self.source}: {part} pixels must be at most {self.max_value}, but one is {brightest}")

    def _check_labels(self, part: str, labels: Tensor, num_images: int) -> None:
        """Check one part's labels."""
        if labels.dtype != torch.int64 or labels.shape != (num_images,):
            raise DataError(
                f"{self.source}: {part} labels must be int64 [{num_images}], one per image, but got "
                f"{labels.dtype} {list(labels.shape)}"
            )
        wrong = ((labels < 0) | (labels >= self.num_classes)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{self.source}: {part} labels must be in 0..{self.num_classes - 1}, but row {row} has "
                f"{int(labels[row])}"
            )
