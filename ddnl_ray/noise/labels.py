"""The labels that a distiller is given, and what is known about how wrong they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddnl_ray.files import sha256
from ddnl_ray.noise.config import NoiseConfig


@dataclass(frozen=True, eq=False)
class NoisyLabels:
    """Given labels with their provenance. Methods read ``labels`` alone.

    Attributes:
        labels: The given labels, int64, shape ``(N,)``.
        clean: The true labels, same shape; ``None`` where nobody knows them.
        config: The noise model.
        seed: Seed of the noise draw.
        num_classes: C.
        transition: The nominal transition matrix, float64, ``(C, C)``, rows true class; ``None`` where the
            noise was not drawn from one (kinds none and natural).
    """

    labels: Tensor
    clean: Tensor | None
    config: NoiseConfig
    seed: int
    num_classes: int
    transition: NDArray[np.float64] | None = None

    @property
    def rate_realised(self) -> float | None:
        """The share of labels that differ from the truth; ``None`` where the truth is unknown."""
        if self.clean is None:
            return None
        return float((self.labels != self.clean).double().mean())

    @property
    def transition_realised(self) -> NDArray[np.float64] | None:
        """Row-normalised counts, ``(C, C)``, rows true class; ``None`` where the truth is unknown.

        The row of a class without samples is NaN.
        """
        if self.clean is None:
            return None
        cells = self.clean.numpy() * self.num_classes + self.labels.numpy()
        counts = np.bincount(cells, minlength=self.num_classes**2).reshape(self.num_classes, -1)
        totals = counts.sum(axis=1, keepdims=True)
        realised = np.full(counts.shape, np.nan)
        np.divide(counts, totals, out=realised, where=totals > 0)
        return realised

    @property
    def sha256(self) -> str:
        """The SHA-256 of the labels as little-endian int64, in hexadecimal digits."""
        return sha256(self.labels.numpy().astype("<i8").tobytes())

    def select(self, index: Tensor) -> NoisyLabels:
        """Return the labels of the rows ``index`` (int64 positions or a boolean mask), in that order."""
        clean = None if self.clean is None else self.clean[index]
        return replace(self, labels=self.labels[index], clean=clean)
