"""Per-channel normalisation of pixels in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import DataError

# CIFAR-100 uses CIFAR-10's statistics, as the published trajectory-matching codes do.
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
PUBLISHED = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# The deviations by which the kernel methods divide before they whiten (RCIG's code).
KERNEL_STD = {
    "cifar10": (0.2470, 0.2435, 0.2616),
    "cifar100": (0.2673, 0.2564, 0.2762),
    "tinyimagenet": (0.2763, 0.2687, 0.2813),
}


@dataclass(frozen=True, eq=False)
class Normalise:
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Attributes:
        mean: float32 [C].
        std: float32 [C].
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def published(cls, name: str) -> Normalise:
        """Return the constants that the literature uses for a data set of :data:`PUBLISHED`."""
        mean, std = PUBLISHED[name]
        return cls(torch.tensor(mean), torch.tensor(std))

    @classmethod
    def fit(cls, images: Tensor) -> Normalise:
        """Measure the statistics of images, in float64.

        Args:
            images: [N, C, H, W] in [0, 1].

        Raises:
            DataError: A channel has the same value everywhere.
        """
        per_channel = images.transpose(0, 1).flatten(1)
        stats = [torch.std_mean(channel.double(), correction=0) for channel in per_channel]
        std, mean = (torch.stack(values) for values in zip(*stats, strict=True))
        if (std < 1e-6).any():
            raise DataError(f"channel {int(std.argmin())} has the same value in every pixel of every image")
        return cls(mean.float(), std.float())

    def apply(self, images: Tensor) -> Tensor:
        """Return [N, C, H, W] pixels in [0, 1] as normalised images of the same type."""
        mean, std = self._broadcast(images)
        return (images - mean) / std

    def invert(self, images: Tensor) -> Tensor:
        """Return normalised images [N, C, H, W] as pixels; nothing is clamped."""
        mean, std = self._broadcast(images)
        return images * std + mean

    def private(self) -> Normalise:
        """Return a copy that belongs to no other process and takes part in gradients."""
        return Normalise(self.mean.clone(), self.std.clone())

    def to(self, device: torch.device | str) -> Normalise:
        """Return the same transform on ``device``."""
        return Normalise(self.mean.to(device), self.std.to(device))

    def _broadcast(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, [C, 1, 1], in the type of the images."""
        return self.mean.to(images.dtype)[:, None, None], self.std.to(images.dtype)[:, None, None]
