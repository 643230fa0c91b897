"""Semi-supervised training of one network on a golden set.

Part of RDC (Kim and Song, ICCV 2025, Eq. 15): the loss of DivideMix (Li et al., ICLR 2020) with the golden set as the
labelled part and the rest, without labels, as the other, and the cross-entropy of the golden set. One step is

    batch = draw_batch(golden, config.labelled_batch, config.unlabelled_batch, generator)
    loss = semi_supervised_loss(network, theta, images, golden, batch, epoch, config, seed)

Differs from the original:
    - a distilling method has one network, so that it refines and guesses labels by itself;
    - a label is refined in the measure of its weight, as in DivideMix; one that the network gave is not (weight 1);
    - :func:`dividemix_loss` takes the cross-entropy of the golden set on one augmentation of each image, not mixed, and
      with gradient; the authors' code computes it without, so that it does nothing;
    - :func:`released_loss` is what reaches the gradient in the authors' code (DISL-Lab/RDC-ICCV2025): cross-entropy of
      golden images, blended with unlabelled ones of at most the same weight and without augmentation, against hard
      golden labels, and the prior penalty. Refined and guessed labels and consistency have no effect there;
    - what :mod:`ddnl_ray.lnl.mixmatch` lists;
    - where a part has fewer images than its batch they are drawn with replacement (the authors' code stops); where
      nothing is unlabelled the part is dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.errors import RequestError
from ddnl_ray.lnl.mixmatch import (
    Batch,
    Network,
    draw_mixing,
    draw_share,
    mixmatch_loss,
    prior_penalty,
    ramp_up,
    targets_of,
    two_views,
)
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.seeds import SeedTree


def draw_batch(golden: Golden, labelled: int, unlabelled: int, generator: torch.Generator) -> Batch:
    """Draw the rows of one step, each part without replacement unless it is short.

    Args:
        golden: The golden set.
        labelled: How many from the set.
        unlabelled: How many from outside.
        generator: Source of randomness, on the CPU.

    Raises:
        RequestError: The golden set is empty.
    """
    inside, outside = (mask.nonzero().flatten() for mask in (golden.member, ~golden.member))
    if not len(inside):
        raise RequestError("the golden set is empty, so the network has nothing to learn from; lengthen warm_up")
    return Batch(_draw_rows(inside, labelled, generator), _draw_rows(outside, unlabelled, generator))


def semi_supervised_loss(
    network: Network,
    theta: Tensor,
    images: Tensor,
    golden: Golden,
    batch: Batch,
    epoch: float,
    config: RdcConfig,
    seed: SeedTree,
    teacher: Tensor | None = None,
) -> Tensor:
    """Return the network's loss of one step, :func:`released_loss` or :func:`dividemix_loss` as ``ssl`` says."""
    if config.ssl == "released":
        return released_loss(network, theta, images, golden, batch, config, seed)
    return dividemix_loss(network, theta, images, golden, batch, epoch, config, seed, teacher)


def dividemix_loss(
    network: Network,
    theta: Tensor,
    images: Tensor,
    golden: Golden,
    batch: Batch,
    epoch: float,
    config: RdcConfig,
    seed: SeedTree,
    teacher: Tensor | None = None,
) -> Tensor:
    """Return the network's loss of one step (Eq. 15): DivideMix's, and the cross-entropy of the golden images.

    Args:
        network: The network.
        theta: Its weights [P], with a gradient.
        images: Training images in the transformed space [N, C, H, H].
        golden: The golden set.
        batch: Rows of the step.
        epoch: Epochs since the start of training, with the fraction of this one.
        config: Of ``ssl`` ``dividemix1``.
        seed: Determines augmentation and mixing.
        teacher: The weights that refine and guess labels [P]; None: ``theta``.
    """
    labels = golden.labels[batch.labelled]
    num = len(labels)
    views = two_views(images, batch, seed.child("views").torch(), config.flip)
    guide = theta if teacher is None else teacher
    targets = targets_of(network, guide, views, labels, golden.weight[batch.labelled], config.sharpen_temperature)
    mixing = draw_mixing(len(views), config.alpha, seed.child("mixing"), views.device)
    logits = network(theta, torch.cat([mixing.apply(views), views[:num]]))
    weight = config.unlabelled_weight * ramp_up(epoch, config.warm_up)
    mixed = mixmatch_loss(logits[:-num], mixing.apply(targets), 2 * num, weight)
    return mixed + F.cross_entropy(logits[-num:], labels)


def released_loss(
    network: Network, theta: Tensor, images: Tensor, golden: Golden, batch: Batch, config: RdcConfig, seed: SeedTree
) -> Tensor:
    """Return the network's loss of one step as far as it reaches the gradient in the authors' code.

    Args:
        network: The network.
        theta: Its weights [P], with a gradient.
        images: Training images in the transformed space [N, C, H, H].
        golden: The golden set.
        batch: Rows of the step: as many unlabelled as labelled ones, or none.
        config: Of ``ssl`` ``released``.
        seed: Determines the blending.
    """
    blended = images[batch.labelled]
    if len(batch.unlabelled):
        share = draw_share(config.alpha, seed)
        blended = share * blended + (1 - share) * images[batch.unlabelled]
    logits = network(theta, blended)
    return F.cross_entropy(logits, golden.labels[batch.labelled]) + prior_penalty(logits.softmax(1))


def _draw_rows(rows: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Return ``num`` of the rows, without replacement if there are enough; none of none."""
    if len(rows) >= num:
        places = torch.randperm(len(rows), generator=generator)[:num]
    else:
        places = torch.randint(max(len(rows), 1), (num if len(rows) else 0,), generator=generator)
    return rows[places.to(rows.device)]
