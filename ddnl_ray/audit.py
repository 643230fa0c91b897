"""What networks say of images that they were not trained on: the evidence on which labels are judged.

The images are dealt into K folds. For each, a network is trained on the others with the observed labels, and then
gives class probabilities and features of the fold. Confident learning (Northcutt et al., JAIR 2021) and every estimate
from losses need such held-out probabilities: a network that has memorised a label finds nothing wrong with it.

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
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, TrainingState, train_experts
from ddnl_ray.experts.precision import products
from ddnl_ray.features import Extractor
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.posterior import Posterior, posterior_of
from ddnl_ray.recipes import RECIPES
from ddnl_ray.robust.neighbours import nearest_neighbours
from ddnl_ray.seeds import SeedTree

MOST_NEIGHBOURS = 10
EMBED_BATCH = 1024
_GIVEN = NoiseConfig()


@dataclass(frozen=True)
class Step:
    """How far an audit is, after an epoch.

    Attributes:
        fold: Which fold, from 1.
        folds: How many there are.
        epoch: Which epoch of its training, from 1.
        epochs: How many there are.
        predicted: Share of the fold's observed labels that the network predicts.
    """

    fold: int
    folds: int
    epoch: int
    epochs: int
    predicted: float

    def __str__(self) -> str:
        return (
            f"fold {self.fold} of {self.folds}, epoch {self.epoch} of {self.epochs}: "
            f"{100 * self.predicted:.1f} % of its labels predicted"
        )


Progress = Callable[[Step], None]


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Training of the networks of an audit."""

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

    def __post_init__(self) -> None:
        """Check the ranges."""
        augmentation(self.augment)
        if self.folds < 2:
            raise RequestError(f"folds must be at least 2, but got {self.folds}; 5 is usual")
        if self.epochs < 1:
            raise RequestError(f"epochs must be at least 1, but got {self.epochs}")

    @classmethod
    def of(cls, dataset: str, input_shape: tuple[int, int, int], folds: int, epochs: int) -> AuditConfig:
        """Return the settings of training on a whole data set (method ``full``), with a network that fits its images.

        Args:
            dataset: Name of the data set.
            input_shape: (C, H, H) of the images; the field's ConvNet loses blocks where they are too small for it.
            folds: K.
            epochs: The most epochs of a training.

        Raises:
            RequestError: No ConvNet fits, or ``folds`` or ``epochs`` is out of range.
        """
        recipe = RECIPES["full"](dataset, 1, _GIVEN)
        depth = int(recipe.network.name.removeprefix("convnet"))
        fitting = max(1, min(depth, input_shape[-1].bit_length() - 1))
        network = NetworkSpec(f"convnet{fitting}", recipe.network.width)
        network.require_fits(input_shape)
        training = recipe.evaluation
        assert training.lr is not None
        return cls(
            network=network,
            folds=folds,
            epochs=epochs,
            batch_size=training.batch_size,
            lr=training.lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            augment=training.augment,
        )


@dataclass(frozen=True)
class HeldOut:
    """What was found out about N images by networks that had not seen their labels.

    Attributes:
        probabilities: Class probabilities [N, C], float64, on the CPU.
        neighbours: Rows of the nearest images, nearest first, itself left out, int64 [N, k], on the CPU.
        fold: The fold of each image, int64 [N].
        epochs: The epoch that was chosen for each fold, from 1.
        posterior: The network of the first fold with noise on its weights, judged on that fold.
    """

    probabilities: Tensor
    neighbours: Tensor
    fold: Tensor
    epochs: tuple[int, ...]
    posterior: Posterior


def require_enough(labels: Tensor, classes: tuple[str, ...], folds: int) -> None:
    """Check that every class has an image for every fold.

    Args:
        labels: Observed labels, int64 [N].
        classes: Class names.
        folds: K.

    Raises:
        RequestError: There are fewer images than folds x classes, or a class has fewer than folds.
    """
    needed = folds * len(classes)
    if len(labels) < needed:
        raise RequestError(
            f"{len(labels)} images are too few for {folds} folds of {len(classes)} classes, which need {needed}; "
            "lower --folds, or add images"
        )
    counts = torch.bincount(labels, minlength=len(classes))
    if int(counts.min()) < folds:
        least = int(counts.argmin())
        raise RequestError(
            f"class {least} ({classes[least]!r}) has {int(counts[least])} labelled images, but {folds} folds need "
            f"{folds} of every class; lower --folds, or add images of it or remove the class"
        )


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


def neighbours_for(num_images: int, num_classes: int) -> int:
    """Return the neighbours per image: half of the images per class, at least 1 and at most 10."""
    return max(1, min(MOST_NEIGHBOURS, num_images // (2 * num_classes), num_images - 1))


def audit(
    images: Tensor, labels: Tensor, num_classes: int, config: AuditConfig, seed: SeedTree, progress: Progress
) -> HeldOut:
    """Train a network per fold on the other folds, and say what it finds in its own.

    Args:
        images: Transformed images [N, C, H, H], on the device to train on.
        labels: Observed labels, int64 [N], likewise; at least two of every class.
        num_classes: Number of classes.
        config: Network, optimizer, folds and length.
        seed: Determines the folds, initialisations, orders and augmentations.
        progress: Called after every epoch.

    Raises:
        RequestError: Training diverged, or the network does not fit the images.
    """
    fold = stratified_folds(labels.cpu(), config.folds, seed.child("folds"))
    k = neighbours_for(len(labels) // config.folds, num_classes)
    probabilities = torch.empty(len(labels), num_classes, dtype=torch.float64)
    neighbours = torch.empty(len(labels), k, dtype=torch.int64)
    chosen, posteriors = [], []
    for number in range(config.folds):
        own = (fold == number).nonzero().flatten()
        run = _Fold(images, labels, num_classes, own, (fold != number).nonzero().flatten(), config)
        best = run.train(seed.child("fold", number), number + 1, progress)
        if number == 0:
            posteriors.append(run.posterior(best, seed.child("posterior")))
        chosen.append(best.epoch)
        probabilities[own] = best.logits.double().softmax(1).cpu()
        neighbours[own] = own[nearest_neighbours(best.features, k).cpu()]
    return HeldOut(probabilities, neighbours, fold, tuple(chosen), posteriors[0])


def with_features(found: HeldOut, extractor: Extractor, pixels: Tensor) -> HeldOut:
    """Return the same probabilities, with the neighbours among all images in the features of an extractor.

    Args:
        found: What networks with labels found.
        extractor: Trained on images alone.
        pixels: [N, C, H, H], float32 in [0, 1].
    """
    num, num_classes = found.probabilities.shape
    neighbours = nearest_neighbours(extractor.embed(pixels), neighbours_for(num, num_classes))
    return dataclasses.replace(found, neighbours=neighbours.cpu())


@dataclass(frozen=True)
class _Best:
    """The best epoch of a fold, from 1, with logits [n, C], features [n, d], and weights [P] at the start and then."""

    epoch: int
    logits: Tensor
    features: Tensor
    start: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _Fold:
    """One fold: the rows that are held out, and those that are trained on."""

    images: Tensor
    labels: Tensor
    num_classes: int
    own: Tensor
    others: Tensor
    config: AuditConfig

    def train(self, seed: SeedTree, number: int, progress: Progress) -> _Best:
        """Train; return the best epoch, and what the network of that epoch makes of the fold."""
        device, config = self.images.device, self.config
        own, others = self.own.to(device), self.others.to(device)
        images, labels = self.images[own], self.labels[own]
        training = (self.images[others], self.labels[others])
        flat, start = self._network(), torch.empty(0)
        best, found = float("inf"), None
        states: list[TrainingState] | None = None
        for epoch in range(1, config.epochs + 1):
            trained = train_experts(*training, self.num_classes, self._recipe(epoch), [seed], states)
            start = trained[0].snapshots[0] if states is None else start
            states = [trained[0].end]
            logits, features = self._outputs(flat, states[0].weights.to(device), images)
            loss = float(F.cross_entropy(logits, labels))
            right = float((logits.argmax(1) == labels).double().mean())
            progress(Step(number, config.folds, epoch, config.epochs, right))
            if loss < best or found is None:
                best, found = loss, _Best(epoch, logits, features, start, states[0].weights)
        assert found is not None
        return found

    def posterior(self, best: _Best, seed: SeedTree) -> Posterior:
        """Judge the network of the best epoch, with noise on its weights, on the fold."""
        own = self.own.to(self.images.device)
        weights = (best.start, best.weights)
        return posterior_of(self._network(), weights, self.images[own], self.labels[own], self.config.epochs, seed)

    def _network(self) -> Flat:
        shape = (int(self.images.shape[1]), int(self.images.shape[2]), int(self.images.shape[3]))
        network = build(self.config.network, shape, self.num_classes, torch.Generator(), self.images.device)
        return Flat(network)

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
