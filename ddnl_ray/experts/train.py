"""Training of one expert trajectory on the device, without a data loader.

Differs from the original (MTT's buffer script):
    - snapshots are copies (there they alias the live weights when training runs on a CPU);
    - every random number comes from the seed tree;
    - the learning rate is constant (there an optional flag divides it by 10 half-way; no published setting uses it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.errors import RequestError
from ddnl_ray.experts.gsam import gsam_direction, loss_and_gradient
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.models import Flat, build
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class TrainingState:
    """All from which the training of an expert goes on, bit for bit.

    Attributes:
        epoch: Epochs that are done.
        weights: Weights after them [P], float32.
        velocity: Momentum buffer after them [P], float32; None where the recipe has no momentum.
    """

    epoch: int
    weights: Tensor
    velocity: Tensor | None


@dataclass(frozen=True)
class Trajectory:
    """One expert, or a later part of one.

    Attributes:
        snapshots: Weights [S, P], float32, on the CPU: before training (epoch 0) and after every epoch, from
            ``first_epoch`` on.
        losses: Mean training loss of every epoch that was trained (on augmented batches, against the observed labels).
        first_epoch: Epoch of the first snapshot; 0 unless training went on from a later state.
        velocity: Momentum buffer at the end [P], float32, on the CPU; None where the recipe has no momentum.
    """

    snapshots: Tensor
    losses: list[float]
    first_epoch: int = 0
    velocity: Tensor | None = None

    @property
    def end(self) -> TrainingState:
        """The state from which training would go on."""
        return TrainingState(self.first_epoch + len(self.snapshots) - 1, self.snapshots[-1], self.velocity)


def train_expert(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    seed: SeedTree,
    start: TrainingState | None = None,
) -> Trajectory:
    """Train one expert up to epoch ``recipe.epochs`` and keep its trajectory.

    A trajectory is a prefix of an endless one: each epoch draws from a seed of its own, and nothing depends on how many
    follow.

    Args:
        images: Training images in the transformed space [N, C, H, W], on the device.
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        recipe: Network, optimizer and length.
        seed: Determines initialisation, order and augmentation.
        start: Go on from here, and return only the snapshots that follow; None: from the initialisation.

    Raises:
        RequestError: Training diverged: the loss is not finite.
    """
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    network = Flat(build(recipe.network, shape, num_classes, seed.child("init").torch(), images.device))
    augment = Dsa(recipe.augment) if recipe.augment else None
    theta = network.flatten() if start is None else start.weights.to(images.device)
    velocity = torch.zeros_like(theta)
    if start is not None and start.velocity is not None:
        velocity = start.velocity.to(images.device)
    done, first = (0, 0) if start is None else (start.epoch, start.epoch + 1)
    snapshots = torch.empty(recipe.epochs + 1 - first, network.num_params)
    if start is None:
        snapshots[0] = theta
    losses = []
    for epoch in range(done, recipe.epochs):
        batches = _batches(images, labels, recipe.batch_size, augment, seed.child("epoch", epoch).torch())
        total = torch.zeros((), device=images.device)
        for x, y in batches:
            loss, direction = _direction(network, x, y, theta, recipe)
            velocity = recipe.momentum * velocity + direction + recipe.weight_decay * theta
            theta = theta - recipe.lr * velocity
            total += loss * len(x)
        snapshots[epoch + 1 - first] = theta
        losses.append(float(total) / len(images))
        if not losses[-1] < float("inf"):
            raise RequestError(
                f"an expert diverged in epoch {epoch + 1} (loss {losses[-1]}); lower experts.lr (it is {recipe.lr})"
            )
    return Trajectory(snapshots, losses, first, velocity.cpu() if recipe.momentum else None)


def _batches(
    images: Tensor, labels: Tensor, size: int, augment: Dsa | None, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of one epoch."""
    order = torch.randperm(len(images), generator=generator).to(images.device)
    for index in order.split(size):
        x = images[index]
        if augment is not None:
            x = augment.apply(x, augment.draw(generator, len(index), images.shape[2], images.device))
        yield x, labels[index]


def _direction(network: Flat, x: Tensor, y: Tensor, theta: Tensor, recipe: ExpertRecipe) -> tuple[Tensor, Tensor]:
    """Return the batch loss and the update direction [P]."""

    def loss(weights: Tensor) -> Tensor:
        return F.cross_entropy(network(weights, x), y)

    if recipe.optimizer == "gsam":
        return gsam_direction(loss, theta, recipe.rho, recipe.alpha)
    return loss_and_gradient(loss, theta)
