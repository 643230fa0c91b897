"""How experts are trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ddnl_ray.data import augmentation, mixing
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.precision import PRECISIONS
from ddnl_ray.experts.schedule import thirds
from ddnl_ray.models import NetworkSpec

_SINCE = {"precision": "float32", "cutmix": 0.0, "schedule": "constant"}


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
    """Learning rate, at first."""
    momentum: float = 0.0
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """L2 penalty, added to the gradient."""
    augment: str | None = "color_crop_cutout_flip_scale_rotate"
    """DSA strategy, ``diffaug:`` and a strategy of :class:`ddnl_ray.data.DiffAug`, or None."""
    optimizer: str = "sgd"
    """``sgd``, or ``gsam`` (FTD, DATM: flat trajectories)."""
    rho: float = 0.01
    """GSAM: radius of the perturbation."""
    alpha: float = 0.3
    """GSAM: weight of the component that lowers the loss without raising the sharpness."""
    precision: str = "float32"
    """What the network computes in: ``float32``, ``tf32`` or ``bfloat16`` (:mod:`ddnl_ray.experts.precision`)."""
    cutmix: float = 0.0
    """Probability with which a batch is mixed (:mod:`ddnl_ray.data.cutmix`)."""
    schedule: str = "constant"
    """The learning rate: ``constant``, or ``thirds``: times 0.2 after two thirds and after five sixths of
    ``schedule_epochs`` (:func:`ddnl_ray.experts.schedule.thirds`)."""
    schedule_epochs: int | None = None
    """Epochs of the schedule ``thirds``, however many are trained; ``constant`` does not read it."""

    @property
    def identity(self) -> dict[str, Any]:
        """The values that names are made of; later fields are left out at their defaults, so that older names hold."""
        unread = {"schedule_epochs"} if self.schedule == "constant" else set()
        same = {name for name, default in _SINCE.items() if getattr(self, name) == default}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in same | unread}

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate after ``epoch`` epochs: of an endless training, whatever ``epochs`` is."""
        if self.schedule == "constant":
            return self.lr
        assert self.schedule_epochs is not None
        return self.lr * thirds(epoch, self.schedule_epochs)

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("expert optimizer", self.optimizer, ["sgd", "gsam"])
        require_known("expert precision", self.precision, PRECISIONS)
        require_known("expert schedule", self.schedule, ["constant", "thirds"])
        augmentation(self.augment)
        mixing(self.cutmix)
        if self.schedule == "thirds" and self.schedule_epochs is None:
            raise RequestError("experts: the schedule 'thirds' needs its length; set schedule_epochs (DANCE: 60)")
        if self.schedule_epochs is not None and self.schedule_epochs < 1:
            raise RequestError(f"experts: schedule_epochs must be at least 1, but got {self.schedule_epochs}")
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
