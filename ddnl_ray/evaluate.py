"""What a distilled set is worth: train fresh networks on it from scratch and score them.

Protocol (MTT code base and all that descend from it): a fresh network, SGD with momentum 0.9 and weight decay 5e-4 at
the learnt step size, DSA, the learning rate divided by 10 with a rebuilt optimizer after the middle, scored without
augmentation. That of the IDC lineage (IDC, Acc-DD, DANCE): the learning rate times 0.2 at two thirds and at five sixths
of the epochs with the momentum kept, DiffAug, and CutMix.

Differs from the original: every network is fresh (FTD and ATT warm-start the second one); beside the last epoch the
epoch that a named held-out split chooses is scored too, so that early stopping can be compared.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddnl_ray.data import augmentation, mixing
from ddnl_ray.distill.base import Distilled
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.schedule import thirds
from ddnl_ray.models import NetworkSpec, build
from ddnl_ray.models.parts import part_size
from ddnl_ray.seeds import SeedTree

SCORE_BATCH = 1024
_SINCE = {"cutmix": 0.0, "schedule": "half"}


@dataclass(frozen=True, kw_only=True)
class EvalRecipe:
    """Training of a network on a distilled set."""

    epochs: int = 1001
    """Passes over the set."""
    batch_size: int = 256
    """Images per step."""
    lr: float | None = None
    """Learning rate; None: the step size that the method learnt."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    augment: str | None = "color_crop_cutout_flip_scale_rotate"
    """DSA strategy, ``diffaug:`` and a strategy of :class:`ddnl_ray.data.DiffAug`, or None."""
    cutmix: float = 0.0
    """Probability with which a batch is mixed (:mod:`ddnl_ray.data.cutmix`)."""
    schedule: str = "half"
    """``half``: divided by 10 after the middle, where the momentum starts anew. ``thirds``: times 0.2 after two thirds
    and after five sixths of the epochs (:func:`ddnl_ray.experts.schedule.thirds`)."""
    checkpoints: int = 10
    """How often, evenly spaced, the selection split is scored while training; the last epoch is always one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("evaluation schedule", self.schedule, ["half", "thirds"])
        augmentation(self.augment)
        mixing(self.cutmix)
        for name in ("epochs", "batch_size", "checkpoints"):
            if getattr(self, name) < 1:
                raise RequestError(f"evaluate: {name} must be at least 1, but got {getattr(self, name)}")
        if self.lr is not None and not self.lr > 0:
            raise RequestError(f"evaluate: lr must be above 0 or null, but got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise RequestError(f"evaluate: momentum must lie in [0, 1), but got {self.momentum}")
        if not self.weight_decay >= 0:
            raise RequestError(f"evaluate: weight_decay must be 0 or more, but got {self.weight_decay}")

    @property
    def identity(self) -> dict[str, Any]:
        """The values that names are made of; later fields are left out at their defaults, so that older names hold."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in _SINCE or value != _SINCE[name]}

    @property
    def drop_epoch(self) -> int:
        """Epochs after which the schedule ``half`` divides the learning rate by 10."""
        return (self.epochs - 1) // 2 + 2


@dataclass(frozen=True)
class Split:
    """Images and labels to score on.

    Attributes:
        images: [N, C, H, W] in the transformed space.
        labels: int64 [N].
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Score:
    """A trained network's score on one split.

    Attributes:
        split: Name of the split.
        accuracy: At the last epoch, 0 to 1.
        accuracy_best: At the epoch that the selection split chose.
        loss: Mean cross-entropy at the last epoch.
        best_epoch: That epoch, from 1.
    """

    split: str
    accuracy: float
    accuracy_best: float
    loss: float
    best_epoch: int


def train_and_score(
    training: Distilled,
    recipe: EvalRecipe,
    network: NetworkSpec,
    num_classes: int,
    splits: Mapping[str, Split],
    select_on: str,
    seed: SeedTree,
    smaller: int = 0,
) -> list[Score]:
    """Train one fresh network and score it on every split.

    Args:
        training: The set to train on, hard or soft labels.
        recipe: How to train.
        network: What to train.
        num_classes: Number of classes.
        splits: What to score on.
        select_on: The split that chooses the best epoch.
        seed: Determines initialisation, order and augmentation.
        smaller: How often the work ran out of memory (see :mod:`ddnl_ray.models.parts`).

    Raises:
        RequestError: The recipe has no learning rate and the method learnt none, or there is no split to choose on.
    """
    require_known("selection split", select_on, splits)
    trainer = _Trainer(training, recipe, network, num_classes, seed, smaller)
    best_accuracy, best_epoch, best_model = -1.0, 0, trainer.model
    marks = {round((i + 1) * recipe.epochs / recipe.checkpoints) for i in range(recipe.checkpoints)} | {recipe.epochs}
    for epoch in range(1, recipe.epochs + 1):
        trainer.epoch(epoch)
        if epoch in marks:
            accuracy, _ = score(trainer.model, splits[select_on])
            if accuracy > best_accuracy:
                best_accuracy, best_epoch = accuracy, epoch
                best_model = trainer.model if epoch == recipe.epochs else copy.deepcopy(trainer.model)
    scores = []
    for name, split in splits.items():
        accuracy, loss = score(trainer.model, split)
        best = accuracy if best_epoch == recipe.epochs else score(best_model, split)[0]
        scores.append(Score(name, accuracy, best, loss, best_epoch))
    return scores


def train(
    training: Distilled, recipe: EvalRecipe, network: NetworkSpec, num_classes: int, seed: SeedTree, smaller: int = 0
) -> nn.Module:
    """Train one fresh network to its last epoch, as :func:`train_and_score` does, and return it.

    Args:
        training: The set to train on, hard or soft labels.
        recipe: How to train.
        network: What to train.
        num_classes: Number of classes.
        seed: Determines initialisation, order and augmentation.
        smaller: How often the work ran out of memory (see :mod:`ddnl_ray.models.parts`).

    Raises:
        RequestError: The recipe has no learning rate and the method learnt none.
    """
    trainer = _Trainer(training, recipe, network, num_classes, seed, smaller)
    for epoch in range(1, recipe.epochs + 1):
        trainer.epoch(epoch)
    return trainer.model


class _Trainer:
    """One network in training."""

    def __init__(
        self,
        training: Distilled,
        recipe: EvalRecipe,
        network: NetworkSpec,
        num_classes: int,
        seed: SeedTree,
        smaller: int,
    ) -> None:
        lr = recipe.lr if recipe.lr is not None else training.step_size
        if lr is None:
            raise RequestError("evaluate.lr is null, but the method learns no step size; set evaluate.lr")
        self.training, self.recipe, self.seed, self.lr = training.decoded(), recipe, seed, lr
        self.augment, self.cutmix = augmentation(recipe.augment), mixing(recipe.cutmix)
        channels, height, width = training.images.shape[1:]
        shape = (int(channels), int(height), int(width))
        self.model = build(network, shape, num_classes, seed.child("init").torch(), training.images.device)
        self.part = part_size(self.model, shape[-1], training.images.device, smaller) or recipe.batch_size
        self.optimizer = self._optimizer(lr)

    def _optimizer(self, lr: float) -> torch.optim.SGD:
        recipe = self.recipe
        return torch.optim.SGD(
            self.model.parameters(),
            lr=lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            foreach=True,
        )

    def epoch(self, number: int) -> None:
        """Train one epoch (counted from 1)."""
        self.model.train()
        if self.recipe.schedule == "thirds":
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * thirds(number - 1, self.recipe.epochs)
        images, labels = self.training.images, self.training.labels
        generator = self.seed.child("epoch", number).torch()
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for index in order.split(self.recipe.batch_size):
            x, targets = images[index], [(1.0, labels[index])]
            if self.augment is not None:
                x = self.augment.apply(x, self.augment.draw(generator, len(index), x.shape[-1], x.device))
            mix = self.cutmix.draw(generator, len(index), x.shape[-1], x.device) if self.cutmix is not None else None
            if self.cutmix is not None and mix is not None:
                x = self.cutmix.apply(x, mix)
                targets = [(mix.own, targets[0][1]), (1 - mix.own, targets[0][1][mix.order])]
            self.optimizer.zero_grad(set_to_none=True)
            for first in range(0, len(x), self.part):
                rows = slice(first, first + self.part)
                _loss(self.model(x[rows]), [(share, own[rows]) for share, own in targets], len(x)).backward()
            self.optimizer.step()
        if self.recipe.schedule == "half" and number == self.recipe.drop_epoch:
            self.optimizer = self._optimizer(self.lr / 10)


def _loss(logits: Tensor, targets: list[tuple[float, Tensor]], batch: int) -> Tensor:
    """Return the share in a batch's mean loss of the images with these logits; targets are weighted."""
    first, *rest = (F.cross_entropy(logits, labels) * (share * len(logits) / batch) for share, labels in targets)
    return sum(rest, first)


@torch.no_grad()
def score(model: nn.Module, split: Split) -> tuple[float, float]:
    """Return accuracy (0 to 1) and mean cross-entropy of a network on a split, without augmentation."""
    model.eval()
    correct, loss = 0, 0.0
    for images, labels in zip(split.images.split(SCORE_BATCH), split.labels.split(SCORE_BATCH), strict=True):
        # A copy, because kernels choose their path by alignment, and memory that is shared has an alignment of its own.
        logits = model(images.clone())
        correct += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return correct / len(split.labels), loss / len(split.labels)
