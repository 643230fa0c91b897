"""What networks say of images that they were not trained on: the evidence on which labels are judged.

The images are dealt into K folds. For each, a network is trained on the others with the observed labels, and then
gives class probabilities and features of the fold. Confident learning (Northcutt et al., JAIR 2021) and every estimate
from losses need such held-out probabilities: a network that has memorised a label finds nothing wrong with it.

It runs epoch by epoch (``begin -> advance``) over an explicit state, from which it goes on bit for bit.

Differs from the original:
    - the length of the training is chosen, per fold, as the epoch with the lowest cross-entropy of the fold's observed
      labels (there: left to the user). One number is chosen from many labels, so the leak is small;
    - features of different networks do not compare, so the neighbours of an image are looked for in its own fold, where
      the network has seen no label of either. For an extractor that has seen none at all, all are searched;
    - the number of neighbours falls with the classes (:func:`neighbours_for`), for a class must fill a neighbourhood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import augmentation
from ddnl_ray.distill.base import State
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, TrainingState, train_experts
from ddnl_ray.experts.precision import products
from ddnl_ray.lnl.neighbours import nearest_neighbours
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.seeds import SeedTree

MOST_NEIGHBOURS = 10
EMBED_BATCH = 1024


@dataclass(frozen=True)
class Step:
    """How far the folds are, after an epoch.

    Attributes:
        fold: Which fold, from 1.
        folds: How many there are.
        epoch: Which epoch of its training, from 1.
        epochs: How many there are.
        predicted: Share of the fold's observed labels that the network predicts.
        loss: Mean cross-entropy of the fold's observed labels.
    """

    fold: int
    folds: int
    epoch: int
    epochs: int
    predicted: float
    loss: float

    def __str__(self) -> str:
        return (
            f"fold {self.fold} of {self.folds}, epoch {self.epoch} of {self.epochs}: "
            f"{100 * self.predicted:.1f} % of its labels predicted"
        )


Progress = Callable[[Step], None]


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """Training of the networks, one per fold."""

    network: NetworkSpec
    """What to train; without buffers."""
    folds: int = 5
    """K: how many parts the images are dealt into."""
    epochs: int = 20
    """The most epochs of a training."""
    batch_size: int = 256
    """Images per step."""
    lr: float = 0.01
    """Learning rate; times 0.2 after two thirds and after five sixths of the epochs."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    augment: str | None = None
    """DSA strategy, or None."""
    neighbours: int = MOST_NEIGHBOURS
    """The most neighbours that are looked for; 0: none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        augmentation(self.augment)
        if self.folds < 2:
            raise RequestError(f"folds must be at least 2, but got {self.folds}; 5 is usual")
        if self.epochs < 1:
            raise RequestError(f"epochs must be at least 1, but got {self.epochs}")
        if self.neighbours < 0:
            raise RequestError(f"neighbours must be 0 or more, but got {self.neighbours}")


@dataclass(frozen=True)
class HeldOut:
    """What was found out about N images by networks that had not seen their labels.

    Attributes:
        probabilities: Class probabilities [N, C], float64, on the CPU.
        neighbours: Rows of the nearest images, nearest first, itself left out, int64 [N, k], on the CPU.
        fold: The fold of each image, int64 [N].
        epochs: The epoch that was chosen for each fold, from 1.
        first: Weights of the first fold's network at its start and at the chosen epoch [2, P].
    """

    probabilities: Tensor
    neighbours: Tensor
    fold: Tensor
    epochs: tuple[int, ...]
    first: Tensor


@dataclass(frozen=True)
class FoldsState(State):
    """The folds that are done, and the one in training.

    Attributes:
        fold: The fold of each image, int64 [N].
        probabilities: Class probabilities of the images of the folds that are done [N, C], float64; 0 elsewhere.
        neighbours: Their nearest rows, int64 [N, k]; -1 elsewhere.
        chosen: The best epoch of each fold so far, from 1, int64 [K].
        weights: Weights of the network in training [P]; of no meaning before the first epoch of a fold.
        velocity: Its momentum buffer [P].
        best: Its weights at the best epoch [P].
        lowest: The loss of the fold at that epoch, float64, a scalar.
        first: Weights of the first fold's network at its start and at its best epoch so far [2, P].
    """

    fold: Tensor
    probabilities: Tensor
    neighbours: Tensor
    chosen: Tensor
    weights: Tensor
    velocity: Tensor
    best: Tensor
    lowest: Tensor
    first: Tensor


def stratified_folds(labels: Tensor, folds: int, seed: SeedTree) -> Tensor:
    """Deal the rows at random into folds, int64 [N]; in each class and in the whole, folds differ by at most one.

    Args:
        labels: Observed labels, int64 [N], on the CPU.
        folds: K.
        seed: Seed of the draw.
    """
    shuffled = torch.randperm(len(labels), generator=seed.torch())
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold


def neighbours_for(num_images: int, num_classes: int, most: int = MOST_NEIGHBOURS) -> int:
    """Return the neighbours per image: half of the images per class, at least 1 and at most ``most``."""
    return max(1, min(most, num_images // (2 * num_classes), num_images - 1))


@dataclass(frozen=True)
class Folds:
    """A cross-validated prediction of the labels of a set.

    Attributes:
        images: Transformed images [N, C, H, W], on the device to train on.
        labels: Observed labels, int64 [N], likewise; at least one per fold.
        num_classes: Number of classes.
        config: Network, optimizer, folds and length.
        seed: Determines the folds, initialisations, orders and augmentations.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    config: FoldsConfig
    seed: SeedTree

    @property
    def length(self) -> int:
        """How often the state advances."""
        return self.config.folds * self.config.epochs

    def begin(self) -> FoldsState:
        """Return the state before the first epoch.

        Raises:
            RequestError: There are fewer than two images for each fold, or the network does not fit the images.
        """
        config, num = self.config, len(self.labels)
        if num < 2 * config.folds:
            raise RequestError(f"{num} images are too few for {config.folds} folds; lower folds, or add images")
        k = neighbours_for(num // config.folds, self.num_classes, config.neighbours) if config.neighbours else 0
        device = self.images.device
        blank = torch.zeros(self._flat().num_params, dtype=self.images.dtype, device=device)
        return FoldsState(
            iteration=0,
            fold=stratified_folds(self.labels.cpu(), config.folds, self.seed.child("folds")).to(device),
            probabilities=torch.zeros(num, self.num_classes, dtype=torch.float64, device=device),
            neighbours=torch.full((num, k), -1, device=device),
            chosen=torch.zeros(config.folds, dtype=torch.int64, device=device),
            weights=blank,
            velocity=blank,
            best=blank,
            lowest=torch.tensor(float("inf"), dtype=torch.float64, device=device),
            first=blank.expand(2, -1).clone(),
        )

    def advance(self, state: FoldsState) -> tuple[FoldsState, Step]:
        """Train the network of a fold for an epoch; after the last one, keep what its best epoch says of the fold.

        Raises:
            RequestError: Training diverged.
        """
        config = self.config
        number, done = divmod(state.iteration, config.epochs)
        own, others = (mask.nonzero().flatten() for mask in (state.fold == number, state.fold != number))
        images, labels = self.images[own], self.labels[own]
        start = None if done == 0 else [TrainingState(done, state.weights, state.velocity)]
        (trained,) = train_experts(
            self.images[others],
            self.labels[others],
            self.num_classes,
            self._recipe(done + 1),
            [self.seed.child("fold", number)],
            start,
        )
        flat, theta = self._flat(), trained.end.weights.to(images)
        logits, _ = self._outputs(flat, theta, images)
        loss = float(F.cross_entropy(logits, labels))
        best, lowest, chosen = state.best, state.lowest, state.chosen
        if done == 0 or loss < float(lowest):
            best, lowest = theta, torch.full_like(lowest, loss)
            chosen = chosen.index_fill(0, torch.tensor([number], device=chosen.device), done + 1)
        velocity = torch.zeros_like(theta) if trained.velocity is None else trained.velocity.to(theta)
        first = state.first
        if number == 0:
            first = torch.stack([trained.snapshots[0].to(theta) if done == 0 else first[0], best])
        state = dataclasses.replace(
            state,
            iteration=state.iteration + 1,
            weights=theta,
            velocity=velocity,
            best=best,
            lowest=lowest,
            chosen=chosen,
            first=first,
        )
        right = float((logits.argmax(1) == labels).double().mean())
        step = Step(number + 1, config.folds, done + 1, config.epochs, right, loss)
        return (self._judged(state, flat, own) if done + 1 == config.epochs else state), step

    def found(self, state: FoldsState) -> HeldOut:
        """Return what is known at the end.

        Raises:
            ValueError: Folds are left to train.
        """
        if state.iteration < self.length:
            raise ValueError(f"{state.iteration} of {self.length} epochs are done; there is no prediction for all yet")
        chosen = tuple(state.chosen.tolist())
        return HeldOut(state.probabilities.cpu(), state.neighbours.cpu(), state.fold.cpu(), chosen, state.first.cpu())

    def _judged(self, state: FoldsState, flat: Flat, own: Tensor) -> FoldsState:
        """Return the state with what the best epoch's network says of a fold."""
        logits, features = self._outputs(flat, state.best, self.images[own])
        probabilities = state.probabilities.index_copy(0, own, logits.double().softmax(1))
        neighbours = state.neighbours
        if k := neighbours.shape[1]:
            neighbours = neighbours.index_copy(0, own, own[nearest_neighbours(features, k)])
        return dataclasses.replace(state, probabilities=probabilities, neighbours=neighbours)

    def _flat(self) -> Flat:
        shape = (int(self.images.shape[1]), int(self.images.shape[2]), int(self.images.shape[3]))
        return Flat(build(self.config.network, shape, self.num_classes, torch.Generator(), self.images.device))

    def _recipe(self, epoch: int) -> ExpertRecipe:
        """Return the recipe of the training up to an epoch."""
        config = self.config
        return ExpertRecipe(
            network=config.network,
            epochs=epoch,
            batch_size=config.batch_size,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            augment=config.augment,
            schedule="thirds",
            schedule_epochs=config.epochs,
        )

    @torch.no_grad()
    def _outputs(self, flat: Flat, theta: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features of images."""
        with products("float32", images.device):
            parts = [outputs_of(flat, theta, part) for part in images.split(EMBED_BATCH)]
        return torch.cat([part.logits for part in parts]), torch.cat([part.features for part in parts])


def held_out(
    images: Tensor, labels: Tensor, num_classes: int, config: FoldsConfig, seed: SeedTree, progress: Progress
) -> HeldOut:
    """Train a network per fold on the other folds, and say what it finds in its own (see :class:`Folds`).

    Args:
        images: Transformed images [N, C, H, W], on the device to train on.
        labels: Observed labels, int64 [N], likewise.
        num_classes: Number of classes.
        config: Network, optimizer, folds and length.
        seed: Determines everything random.
        progress: Called after every epoch.

    Raises:
        RequestError: Training diverged, or the network does not fit the images.
    """
    folds = Folds(images, labels, num_classes, config, seed)
    state = folds.begin()
    for _ in range(folds.length):
        state, step = folds.advance(state)
        progress(step)
    return folds.found(state)
