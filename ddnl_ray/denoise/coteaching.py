"""Co-teaching: two networks, each of which learns from the samples that the other finds easy.

Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018 (authors'
code: bhanML/Co-teaching). In every batch either network names the samples of smallest loss, ever fewer of them over the
first epochs; the other one steps on these.

Differs from the original:
    - the networks are those of :mod:`ddnl_ray.models` (there nine convolutional layers with batch normalisation and
      dropout), and images come as the caller has them (there without normalisation); neither has augmentation;
    - the loss is the mean over the samples that are kept (the code divides it by their number once more, which Adam all
      but undoes);
    - epochs are counted from 1 and the share that is forgotten is the code's (``linspace(0, rate, ramp)``): it reaches
      the rate one epoch earlier than the paper's ``min(e / ramp, 1)``;
    - every epoch is whole (there at most 401 steps, which CIFAR's 390 do not reach). There are 199, because the first
      of 200 is not trained there; the schedules are those of the code;
    - at least one sample of a batch is kept;
    - labels, as the code does not export them: the mean softmax of both networks. The confidence is its value at the
      observed label; those labels are believed that lie, within their class, in the share ``1 - forget_rate`` of
      largest confidence. The estimated rate is how often the most probable class is not the label, for ``forget_rate``
      is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise.base import Cleaned, Cleaner, CleanerConfig, Problem, settle, transition_of
from ddnl_ray.denoise.networks import Network
from ddnl_ray.distill.base import State
from ddnl_ray.errors import RequestError
from ddnl_ray.experts.gsam import loss_and_gradient
from ddnl_ray.seeds import SeedTree

BETA = 0.9
LATE_BETA = 0.1
SECOND_BETA = 0.999
EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class CoteachingConfig(CleanerConfig):
    """Settings of Co-teaching; the defaults are those of its code for CIFAR-10."""

    forget_rate: float
    """Share of a batch that is left out in the end (tau): the noise rate, as far as it is known."""
    epochs: int = 199
    """Epochs."""
    ramp: int = 10
    """Epochs over which that share grows from 0 (T_k)."""
    exponent: float = 1.0
    """The share grows to ``forget_rate`` to this power (c)."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    decay_start: int = 80
    """Epoch from which on the learning rate falls linearly, and Adam's first beta is 0.1; 100 for CIFAR-100."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name, lowest in (("epochs", 1), ("ramp", 1), ("batch_size", 1), ("decay_start", 0)):
            if getattr(self, name) < lowest:
                raise RequestError(f"{name} must be at least {lowest}, but got {getattr(self, name)}")
        for name in ("lr", "exponent"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be above 0, but got {getattr(self, name)}")
        if not 0 <= self.forget_rate < 1:
            raise RequestError(f"forget_rate must lie in [0, 1), but got {self.forget_rate}")

    def forgotten(self, epoch: int) -> float:
        """Return the share of a batch that is left out in an epoch, counted from 1."""
        return float(self.forget_rate**self.exponent) * min(epoch / max(self.ramp - 1, 1), 1.0)

    def adam(self, epoch: int) -> tuple[float, float]:
        """Return the learning rate and the first beta of an epoch, counted from 1."""
        if epoch < self.decay_start:
            return self.lr, BETA
        left = (self.epochs + 1 - epoch) / (self.epochs + 1 - self.decay_start)
        return self.lr * left, LATE_BETA


@dataclass(frozen=True)
class Teachers(State):
    """Two networks in training.

    Attributes:
        steps: Steps that were taken.
        weights: [2, P].
        first: Adam's mean gradients [2, P].
        second: Adam's mean squared gradients [2, P].
    """

    steps: int
    weights: Tensor
    first: Tensor
    second: Tensor


def adam(
    theta: Tensor, first: Tensor, second: Tensor, gradient: Tensor, steps: int, lr: float, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights and both means after a step of Adam (Kingma and Ba 2015), the ``steps``-th, from 1; any shape."""
    first = beta * first + (1 - beta) * gradient
    second = SECOND_BETA * second + (1 - SECOND_BETA) * gradient.square()
    scale = (second / (1 - SECOND_BETA**steps)).sqrt() + EPSILON
    return theta - lr / (1 - beta**steps) * first / scale, first, second


def smallest(losses: Tensor, share: float) -> Tensor:
    """Return the places of the smallest losses but for a share, at least one, int64.

    Args:
        losses: [n].
        share: Of the losses that are left out; as in the code, the number that is kept is rounded down.
    """
    kept = max(1, int((1 - share) * len(losses)))
    return losses.argsort(stable=True)[:kept]


def small_loss_of_class(confidence: Tensor, labels: Tensor, num_classes: int, share: float) -> Tensor:
    """Return the labels of each class that are in its share of largest confidence, bool [N].

    Args:
        confidence: [N].
        labels: Observed labels, int64 [N].
        num_classes: C.
        share: Of every class, rounded to the nearest number of labels.
    """
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(num_classes):
        own = (labels == label).nonzero().flatten()
        order = confidence[own].argsort(descending=True, stable=True)
        chosen[own[order[: round(share * len(own))]]] = True
    return chosen


class Coteaching(Cleaner[Teachers]):
    """See the module."""

    name: ClassVar[str] = "coteaching"
    state: ClassVar[type[State]] = Teachers
    config: CoteachingConfig

    def length(self, problem: Problem) -> int:
        """Return the number of epochs."""
        return self.config.epochs

    def init(self, problem: Problem, seed: SeedTree) -> Teachers:
        """Return two networks, initialised apart."""
        network = Network(problem)
        weights = torch.stack([network.begin(problem, seed.child("init", index)) for index in range(2)])
        return Teachers(0, 0, weights, torch.zeros_like(weights), torch.zeros_like(weights))

    def epoch(self, state: Teachers, problem: Problem, seed: SeedTree) -> tuple[Teachers, float]:
        """Train both networks, batch by batch, for an epoch."""
        config, network, number = self.config, Network(problem), state.iteration + 1
        lr, beta = config.adam(number)
        order = torch.randperm(len(problem.labels), generator=seed.child("epoch", number).torch()).to(problem.device)
        weights, first, second = state.weights, state.first, state.second
        steps, total = state.steps, torch.zeros((), dtype=weights.dtype, device=weights.device)
        batches = order.split(config.batch_size)
        for rows in batches:
            images, labels = problem.images[rows], problem.labels[rows]
            losses, gradient = teach(network, weights, images, labels, config.forgotten(number))
            steps += 1
            weights, first, second = adam(weights, first, second, gradient, steps, lr, beta)
            total += losses.mean()
        return Teachers(number, steps, weights, first, second), float(total) / len(batches)

    def export(self, state: Teachers, problem: Problem) -> Cleaned:
        """Return what both networks say of the labels."""
        config, labels = self.config, problem.labels
        soft = Network(problem).ensemble(state.weights, problem.images)
        confidence = soft.gather(1, labels[:, None]).squeeze(1)
        believed = small_loss_of_class(confidence, labels, problem.num_classes, 1 - config.forget_rate)
        rate = float((soft.argmax(1) != labels).double().mean())
        return settle(config, labels, soft, confidence, believed, rate, transition_of(soft, labels), state.weights)


def teach(network: Network, weights: Tensor, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the losses [2] of both networks on what the other one chose of a batch, and their gradients [2, P].

    Args:
        network: The network.
        weights: [2, P].
        images: [B, C, H, H].
        labels: Observed labels, int64 [B].
        share: Of the batch that is left out.
    """

    def losses(both: Tensor) -> Tensor:
        every = [F.cross_entropy(network(theta, images), labels, reduction="none") for theta in both]
        chosen = [smallest(own.detach(), share) for own in every]
        return torch.stack([every[0][chosen[1]].mean(), every[1][chosen[0]].mean()])

    return loss_and_gradient(losses, weights)
