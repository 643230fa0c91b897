"""DM: Dataset Condensation with Distribution Matching (Zhao and Bilen, WACV 2023, arXiv 2110.04181).

Authors' code: VICO-UoE/DatasetCondensation. Every iteration draws a new random network and moves the synthetic images
so that the mean embedding of each class comes nearer to that of its real images:
``sum_c || mean phi(A(real_c)) - mean phi(A(syn_c)) ||^2``, with the same augmentation A on both.

Differs from the original:
    - networks and augmentations are drawn from the seed tree (there: a generator re-seeded from the clock);
    - a network with batch normalisation is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.classwise import (
    INITS,
    Terms,
    View,
    class_gradient,
    class_labels,
    first_images,
    observed_pools,
    require_image_optimizer,
)
from ddnl_ray.errors import require_known
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class DmConfig:
    """Hyper-parameters of DM."""

    iterations: int = 20_000
    """Updates of the images, each under a new network."""
    lr_img: float = 1.0
    """Learning rate of the images."""
    momentum: float = 0.5
    """Their momentum."""
    batch_real: int = 256
    """Real images per class and update."""
    init: str = "real"
    """First images: ``real`` (random ones of the observed class) or ``noise`` (standard normal)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("init", self.init, INITS)
        require_image_optimizer(self.iterations, self.batch_real, self.lr_img, self.momentum)


@dataclass(frozen=True)
class ImagesState(State):
    """Images in training.

    Attributes:
        images: [classes * ipc, C, H, W], class by class.
        velocity: Of the images, same shape.
    """

    images: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Dm(Method[ImagesState]):
    """Distribution matching."""

    config: DmConfig
    name: ClassVar[str] = "dm"
    state: ClassVar[type[ImagesState]] = ImagesState
    needs_network: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> ImagesState:
        """Return the first state (see :meth:`Method.init`)."""
        images = first_images(problem, seed.child("init"), View(), self.config.init)
        return ImagesState(0, images, torch.zeros_like(images))

    def step(self, state: ImagesState, problem: Problem, seed: SeedTree) -> tuple[ImagesState, StepInfo]:
        """Move the images under one random network (see :meth:`Method.step`)."""
        assert problem.network is not None
        config, own = self.config, seed.child("step", state.iteration)
        theta = problem.network.fresh(own.child("network").torch()).to(state.images.dtype)
        pools = observed_pools(problem)
        loss, gradient = class_gradient(
            state.images, problem, theta, View(), Terms(), pools, config.batch_real, own.child("match")
        )
        velocity = config.momentum * state.velocity + gradient
        return moved(state, state.images - config.lr_img * velocity, velocity, loss)

    def export(self, state: ImagesState, problem: Problem) -> Distilled:
        """Return the images with hard labels."""
        return Distilled(state.images.clone(), class_labels(problem))


def moved(state: ImagesState, images: Tensor, velocity: Tensor, loss: Tensor) -> tuple[ImagesState, StepInfo]:
    """Return the next state; an update that is not finite is refused."""
    if not bool(loss.isfinite() & images.isfinite().all()):
        return ImagesState(state.iteration + 1, state.images, state.velocity), StepInfo(float("nan"), accepted=False)
    return ImagesState(state.iteration + 1, images, velocity), StepInfo(float(loss), accepted=True)
