"""Training of one expert trajectory on the device, without a data loader.

Differs from the original (MTT's buffer script):
    - snapshots are copies (there they alias the live weights when training runs on a CPU);
    - every random number comes from the seed tree;
    - the learning rate is constant (there an optional flag divides it by 10 half-way; no published setting uses it).
"""

from __future__ import annotations

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
class Trajectory:
    """One expert.

    Attributes:
        snapshots: Weights before training and after every epoch [E + 1, P], float32, on the CPU.
        losses: Mean training loss of every epoch (on augmented batches, against the observed labels), length E.
    """

    snapshots: Tensor
    losses: list[float]


def train_expert(images: Tensor, labels: Tensor, num_classes: int, recipe: ExpertRecipe, seed: SeedTree) -> Trajectory:
    """Train one expert and keep its trajectory.

    Args:
        images: Training images in the transformed space [N, C, H, W], on the device.
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        recipe: Network, optimizer and length.
        seed: Determines initialisation, order and augmentation.

    Raises:
        RequestError: Training diverged: the loss is not finite.
    """
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    network = Flat(build(recipe.network, shape, num_classes, seed.child("init").torch(), images.device))
    augment = Dsa(recipe.augment) if recipe.augment else None
    theta = network.flatten()
    velocity = torch.zeros_like(theta)
    snapshots = torch.empty(recipe.epochs + 1, network.num_params)
    snapshots[0] = theta
    losses = []
    for epoch in range(recipe.epochs):
        generator = seed.child("epoch", epoch).torch()
        order = torch.randperm(len(images), generator=generator).to(images.device)
        total = torch.zeros((), device=images.device)
        for index in order.split(recipe.batch_size):
            x, y = images[index], labels[index]
            if augment is not None:
                x = augment.apply(x, augment.draw(generator, len(index), shape[1], images.device))
            loss, direction = _direction(network, x, y, theta, recipe)
            velocity = recipe.momentum * velocity + direction + recipe.weight_decay * theta
            theta = theta - recipe.lr * velocity
            total += loss * len(index)
        snapshots[epoch + 1] = theta
        losses.append(float(total) / len(images))
        if not losses[-1] < float("inf"):
            raise RequestError(
                f"an expert diverged in epoch {epoch + 1} (loss {losses[-1]}); lower experts.lr (it is {recipe.lr})"
            )
    return Trajectory(snapshots, losses)


def _direction(network: Flat, x: Tensor, y: Tensor, theta: Tensor, recipe: ExpertRecipe) -> tuple[Tensor, Tensor]:
    """Return the batch loss and the update direction [P]."""

    def loss(weights: Tensor) -> Tensor:
        return F.cross_entropy(network(weights, x), y)

    if recipe.optimizer == "gsam":
        return gsam_direction(loss, theta, recipe.rho, recipe.alpha)
    return loss_and_gradient(loss, theta)
