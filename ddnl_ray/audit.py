"""An audit of labels that somebody hands us: its settings, what it needs, and what is asked of its networks beside.

The networks behind it are those of :mod:`ddnl_ray.lnl.heldout`; what they say is judged in ``analysis.noise_rate``.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.features import Extractor
from ddnl_ray.lnl.heldout import FoldsConfig, HeldOut, neighbours_for
from ddnl_ray.lnl.neighbours import nearest_neighbours
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.posterior import Posterior, posterior_of
from ddnl_ray.recipes import RECIPES
from ddnl_ray.seeds import SeedTree

_GIVEN = NoiseConfig()


def audit_config(dataset: str, input_shape: tuple[int, int, int], folds: int, epochs: int) -> FoldsConfig:
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
    return FoldsConfig(
        network=network,
        folds=folds,
        epochs=epochs,
        batch_size=training.batch_size,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        augment=training.augment,
    )


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


def posterior_on_first_fold(
    found: HeldOut, images: Tensor, labels: Tensor, num_classes: int, config: FoldsConfig, seed: SeedTree
) -> Posterior:
    """Judge the network of the first fold, with noise on its weights, on that fold.

    Args:
        found: What the networks found.
        images: Transformed images [N, C, H, W], as they were trained on.
        labels: Observed labels, int64 [N], likewise.
        num_classes: Number of classes.
        config: How they were trained.
        seed: Determines the noise on the weights.
    """
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    flat = Flat(build(config.network, shape, num_classes, torch.Generator(), images.device))
    own = (found.fold == 0).nonzero().flatten().to(images.device)
    start, best = found.first
    return posterior_of(flat, (start, best), images[own], labels[own], config.epochs, seed)
