"""Hyper-parameters of RDC (Kim and Song, ICCV 2025; authors' code: DISL-Lab/RDC-ICCV2025).

The defaults are those for CIFAR-10 in the reading of the text; where the authors' code is another method (see
:mod:`ddnl_ray.robust.contrast` and :mod:`ddnl_ray.robust.semi`) it is a choice of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ddnl_ray.errors import RequestError, require_known

CONTRASTS = ("paper", "released", "supcon", "supcon_plain", "none")
LEARNING = ("dividemix1", "released", "none")
DECAYS = ("half", "released")
POOLS = ("noisy", "golden")
DECAY = 0.1
RELEASED_DECAY_EPOCHS = 30


@dataclass(frozen=True, kw_only=True)
class RdcConfig:
    """Hyper-parameters of RDC; "released" stands for the authors' code."""

    warm_up: int = 5
    """Epochs on all samples with their observed labels (t0); 20 for CIFAR-100."""
    steps_per_epoch: int = 196
    """Steps that count as an epoch: those of batches of 256 on CIFAR; released: fewer after the warm-up."""
    restarts: int = 5
    """Starts of the mixture on accumulated losses; released: 1."""
    cycle: int = 5
    """Acc-DD: outer iterations, which are its epochs, after which it starts again from another network, with nothing
    golden."""
    confidence: float = 0.95
    """Probability that a class must exceed for a sample to be labelled anew (c)."""
    minimum_golden: int = 8
    """Golden samples below which a class is matched with its observed samples."""
    cond_real: str = "noisy"
    """Real images that are matched after the warm-up: those with the observed label, ``noisy`` (released for IDM), or
    those with the golden one, ``golden`` (released for Acc-DD)."""
    gmc: str = "paper"
    """Contrast on the synthetic images: ``paper`` (golden MixUp, all classes together), ``released`` (class by class,
    mostly without negatives), ``supcon`` (the synthetic images among themselves), ``supcon_plain`` (that without
    augmentation) or ``none``: rows 4, 3, 2 and 1 of the paper's Table 5."""
    gmc_weight: float = 1.0
    """Weight of the contrast in the loss of the images."""
    temperature: float = 0.07
    """Divides the cosines of the contrast (tau)."""
    mixup: float = 0.75
    """Share of the synthetic image in a mixed one (lambda)."""
    max_images: int = 1024
    """Most synthetic images in a contrast, equally many of every class; not for ``released``."""
    max_anchors: int = 4096
    """Most augmented synthetic images in a contrast; not for ``released``."""
    views: int = 4
    """Most augmentations of a synthetic image in a contrast."""
    ssl: str = "dividemix1"
    """Training of the network after the warm-up: ``dividemix1`` (DivideMix with one network), ``released``, or
    ``none`` (as in the warm-up)."""
    labelled_batch: int = 128
    """Golden images per step; released: 256."""
    unlabelled_batch: int = 128
    """Other images per step; released: 256."""
    unlabelled_weight: float = 25.0
    """Weight of the squared error on other images (lambda_u), reached 16 epochs after the warm-up; it depends on the
    noise. Without effect in ``released``."""
    alpha: float = 4.0
    """Parameter of the Beta distribution of MixUp in the training of the network; released: 0.75."""
    sharpen_temperature: float = 0.5
    """Temperature of the targets (T); below 1 they become harder."""
    flip: bool = True
    """Whether the augmentation of ``dividemix1`` mirrors images; not for digits."""
    lr_decay: str = "half"
    """When the network's learning rate falls to a tenth: at ``half`` of the schedule, or every 30 epochs
    (``released``)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("gmc", self.gmc, CONTRASTS)
        require_known("ssl", self.ssl, LEARNING)
        require_known("lr_decay", self.lr_decay, DECAYS)
        require_known("cond_real", self.cond_real, POOLS)
        least = {"warm_up": 0, "minimum_golden": 0, "steps_per_epoch": 1, "cycle": 1, "restarts": 1, "views": 1}
        least |= {"max_images": 1, "max_anchors": 1, "labelled_batch": 1, "unlabelled_batch": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise RequestError(f"{name} must be at least {lowest}, but got {getattr(self, name)}")
        for name in ("confidence", "mixup"):
            if not 0 <= getattr(self, name) <= 1:
                raise RequestError(f"{name} must lie in [0, 1], but got {getattr(self, name)}")
        for name in ("temperature", "alpha", "sharpen_temperature"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be above 0, but got {getattr(self, name)}")
        for name in ("gmc_weight", "unlabelled_weight"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if self.ssl == "released" and self.labelled_batch != self.unlabelled_batch:
            raise RequestError(
                f"ssl released blends images in pairs, but labelled_batch is {self.labelled_batch} and "
                f"unlabelled_batch {self.unlabelled_batch}; make them equal"
            )

    @classmethod
    def of(cls, value: RdcConfig | Mapping[str, Any]) -> RdcConfig:
        """Return the settings, which may come as the mapping that JSON makes of them."""
        return value if isinstance(value, cls) else cls(**cast("Mapping[str, Any]", value))

    @property
    def contrasts(self) -> bool:
        """Whether there is a contrast on the images."""
        return self.gmc != "none" and self.gmc_weight > 0

    def lr_factor(self, epoch: int, num_epochs: int) -> float:
        """Return what the network's learning rate is multiplied by in an epoch (counted from 0)."""
        if self.lr_decay == "released":
            return DECAY ** (epoch // RELEASED_DECAY_EPOCHS)
        return DECAY if 2 * epoch >= num_epochs else 1.0
