"""The settings of RCIG (:mod:`ddnl_ray.distill.rcig`)."""

from __future__ import annotations

from dataclasses import dataclass

from ddnl_ray.distill.classwise import INITS
from ddnl_ray.errors import RequestError, require_known

SOLVERS = ("adam", "cg")
HESSIANS = ("exact", "released")


@dataclass(frozen=True, kw_only=True)
class RcigConfig:
    """Hyper-parameters of RCIG."""

    iterations: int = 10_000
    """Updates of images, labels and temperature."""
    l2_rate: float = 5e-4
    """Ridge per synthetic image (before mirrored copies)."""
    softplus: float = 60.0
    """Sharpness of the softplus that stands for the ReLU while distilling, in networks ``doubling``; 0: ReLU."""
    flip: bool = True
    """Whether every image also counts mirrored, in distillation and evaluation."""
    batch_real: int = 1024
    """Real images per iteration."""
    inner_steps: int = 20
    """Steps of Adam on the inner problem."""
    hessian_steps: int = 20
    """Steps of Adam on the implicit system."""
    solver: str = "adam"
    """``adam`` (the paper's few steps) or ``cg`` (conjugate gradients to 1e-4; without learning rates)."""
    hessian: str = "exact"
    """``exact``: over the body's weights; ``released``: over those of the linear layer, too, as the authors' code."""
    lr_inner: float | None = None
    """First learning rate of the inner problem; null: tuned before the first iteration. It is adapted later."""
    lr_hessian: float | None = None
    """Learning rate of the implicit system; null: tuned before the first iteration."""
    adapt_every: int = 50
    """Iterations after which the inner learning rate is adapted; 0: never."""
    clip: bool = True
    """Whether the implicit part of a gradient is cut to the norm of the direct part."""
    margin: bool = True
    """Whether a label's largest entry is kept 1 / (2 classes) above its second."""
    lr_img: float = 3e-3
    """Learning rate of AdaBelief on images and labels."""
    lr_temperature: float = 3e-2
    """Learning rate of AdaBelief on the logarithm of the temperature's inverse."""
    ema_decay: float = 0.99
    """Decay of the average of images and labels that is handed over."""
    pool_size: int = 30
    """Networks in the pool."""
    max_age: int = 100
    """Training steps after which a network is replaced."""
    pool_steps: int = 15
    """Most training steps that the iteration's network takes on the synthetic images; 1 at least."""
    lr_net: float = 5e-5
    """Learning rate of Adam in that training."""
    batch_pool: int | None = None
    """Synthetic images per such step; null: all."""
    init: str = "real"
    """First images: ``real`` (random ones of the observed class) or ``noise`` (normal, deviation 0.3)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, known in (("solver", SOLVERS), ("hessian", HESSIANS), ("init", INITS)):
            require_known(name, getattr(self, name), known)
        counts = ["iterations", "batch_real", "inner_steps", "hessian_steps", "pool_size", "max_age", "pool_steps"]
        for name in counts + (["batch_pool"] if self.batch_pool is not None else []):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, but got {getattr(self, name)}")
        rates = [name for name in ("lr_inner", "lr_hessian") if getattr(self, name) is not None]
        for name in ["l2_rate", "lr_img", "lr_net", *rates]:
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be above 0, but got {getattr(self, name)}")
        for name in ("softplus", "lr_temperature", "adapt_every"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise RequestError(f"ema_decay must lie in [0, 1), but got {self.ema_decay}")
