"""How experts are trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.precision import PRECISIONS
from ddnl_ray.models import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe:
    """Training of one expert; the defaults are those of MTT (Cazenavette et al. 2022)."""

    network: NetworkSpec
    """The backbone."""
    epochs: int = 50
    """The last epoch; one snapshot is kept before the first and after each that a method can read."""
    batch_size: int = 256
    """Images per step; the last, short batch of an epoch is used."""
    lr: float = 0.01
    """Learning rate, constant."""
    momentum: float = 0.0
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """L2 penalty, added to the gradient."""
    augment: str | None = "color_crop_cutout_flip_scale_rotate"
    """DSA strategy, or None."""
    optimizer: str = "sgd"
    """``sgd``, or ``gsam`` (FTD, DATM: flat trajectories)."""
    rho: float = 0.01
    """GSAM: radius of the perturbation."""
    alpha: float = 0.3
    """GSAM: weight of the component that lowers the loss without raising the sharpness."""
    precision: str = "float32"
    """What the network computes in: ``float32``, ``tf32`` or ``bfloat16`` (:mod:`ddnl_ray.experts.precision`)."""

    @property
    def identity(self) -> dict[str, Any]:
        """The values that names are made of; float32 is left out, so that names from before there was a choice hold."""
        values = dataclasses.asdict(self)
        if self.precision == "float32":
            del values["precision"]
        return values

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("expert optimizer", self.optimizer, ["sgd", "gsam"])
        require_known("expert precision", self.precision, PRECISIONS)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise RequestError(f"experts: {name} must be at least 1, but got {getattr(self, name)}")
        if not self.lr > 0:
            raise RequestError(f"experts: lr must be above 0, but got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise RequestError(f"experts: momentum must lie in [0, 1), but got {self.momentum}")
        for name in ("weight_decay", "rho", "alpha"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"experts: {name} must be 0 or more, but got {getattr(self, name)}")
