"""What cleaners do with networks: begin, step, score. Two networks are two rows of weights [2, P].

The networks take turns: each learns while the other is frozen, as the methods ask, or does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise.base import Problem
from ddnl_ray.errors import RequestError
from ddnl_ray.experts.gsam import loss_and_gradient
from ddnl_ray.lnl.mixmatch import flip_crop
from ddnl_ray.models import Flat, build
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.seeds import SeedTree

SCORE_BATCH = 1024
CLASSIFIER = "classifier."


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` has it, on flat weights.

    Attributes:
        lr: Learning rate.
        momentum: Momentum.
        weight_decay: L2 penalty, added to the gradient.
    """

    lr: float
    momentum: float
    weight_decay: float

    def step(self, theta: Tensor, velocity: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and momentum buffer [P] after a step against a gradient [P]."""
        velocity = self.momentum * velocity + gradient + self.weight_decay * theta
        return theta - self.lr * velocity, velocity


class Network:
    """A network as a function of flat weights, whose batches go through in parts that suit the device."""

    def __init__(self, problem: Problem) -> None:
        """Build it for the images of a problem.

        Raises:
            RequestError: It has buffers (batch normalisation), or does not fit the images.
        """
        module = build(problem.network, problem.input_shape, problem.num_classes, torch.Generator(), problem.device)
        self.flat = Flat(module)

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return the logits [N, C]; gradients flow where they are recorded."""
        return outputs_of(self.flat, theta, images).logits

    def begin(self, problem: Problem, seed: SeedTree, trunk: bool = False) -> Tensor:
        """Return initial weights [P]: drawn, but for the trunk where the problem has one that is asked for.

        Raises:
            RequestError: A trunk is asked for, and the problem has none, or one of another network.
        """
        theta = self.flat.fresh(seed.torch()).to(problem.images)
        if not trunk:
            return theta
        given = problem.start
        if given is None:
            raise RequestError("c2d starts from a self-supervised trunk, but was given none; train an extractor first")
        expected = {name for name in self.flat.shapes if not name.startswith(CLASSIFIER)}
        if expected != set(given) or any(given[name].shape != self.flat.shapes[name] for name in expected):
            raise RequestError(
                f"the self-supervised trunk is not one of {problem.network.name} (width {problem.network.width}); "
                "train an extractor with the network of the cleaner"
            )
        parts = self.flat.unflatten(theta)
        return torch.cat([given.get(name, part).reshape(-1).to(theta) for name, part in parts.items()])

    @torch.no_grad()
    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return the logits [N, C] of many images, as they are."""
        return torch.cat([self(theta, part) for part in images.split(SCORE_BATCH)])

    def losses(self, theta: Tensor, problem: Problem) -> Tensor:
        """Return the cross-entropy of every observed label [N]."""
        return F.cross_entropy(self.logits(theta, problem.images), problem.labels, reduction="none")

    def ensemble(self, thetas: Tensor, images: Tensor) -> Tensor:
        """Return the mean softmax of several networks [N, C]."""
        return torch.stack([self.logits(theta, images).softmax(1) for theta in thetas]).mean(0)


def predict(problem: Problem, thetas: Tensor, images: Tensor) -> Tensor:
    """Return the classes that robust networks give images, int64 [n]: those of the largest sum of logits.

    Args:
        problem: Whose network the weights are of.
        thetas: Weights [E, P], such as :attr:`ddnl_ray.denoise.Cleaned.networks`.
        images: As the networks see them [n, C, H, H].
    """
    network = Network(problem)
    return torch.stack([network.logits(theta, images) for theta in thetas]).sum(0).argmax(1)


def clipped(gradient: Tensor, limit: float | None) -> Tensor:
    """Return a gradient [P] of at most a norm; None: as it is."""
    return gradient if limit is None else gradient * (limit / (gradient.norm() + 1e-6)).clamp(max=1)


def confidence_penalty(logits: Tensor) -> Tensor:
    """Return the negative entropy of the predictions, in nats, averaged over rows [n, C]: a scalar."""
    logs = logits.log_softmax(1)
    return (logs.exp() * logs).sum(1).mean()


def supervised_epoch(
    network: Network,
    theta: Tensor,
    velocity: Tensor,
    problem: Problem,
    optimizer: Sgd,
    batch_size: int,
    seed: SeedTree,
    penalise: bool = False,
    clip: float | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Train one network for an epoch on every image, weakly augmented, with its observed label.

    Args:
        network: The network.
        theta: Its weights [P].
        velocity: Its momentum buffer [P].
        problem: Images and labels.
        optimizer: How.
        batch_size: Images per step; the last batch may be smaller.
        seed: Determines order and augmentation.
        penalise: Whether to add :func:`confidence_penalty`.
        clip: Largest norm of a gradient, or None.

    Returns:
        Weights, momentum buffer and the mean loss.
    """
    generator, total = seed.torch(), torch.zeros((), dtype=theta.dtype, device=theta.device)
    order = torch.randperm(len(problem.labels), generator=generator).to(problem.device)
    for rows in order.split(batch_size):
        views, labels = flip_crop(problem.images[rows], generator, problem.flip), problem.labels[rows]

        def loss(weights: Tensor, views: Tensor = views, labels: Tensor = labels) -> Tensor:
            logits = network(weights, views)
            value = F.cross_entropy(logits, labels)
            return value + confidence_penalty(logits) if penalise else value

        value, gradient = loss_and_gradient(loss, theta)
        theta, velocity = optimizer.step(theta, velocity, clipped(gradient, clip))
        total += value * len(rows)
    return theta, velocity, float(total) / len(problem.labels)


def cycled(rows: Tensor, size: int, num: int, seed: SeedTree) -> list[Tensor]:
    """Return ``num`` batches of rows: shuffled passes one after another, the last batch of each may be smaller.

    Args:
        rows: int64 [n]; without any, the batches are empty.
        size: Rows per batch.
        num: How many batches.
        seed: Each pass draws from a seed of its own.
    """
    if not len(rows):
        return [rows] * num
    batches: list[Tensor] = []
    while len(batches) < num:
        order = torch.randperm(len(rows), generator=seed.child("pass", len(batches)).torch())
        batches.extend(rows[order.to(rows.device)].split(size))
    return batches[:num]
