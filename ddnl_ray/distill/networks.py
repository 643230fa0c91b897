"""Training of the networks that matching methods look through: plain SGD on flat weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.models import Flat
from ddnl_ray.models.parts import part_size


@dataclass(frozen=True)
class Sgd:
    """SGD with momentum and weight decay, as ``torch.optim.SGD`` has it.

    Attributes:
        lr: Learning rate.
        momentum: Share of the last velocity that is kept.
        weight_decay: L2 penalty, added to the gradient.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def step(self, theta: Tensor, velocity: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next weights and velocity [P]; the given ones are left as they were."""
        velocity = self.momentum * velocity + gradient + self.weight_decay * theta
        return theta - self.lr * velocity, velocity


@dataclass(frozen=True)
class Slope:
    """Loss and gradient of one batch.

    Attributes:
        loss: Mean loss, a scalar on the device.
        gradient: [P].
        logits: [B, classes], without a graph.
    """

    loss: Tensor
    gradient: Tensor
    logits: Tensor


def slope(
    network: Flat,
    theta: Tensor,
    images: Tensor,
    labels: Tensor,
    smaller: int = 0,
    mean_loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Slope:
    """Return loss and gradient of a network on a batch, taken in parts that fit the cache.

    Args:
        network: The network.
        theta: Its weights [P].
        images: [B, C, H, W].
        labels: Hard, int64 [B], or probabilities [B, classes], or what the loss takes.
        smaller: How often the work ran out of memory.
        mean_loss: Maps logits [b, classes] and labels to their mean loss.
    """
    size = part_size(network.module, images.shape[-1], images.device, smaller)
    assert size is not None  # a flat network has no batch normalisation
    loss, gradient = theta.new_zeros(()), torch.zeros_like(theta)
    logits = []
    for x, y in zip(images.split(size), labels.split(size), strict=True):
        leaf = theta.detach().requires_grad_()
        found = network(leaf, x)
        own = mean_loss(found, y) * (len(x) / len(images))
        (turn,) = torch.autograd.grad(own, leaf)
        loss, gradient = loss + own.detach(), gradient + turn
        logits.append(found.detach())
    return Slope(loss, gradient, torch.cat(logits))
