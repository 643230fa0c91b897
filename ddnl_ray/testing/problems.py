"""Problems on which a method takes a step in milliseconds, and what can be done to them."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill.base import Problem
from ddnl_ray.experts.buffer import ArrayExperts, Experts
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

CLASSES, PER_CLASS, SHAPE = 3, 8, (1, 8, 8)
NUM_EXPERTS, EPOCHS, STEPS_PER_EPOCH, LR = 3, 12, 3, 0.1


def toy_problem(
    ipc: int | None = 2, experts: bool = False, network: bool = False, device: torch.device | str = "cpu"
) -> Problem:
    """Return 24 images [1, 8, 8] of 3 classes, each a pattern of its class under noise, with 2 wrong labels.

    The observed classes have 7, 8 and 9 images. The values are the same at every call and on every device.

    Args:
        ipc: Synthetic images per class.
        experts: Whether the problem has a network and trajectories to match (:func:`toy_experts`).
        network: Whether it has a network.
        device: Where the tensors are.
    """
    images, labels = _images()
    flat = _network() if experts or network else None
    if flat is not None:
        flat.module.to(device)
    return Problem(
        images=images.to(device, copy=True),
        labels=labels.to(device, copy=True),
        num_classes=CLASSES,
        ipc=ipc,
        network=flat,
        augment=Dsa(),
        experts=toy_experts() if experts else None,
    )


def toy_experts() -> ArrayExperts:
    """Return the trajectories of 3 experts, trained for 12 epochs on the images of :func:`toy_problem`."""
    arrays = [trajectory.numpy().copy() for trajectory in _trajectories()]
    return ArrayExperts(arrays, tuple(range(EPOCHS + 1)), EPOCHS)


def _images() -> tuple[Tensor, Tensor]:
    generator = SeedTree.root(0).child("toy images").torch()
    clean = torch.arange(CLASSES * PER_CLASS) % CLASSES
    patterns = torch.randn(CLASSES, *SHAPE, generator=generator)
    images = patterns[clean] + 0.5 * torch.randn(len(clean), *SHAPE, generator=generator)
    observed = clean.clone()
    observed[0], observed[4] = 1, 2
    return images, observed


def _network() -> Flat:
    return Flat(build(NetworkSpec("convnet1", 4), SHAPE, CLASSES, SeedTree.root(0).child("toy network").torch()))


@functools.cache
def _trajectories() -> tuple[Tensor, ...]:
    """Return the weights [epochs + 1, P] of each expert: plain gradient descent on all images, on the CPU."""
    images, labels = _images()
    network = _network()
    trajectories = []
    for index in range(NUM_EXPERTS):
        generator = SeedTree.root(0).child("toy expert", index).torch()
        theta = network.flatten() + 0.1 * torch.randn(network.num_params, generator=generator)
        snapshots = [theta]
        for _ in range(EPOCHS):
            for _ in range(STEPS_PER_EPOCH):
                leaf = theta.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf, images), labels), leaf)
                theta = theta - LR * gradient
            snapshots.append(theta)
        trajectories.append(torch.stack(snapshots))
    return tuple(trajectories)


@dataclass(frozen=True)
class ScaledExperts:
    """Experts whose weights are multiplied by a number (implements :class:`Experts`)."""

    experts: Experts
    factor: float

    @property
    def final_epoch(self) -> int:
        """The last epoch of training."""
        return self.experts.final_epoch

    def __len__(self) -> int:
        """Return the number of experts."""
        return len(self.experts)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Return the scaled weights [P] of an expert after an epoch."""
        return self.experts.snapshot(expert, epoch) * self.factor


@dataclass(frozen=True)
class WatchedExperts:
    """Experts that note which epochs were read (implements :class:`Experts`)."""

    experts: Experts
    epochs: set[int] = field(default_factory=set)

    @property
    def final_epoch(self) -> int:
        """The last epoch of training."""
        return self.experts.final_epoch

    def __len__(self) -> int:
        """Return the number of experts."""
        return len(self.experts)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Return the weights [P] of an expert after an epoch."""
        self.epochs.add(epoch)
        return self.experts.snapshot(expert, epoch)


def scaled(problem: Problem, factor: float) -> Problem:
    """Return the problem with its images and its experts' weights multiplied by ``factor``."""
    experts = None if problem.experts is None else ScaledExperts(problem.experts, factor)
    return dataclasses.replace(problem, images=problem.images * factor, experts=experts)
