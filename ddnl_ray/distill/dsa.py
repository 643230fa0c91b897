"""DC and DSA: matching of gradients along short training runs.

Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021 (arXiv 2006.05929); Zhao and Bilen,
"Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021 (arXiv 2102.08259); authors' code:
VICO-UoE/DatasetCondensation. A random network lives for ``outer`` updates of the images. Each update
brings the gradients that the network gets from the synthetic images of a class nearer to those that it gets from real
ones (:mod:`ddnl_ray.distill.gradients`); then the network learns ``inner`` epochs from the synthetic images, and the
next update sees it further on. DSA augments, in both places; DC does not (``augment`` of the problem is None).

Differs from the original:
    - networks, batches and augmentations are drawn from the seed tree (there: a generator re-seeded from the clock);
    - one step of the method is one update of the images; a last network may have a shorter life;
    - a network with batch normalisation is refused (there: its statistics are frozen for an update);
    - the lengths of the loops, which depend on the images per class, are settings; the recipes have the published ones;
    - an update that is not finite is refused, and leaves the network as it was, too; where the network's life would
      have ended, it has another.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.classwise import (
    INITS,
    View,
    class_labels,
    first_images,
    observed_pools,
    require_image_optimizer,
)
from ddnl_ray.distill.gradients import COSINE, matching_gradient
from ddnl_ray.distill.networks import Sgd, slope
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class GradientMatchingConfig:
    """Hyper-parameters of DC and DSA."""

    iterations: int = 10_000
    """Updates of the images in all; the authors use 1000 networks, so ``1000 * outer``."""
    outer: int = 10
    """Updates of the images under one network (10: for 10 images per class)."""
    inner: int = 50
    """Epochs that the network learns from the synthetic images between two of them."""
    lr_img: float = 0.1
    """Learning rate of the images."""
    momentum: float = 0.5
    """Their momentum."""
    batch_real: int = 256
    """Real images per class and update."""
    lr_net: float = 0.01
    """Learning rate of the network; plain SGD."""
    batch_train: int = 256
    """Synthetic images per step of the network."""
    init: str = "real"
    """First images: ``real`` (DSA: random ones of the observed class) or ``noise`` (DC: standard normal)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("init", self.init, INITS)
        require_image_optimizer(self.iterations, self.batch_real, self.lr_img, self.momentum)
        for name, least in (("outer", 1), ("inner", 0), ("batch_train", 1)):
            if getattr(self, name) < least:
                raise RequestError(f"{name} must be at least {least}, but got {getattr(self, name)}")
        if not self.lr_net > 0:
            raise RequestError(f"lr_net must be above 0, but got {self.lr_net}")


@dataclass(frozen=True)
class GradientMatchingState(State):
    """Images in training, and the network that they train.

    Attributes:
        images: [classes * ipc, C, H, W], class by class.
        velocity: Of the images, same shape.
        theta: Weights of the network [P].
    """

    images: Tensor
    velocity: Tensor
    theta: Tensor


@dataclass(frozen=True)
class GradientMatching(Method[GradientMatchingState]):
    """Gradient matching: DC, or DSA where the problem has an augmentation."""

    config: GradientMatchingConfig
    name: ClassVar[str] = "dsa"
    state: ClassVar[type[GradientMatchingState]] = GradientMatchingState
    needs_network: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> GradientMatchingState:
        """Return the first state (see :meth:`Method.init`)."""
        images = first_images(problem, seed.child("init"), View(), self.config.init)
        return GradientMatchingState(0, images, torch.zeros_like(images), _fresh(problem, images, seed, 0))

    def step(
        self, state: GradientMatchingState, problem: Problem, seed: SeedTree
    ) -> tuple[GradientMatchingState, StepInfo]:
        """Move the images once, then train the network, or take a new one (see :meth:`Method.step`)."""
        config, own, following = self.config, seed.child("step", state.iteration), state.iteration + 1
        pools, batch = observed_pools(problem), config.batch_real
        loss, gradient = matching_gradient(
            state.images, problem, state.theta, View(), COSINE, problem.augment, pools, batch, own.child("match")
        )
        velocity = config.momentum * state.velocity + gradient
        images = state.images - config.lr_img * velocity
        if following % config.outer:
            theta = self._learnt(state.theta, images, problem, own.child("learn"))
        else:
            theta = _fresh(problem, images, seed, following // config.outer)
        if not bool(loss.isfinite() & images.isfinite().all() & theta.isfinite().all()):
            return dataclasses.replace(state, iteration=following), StepInfo(float("nan"), accepted=False)
        return GradientMatchingState(following, images, velocity, theta), StepInfo(float(loss), accepted=True)

    def export(self, state: GradientMatchingState, problem: Problem) -> Distilled:
        """Return the images with hard labels."""
        return Distilled(state.images.clone(), class_labels(problem))

    def _learnt(self, theta: Tensor, images: Tensor, problem: Problem, seed: SeedTree) -> Tensor:
        """Return the weights after the inner epochs on the synthetic images, each image augmented by itself."""
        assert problem.network is not None
        generator, labels = seed.torch(), class_labels(problem)
        sgd, theta = Sgd(self.config.lr_net), theta.clone()
        velocity = torch.zeros_like(theta)
        for _ in range(self.config.inner):
            order = torch.randperm(len(images), generator=generator).to(images.device)
            for rows in order.split(self.config.batch_train):
                batch = images[rows]
                if problem.augment is not None:
                    batch = problem.augment(batch, generator)
                found = slope(problem.network, theta, batch, labels[rows], problem.smaller)
                theta, velocity = sgd.step(theta, velocity, found.gradient)
        return theta


def _fresh(problem: Problem, images: Tensor, seed: SeedTree, number: int) -> Tensor:
    """Return the initial weights of a network, in the type of the images."""
    assert problem.network is not None
    return problem.network.fresh(seed.child("network", number).torch()).to(images.dtype)
