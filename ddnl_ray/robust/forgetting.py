"""Second-split forgetting: how early an image is learnt, and how soon it is forgotten when training moves elsewhere.

Maini et al. (2022, second-split forgetting time; authors' code: pratyushmaini/ssft), as SGR uses it (Eq. 5 and 6). A
network learns one half of the data, then goes on with the other half. An image with a wrong label is learnt late, for
nothing else speaks for that label, and is forgotten soon. Both directions are trained, so that every image has a score.

Differs from the original:
    - SGR's text reads like a single run, but it names second-split forgetting, which has two stages: two it is;
    - "first classified correctly" is the first epoch with the observed label; an image that never was has E1 + 1;
    - an image that is wrong at the end of the first stage has forgetting time 0, whatever follows (the code of Maini et
      al. looks at the second stage alone: there it is E2 + 1 for one that is right in the end);
    - one that is right after the last epoch is never forgotten for good and has E2 + 1, as there; the rule
      ``first_error`` takes SGR's words literally;
    - the network is the backbone of the trial (there a ResNet-9 with batch normalisation);
    - no augmentation, and nothing stops early; images are scored as they are (there in training mode, in the loader's
      augmentation);
    - the triangle rises over the first third of a stage and is constant within an epoch, at its value in the middle
      (there it rises over 10 of 100 epochs and changes with every step); both stages have one, as there;
    - where the scores are divided by their largest value, it is that of all images and at least 1, and the prior is at
      least ``floor``, so that no class dies out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts import ExpertRecipe, TrainingState, train_experts
from ddnl_ray.experts.precision import products
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.parts import part_size
from ddnl_ray.seeds import SeedTree

RULES = ("for_good", "first_error")
SCHEDULES = ("triangular", "constant")
RISE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class ForgettingConfig:
    """Training of the networks that forget; the defaults are those of Maini et al.

    For a ConvNet, the other published choice is ``schedule`` constant at ``lr`` 0.01 with 50 epochs per stage.
    """

    forgetting_networks: int = 3
    """Networks per direction, over which the times are averaged."""
    forgetting_first_epochs: int = 30
    """Epochs on the own half (E1)."""
    forgetting_second_epochs: int = 30
    """Epochs on the other half (E2)."""
    forgetting_lr: float = 0.1
    """Learning rate: the peak of the triangle, or the constant."""
    forgetting_schedule: str = "triangular"
    """``triangular`` (up, then down to 0, in each stage) or ``constant``."""
    forgetting_momentum: float = 0.9
    """Momentum of SGD; the second stage starts without velocity."""
    forgetting_weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    forgetting_batch_size: int = 512
    """Images per step."""
    forgetting_rule: str = "for_good"
    """When an image is forgotten: ``for_good`` (wrong from then on) or ``first_error``."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("forgetting_schedule", self.forgetting_schedule, SCHEDULES)
        require_known("forgetting_rule", self.forgetting_rule, RULES)
        for name in ("networks", "first_epochs", "second_epochs", "batch_size"):
            value = getattr(self, f"forgetting_{name}")
            if value < 1:
                raise RequestError(f"forgetting_{name} must be at least 1, but got {value}")
        if not self.forgetting_lr > 0:
            raise RequestError(f"forgetting_lr must be above 0, but got {self.forgetting_lr}")
        if not 0 <= self.forgetting_momentum < 1:
            raise RequestError(f"forgetting_momentum must lie in [0, 1), but got {self.forgetting_momentum}")
        if not self.forgetting_weight_decay >= 0:
            raise RequestError(f"forgetting_weight_decay must be 0 or more, but got {self.forgetting_weight_decay}")

    def lr_at(self, epoch: int, num_epochs: int) -> float:
        """Return the learning rate of an epoch (counted from 0) of a stage."""
        if self.forgetting_schedule == "constant":
            return self.forgetting_lr
        share = (epoch + 0.5) / num_epochs
        return self.forgetting_lr * min(share / RISE, (1 - share) / (1 - RISE))


@dataclass(frozen=True)
class Forgetting:
    """When each image was learnt and forgotten, as means over networks.

    Attributes:
        t_learn: Epoch of the first stage, from 1; E1 + 1 for never; float32 [N].
        t_forget: Epoch of the second stage, from 1; 0: before it, E2 + 1: never; float32 [N].
    """

    t_learn: Tensor
    t_forget: Tensor


def learning_times(correct: Tensor) -> Tensor:
    """Return the first epoch, from 1, in which each image is right, int64 [n]; E1 + 1 where there is none.

    Args:
        correct: Whether an image is right after an epoch, bool [E1, n].
    """
    first = correct.int().argmax(0) + 1
    return torch.where(correct.any(0), first, len(correct) + 1)


def forgetting_times(correct: Tensor, right_before: Tensor, rule: str = "for_good") -> Tensor:
    """Return the epoch, from 1, in which each image is forgotten, int64 [n].

    It is 0 for images that were wrong before, and E2 + 1 for those that are not forgotten.

    Args:
        correct: Whether an image is right after an epoch of the second stage, bool [E2, n].
        right_before: Whether it was at the end of the first stage, bool [n].
        rule: ``for_good``: the first epoch from which it is wrong up to the last; ``first_error``: the first in which
            it is wrong.

    Raises:
        RequestError: The rule is unknown.
    """
    if require_known("forgetting_rule", rule, RULES) == "for_good":
        wrong_to_the_end = (~correct).flip(0).int().cumprod(0).sum(0)
        times = len(correct) + 1 - wrong_to_the_end
    else:
        times = learning_times(~correct)
    return torch.where(right_before, times, 0)


def forgetting_prior(t_learn: Tensor, t_forget: Tensor, weight: float, floor: float) -> Tensor:
    """Return the static reliability of every image, W_ssft of Eq. 5 and 6, in [floor, 1], [N].

    ``1 - weight * t_learn / max t_learn - (1 - weight) * (1 - t_forget / max t_forget)``.

    Args:
        t_learn: Learning times [N].
        t_forget: Forgetting times [N].
        weight: Share of the learning times (the paper's lambda), in [0, 1].
        floor: The least reliability.
    """
    late = t_learn / t_learn.max().clamp(min=1)
    soon = 1 - t_forget / t_forget.max().clamp(min=1)
    return (1 - weight * late - (1 - weight) * soon).clamp(min=floor)


def stratified_halves(labels: Tensor, seed: SeedTree) -> tuple[Tensor, Tensor]:
    """Deal the rows at random into two halves, int64, ascending; each class and the whole differ by at most one.

    Args:
        labels: Observed labels, int64 [N].
        seed: Seed of the draw.
    """
    labels = labels.cpu()
    shuffled = torch.randperm(len(labels), generator=seed.torch())
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    return by_class[0::2].sort().values, by_class[1::2].sort().values


def forgetting_history(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    network: NetworkSpec,
    config: ForgettingConfig,
    seed: SeedTree,
    at_once: int | None = None,
) -> Forgetting:
    """Train networks on one half of the data, then on the other, in both directions, and time what they forget.

    Args:
        images: Training images in the transformed space [N, C, H, W].
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        network: What to train; without buffers.
        config: How.
        seed: Determines the halves, the initialisations and the orders.
        at_once: Networks that train in lock-step, which is the same up to rounding; None: all of a direction on a GPU,
            one elsewhere.

    Raises:
        RequestError: Training diverged, or the network has batch normalisation or does not fit the images.
    """
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    flat = Flat(build(network, shape, num_classes, torch.Generator()))
    halves = [half.to(images.device) for half in stratified_halves(labels, seed.child("halves"))]
    seeds = [seed.child("network", index) for index in range(config.forgetting_networks)]
    size = at_once or (len(seeds) if images.is_cuda else 1)
    groups = [seeds[first : first + size] for first in range(0, len(seeds), size)]
    learnt = torch.zeros(len(images), device=images.device)
    forgotten = torch.zeros_like(learnt)
    for direction, (own, other) in enumerate((halves, halves[::-1])):
        run = _Run(images[own], labels[own], images[other], labels[other], num_classes, network, flat, config)
        for group in groups:
            for first, second in run.histories([each.child("direction", direction) for each in group]):
                learnt[own] += learning_times(first)
                forgotten[own] += forgetting_times(second, first[-1], config.forgetting_rule)
    return Forgetting(learnt / len(seeds), forgotten / len(seeds))


@dataclass(frozen=True)
class _Run:
    """One direction: learn the own half, then the other."""

    images: Tensor
    labels: Tensor
    other_images: Tensor
    other_labels: Tensor
    num_classes: int
    network: NetworkSpec
    flat: Flat
    config: ForgettingConfig

    def histories(self, seeds: Sequence[SeedTree]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for each network, which images of the own half are right after each epoch, [E1, n] and [E2, n]."""
        config = self.config
        first, second = [], []
        states: list[TrainingState] | None = None
        for epoch in range(config.forgetting_first_epochs):
            lr = config.lr_at(epoch, config.forgetting_first_epochs)
            states = self._train(self.images, self.labels, lr, seeds, states)
            first.append(self._correct(states))
        assert states is not None
        states = [TrainingState(state.epoch, state.weights, None) for state in states]
        for epoch in range(config.forgetting_second_epochs):
            lr = config.lr_at(epoch, config.forgetting_second_epochs)
            states = self._train(self.other_images, self.other_labels, lr, seeds, states)
            second.append(self._correct(states))
        yield from zip(torch.stack(first, 1), torch.stack(second, 1), strict=True)

    def _train(
        self,
        images: Tensor,
        labels: Tensor,
        lr: float,
        seeds: Sequence[SeedTree],
        starts: Sequence[TrainingState] | None,
    ) -> list[TrainingState]:
        """Train the networks for an epoch."""
        config = self.config
        recipe = ExpertRecipe(
            network=self.network,
            epochs=1 if starts is None else starts[0].epoch + 1,
            batch_size=config.forgetting_batch_size,
            lr=lr,
            momentum=config.forgetting_momentum,
            weight_decay=config.forgetting_weight_decay,
            augment=None,
        )
        try:
            trained = train_experts(images, labels, self.num_classes, recipe, seeds, starts)
        except RequestError as error:
            raise RequestError(
                f"a network that times forgetting diverged; lower forgetting_lr (it is {config.forgetting_lr})"
            ) from error
        return [each.end for each in trained]

    @torch.no_grad()
    def _correct(self, states: Sequence[TrainingState]) -> Tensor:
        """Return which images of the own half each network gives their observed label, bool [networks, n]."""
        size = part_size(self.flat.module, self.images.shape[-1], self.images.device)
        assert size is not None  # a flat network has no batch normalisation
        parts = list(zip(self.images.split(size), self.labels.split(size), strict=True))
        thetas = [state.weights.to(self.images) for state in states]
        with products("float32", self.images.device):
            return torch.stack([torch.cat([self.flat(theta, x).argmax(1) == y for x, y in parts]) for theta in thetas])
