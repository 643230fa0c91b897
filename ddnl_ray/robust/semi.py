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
    - the augmentation shifts by up to an eighth of the size, 4 pixels at 32, and vacated pixels are 0 in the
      transformed space, as in :mod:`ddnl_ray.data.dsa`;
    - where a part has fewer images than its batch they are drawn with replacement (the authors' code stops); where
      nothing is unlabelled the part is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Dsa, DsaDraw
from ddnl_ray.distill.student import Network
from ddnl_ray.errors import RequestError
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.seeds import SeedTree

RAMP_EPOCHS = 16
SHIFT_SHARE = 8
PROBABILITY_FLOOR = 1e-8
_WEAK = Dsa()


@dataclass(frozen=True)
class Batch:
    """Rows of one step.

    Attributes:
        labelled: Rows in the golden set, int64 [b].
        unlabelled: Rows outside, int64 [u]; none where the golden set is everything.
    """

    labelled: Tensor
    unlabelled: Tensor


@dataclass(frozen=True)
class Mixing:
    """One draw of MixUp for a batch.

    Attributes:
        share: Weight of each row, in [0.5, 1]; its partner has the rest.
        order: Partner of each row, int64 [n], a permutation.
    """

    share: float
    order: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Return mixed images or targets [n, ...]."""
        return self.share * values + (1 - self.share) * values[self.order]


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


def flip_crop(images: Tensor, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Return images [N, C, H, H] shifted by up to H // 8 pixels each way, half of them mirrored.

    Args:
        images: Floating point.
        generator: Source of randomness, on the CPU.
        flip: Whether to mirror; not for digits.
    """
    reach = images.shape[-1] // SHIFT_SHARE
    uniform = torch.rand(3, len(images), generator=generator, dtype=torch.float64)
    unused = torch.zeros_like(uniform[0])
    shifts = (uniform[:2] * (2 * reach + 1)).floor() - reach
    if flip:
        mirrored = torch.stack([(uniform[2] < 0.5).double(), unused, unused])
        images = _WEAK.apply(images, DsaDraw("flip", mirrored.float().to(images.device)))
    return _WEAK.apply(images, DsaDraw("crop", torch.cat([shifts, unused[None]]).float().to(images.device)))


def two_views(images: Tensor, batch: Batch, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Return two augmentations of a batch [2b + 2u, C, H, H]: labelled twice, then unlabelled twice.

    Args:
        images: Training images in the transformed space [N, C, H, H].
        batch: Rows of the step.
        generator: Source of randomness, on the CPU.
        flip: See :func:`flip_crop`.
    """
    rows = torch.cat([batch.labelled, batch.labelled, batch.unlabelled, batch.unlabelled])
    return flip_crop(images[rows], generator, flip)


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Return probabilities [n, K] raised to 1 / temperature, rows summing to 1."""
    powers = probabilities.pow(1 / temperature)
    return powers / powers.sum(1, keepdim=True)


@torch.no_grad()
def targets_of(
    network: Network, theta: Tensor, views: Tensor, labels: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Return the sharpened target of every view [2b + 2u, K], without gradient; both views of an image share it.

    The target of a labelled image is its label with its weight and the mean prediction over its views with the rest;
    that of an unlabelled image is the mean prediction.

    Args:
        network: The network.
        theta: Its weights [P].
        views: From :func:`two_views` [2b + 2u, C, H, H].
        labels: Golden labels, int64 [b].
        weights: Confidence in them [b].
        temperature: Of :func:`sharpen`.
    """
    known = 2 * len(labels)
    predicted = network(theta, views).softmax(1)
    labelled, guessed = (part.unflatten(0, (2, len(part) // 2)).mean(0) for part in predicted.tensor_split([known]))
    sure = weights.to(predicted)[:, None]
    refined = sure * F.one_hot(labels, predicted.shape[1]).to(predicted) + (1 - sure) * labelled
    return torch.cat([sharpen(each, temperature).repeat(2, 1) for each in (refined, guessed)])


def draw_share(alpha: float, seed: SeedTree) -> float:
    """Draw MixUp's weight: the larger side of Beta(alpha, alpha), one for a batch."""
    share = float(seed.numpy().beta(alpha, alpha))
    return max(share, 1 - share)


def draw_mixing(num: int, alpha: float, seed: SeedTree, device: torch.device | str = "cpu") -> Mixing:
    """Draw MixUp for a batch of ``num`` rows."""
    order = torch.randperm(num, generator=seed.child("order").torch())
    return Mixing(draw_share(alpha, seed.child("share")), order.to(device))


def prior_penalty(probabilities: Tensor) -> Tensor:
    """Return the divergence of the mean prediction from the uniform one: KL(uniform, mean) in nats, a scalar.

    Args:
        probabilities: [n, K].
    """
    mean = probabilities.mean(0).clamp_min(PROBABILITY_FLOOR)
    return -(mean * mean.numel()).log().mean()


def mixmatch_loss(logits: Tensor, targets: Tensor, num_labelled: int, unlabelled_weight: float) -> Tensor:
    """Return DivideMix's loss of mixed rows, a scalar.

    Cross-entropy with soft targets on the labelled rows, the mean squared error of probabilities on the others, and the
    prior penalty on all.

    Args:
        logits: [n, K].
        targets: Mixed targets [n, K].
        num_labelled: The rows before this one are labelled.
        unlabelled_weight: Weight of the squared error.
    """
    loss = F.cross_entropy(logits[:num_labelled], targets[:num_labelled]) + prior_penalty(logits.softmax(1))
    if num_labelled < len(logits):
        error = logits[num_labelled:].softmax(1) - targets[num_labelled:]
        loss = loss + unlabelled_weight * error.square().mean()
    return loss


def ramp_up(epoch: float, warm_up: int) -> float:
    """Return the share of the unlabelled weight: from 0 at the end of the warm-up to 1 after 16 epochs."""
    return min(max((epoch - warm_up) / RAMP_EPOCHS, 0.0), 1.0)


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
