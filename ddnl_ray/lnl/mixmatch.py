"""The pieces of MixMatch as DivideMix uses it: views, guessed and refined targets, mixing, and the loss.

DivideMix (Li, Socher and Hoi, ICLR 2020; authors' code: LiJunnan1992/DivideMix). Labels with their weights are refined
by the network's own prediction; an image without a label gets the mean prediction of one network, or of two.

Differs from the original:
    - the augmentation shifts by up to an eighth of the size, 4 pixels at 32, and vacated pixels are 0 in the
      transformed space, as in :mod:`ddnl_ray.data.dsa`; mirroring can be left out, as digits need it;
    - the networks have no batch normalisation, so that passes that make targets change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Dsa, DsaDraw
from ddnl_ray.seeds import SeedTree

Network = Callable[[Tensor, Tensor], Tensor]
"""Maps weights [P] and images [N, C, H, W] to logits [N, K]."""

RAMP_EPOCHS = 16
SHIFT_SHARE = 8
PROBABILITY_FLOOR = 1e-8
_WEAK = Dsa()


@dataclass(frozen=True)
class Batch:
    """Rows of one step.

    Attributes:
        labelled: Rows whose labels are used, int64 [b].
        unlabelled: Rows whose labels are not, int64 [u]; there may be none.
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
    network: Network,
    theta: Tensor,
    views: Tensor,
    labels: Tensor,
    weights: Tensor,
    temperature: float,
    other: Tensor | None = None,
) -> Tensor:
    """Return the sharpened target of every view [2b + 2u, K], without gradient; both views of an image share it.

    The target of a labelled image is its label with its weight and the mean prediction over its views with the rest
    (co-refinement); that of an unlabelled image is the mean prediction, over both networks where there are two
    (co-guessing).

    Args:
        network: The network.
        theta: Its weights [P].
        views: From :func:`two_views` [2b + 2u, C, H, H].
        labels: Labels of the labelled images, int64 [b].
        weights: Confidence in them [b].
        temperature: Of :func:`sharpen`.
        other: The weights of the other network [P], or None.
    """
    known = 2 * len(labels)
    predicted = network(theta, views).softmax(1)
    labelled, guessed = (part.unflatten(0, (2, len(part) // 2)).mean(0) for part in predicted.tensor_split([known]))
    if other is not None and known < len(views):
        second = network(other, views[known:]).softmax(1)
        guessed = (guessed + second.unflatten(0, (2, len(second) // 2)).mean(0)) / 2
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
