"""Supervised contrastive terms on synthetic images, and golden MixUp contrast.

Part of RDC (Kim and Song, ICCV 2025, Eqs. 4 and 11 to 14; authors' code: DISL-Lab/RDC-ICCV2025). Synthetic images are
mixed with golden ones. A mixed image is drawn to the synthetic images of its source's class and to the golden images of
its partner's class; a third term separates the synthetic images themselves.

Differs from the original:
    - the text sums over anchors, which would make the term's weight depend on their number. The mean over the anchors
      that have a positive is taken;
    - :func:`golden_mixup_contrast` is the text's: all classes together, and mixed images compared with the synthetic
      and the golden set. :func:`released_contrast` is the authors' code, another method: one class at a time, each
      set compared with itself, so that two of its three terms have no negatives, and the mean over all anchors;
    - the text does not say which images are stopped: golden embeddings are, the synthetic candidates are not;
    - the formulas for soft labels are in a supplement that could not be had: two samples are positives of each other
      by the inner product of their class probabilities, without gradient; with one-hot ones that is the hard form;
    - golden partners are drawn class by class, so that no class starves; the code draws them from the whole set;
    - how many images take part is bounded (:func:`plan_views`); the code, class by class, uses all of them 4 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.errors import RequestError, require_known

TEMPERATURE = 0.07
NORM_FLOOR = 1e-12
WEIGHT_FLOOR = 1e-6
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class GoldenContrast:
    """The three terms of golden MixUp contrast, each a scalar with a gradient.

    Attributes:
        with_syn: Mixed images against synthetic ones.
        with_golden: Mixed images against golden ones.
        syn: Synthetic images against each other.
        mixup: Share of the synthetic image in a mixed one.
    """

    with_syn: Tensor
    with_golden: Tensor
    syn: Tensor
    mixup: float

    @property
    def loss(self) -> Tensor:
        """Their weighted sum (Eq. 14)."""
        return self.mixup * self.with_syn + (1 - self.mixup) * self.with_golden + self.syn


@dataclass(frozen=True)
class Plan:
    """Which synthetic images take part in a contrast, and how often each is augmented.

    Attributes:
        rows: The images, int64 [m], ascending.
        num_views: Augmentations of each, so that there are m times as many anchors.
    """

    rows: Tensor
    num_views: int


def supcon(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor,
    exclude: Tensor | None = None,
    temperature: float = TEMPERATURE,
    reduction: str = "mean",
) -> Tensor:
    """Return the supervised contrastive loss of anchors against candidates (Eq. 4), a scalar.

    An anchor's loss is the mean, weighted by ``positives``, of minus the logarithm of the softmax of cosine over
    temperature, taken over the candidates that are not excluded. Computed in float32 at least.

    Args:
        anchors: Embeddings [A, D] of any length.
        candidates: Embeddings [B, D].
        positives: How much each candidate is a positive of each anchor [A, B], bool or 0 and more; no gradient.
        exclude: Candidates that an anchor does not see, bool [A, B]; None: it sees all.
        temperature: Divides the cosines.
        reduction: ``mean`` or ``sum`` over the anchors that have a positive. Without any the loss is 0, with a graph.

    Raises:
        RequestError: The reduction is unknown.
    """
    require_known("reduction", reduction, REDUCTIONS)
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    left, right = (F.normalize(each.to(dtype), dim=1, eps=NORM_FLOOR) for each in (anchors, candidates))
    weights = positives.detach().to(dtype)
    hidden = torch.zeros_like(weights, dtype=torch.bool) if exclude is None else exclude
    weights = weights.masked_fill(hidden, 0)
    logits = left @ right.T / temperature
    top = logits.detach().masked_fill(hidden, -torch.inf).amax(1, keepdim=True)
    shifted = (logits - top).masked_fill(hidden, 0)
    # At least 1, but for an anchor that sees nothing.
    total = (shifted.exp() * ~hidden).sum(1, keepdim=True).clamp_min(WEIGHT_FLOOR)
    mass = weights.sum(1)
    losses = -(weights * (shifted - total.log())).sum(1) / mass.clamp_min(WEIGHT_FLOOR)
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (mass > 0).sum().clamp_min(1)


def class_pairs(labels_a: Tensor, labels_b: Tensor) -> Tensor:
    """Return how much samples are positives of each other by class [A, B], without gradient.

    Args:
        labels_a: Classes, int64 [A], or class probabilities [A, K].
        labels_b: The same kind, of B samples.

    Returns:
        For classes bool, whether they agree; for probabilities their inner products.

    Raises:
        ValueError: One is classes, the other probabilities.
    """
    if labels_a.ndim != labels_b.ndim:
        raise ValueError("both must be classes [N], or both class probabilities [N, K]; make the classes one-hot")
    if labels_a.ndim == 1:
        return labels_a[:, None] == labels_b[None, :]
    return labels_a.detach() @ labels_b.detach().T


def contrast_within(
    embeddings: Tensor, labels: Tensor, temperature: float = TEMPERATURE, reduction: str = "mean"
) -> Tensor:
    """Return the supervised contrastive loss of a set against itself, each sample excluded from its own candidates.

    Args:
        embeddings: [A, D].
        labels: Classes, int64 [A], or class probabilities [A, K].
        temperature: Divides the cosines.
        reduction: See :func:`supcon`.
    """
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    return supcon(embeddings, embeddings, class_pairs(labels, labels), itself, temperature, reduction)


def golden_mixup_contrast(
    syn: Tensor,
    mixed: Tensor,
    golden: Tensor,
    labels_syn: Tensor,
    labels_golden: Tensor,
    source: Tensor,
    partner: Tensor,
    mixup: float = 0.75,
    temperature: float = TEMPERATURE,
) -> GoldenContrast:
    """Return the three terms of the text over all classes together (Eqs. 12 to 14).

    A mixed image's own source and own partner are among its candidates, and positives of it.

    Args:
        syn: Embeddings of augmented synthetic images [S, D].
        mixed: Embeddings of mixed images [A, D].
        golden: Embeddings of golden images [G, D]; no gradient reaches them.
        labels_syn: Classes, int64 [S], or class probabilities [S, K].
        labels_golden: The same kind for the golden images.
        source: Row of ``syn`` that each mixed image was made of, int64 [A].
        partner: Row of ``golden`` that each mixed image was made of, int64 [A].
        mixup: Share of the synthetic image in a mixed one (lambda).
        temperature: Divides the cosines.
    """
    of_source = class_pairs(labels_syn[source], labels_syn)
    of_partner = class_pairs(labels_golden[partner], labels_golden)
    return GoldenContrast(
        with_syn=supcon(mixed, syn, of_source, temperature=temperature),
        with_golden=supcon(mixed, golden.detach(), of_partner, temperature=temperature),
        syn=contrast_within(syn, labels_syn, temperature),
        mixup=mixup,
    )


def released_contrast(
    syn: Tensor, mixed: Tensor, labels_golden: Tensor, mixup: float = 0.75, temperature: float = TEMPERATURE
) -> GoldenContrast:
    """Return the three terms of the authors' code for the synthetic images of one class.

    Args:
        syn: Embeddings of augmented synthetic images of the class [S, D].
        mixed: Embeddings of mixed images whose sources are of the class [A, D].
        labels_golden: Golden label of each mixed image's partner, int64 [A].
        mixup: Share of the synthetic image in a mixed one (lambda).
        temperature: Divides the cosines.
    """

    def mean_of_all(embeddings: Tensor, labels: Tensor) -> Tensor:
        return contrast_within(embeddings, labels, temperature, "sum") / max(len(embeddings), 1)

    return GoldenContrast(
        with_syn=mean_of_all(mixed, torch.zeros_like(labels_golden)),
        with_golden=mean_of_all(mixed, labels_golden),
        syn=mean_of_all(syn, labels_golden.new_zeros(len(syn))),
        mixup=mixup,
    )


def draw_partners(pools: Sequence[Tensor], num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw golden images, each by a class that has some and then by a row of it, both uniform.

    Args:
        pools: Rows of every golden class, int64 (:func:`ddnl_ray.robust.golden.pools` with ``minimum`` 0).
        num: How many, with replacement.
        generator: Source of randomness, on the CPU.

    Returns:
        Rows and their classes, int64 [num], on the device of the pools.

    Raises:
        RequestError: All pools are empty.
    """
    sizes = torch.tensor([len(rows) for rows in pools])
    classes = sizes.nonzero().flatten()
    if not len(classes):
        raise RequestError("the golden set is empty, so there is nothing to mix with; lengthen warm_up")
    drawn = classes[torch.randint(len(classes), (num,), generator=generator)]
    place = (torch.rand(num, generator=generator, dtype=torch.float64) * sizes[drawn]).long()
    device = pools[0].device
    return torch.cat(list(pools))[((sizes.cumsum(0) - sizes)[drawn] + place).to(device)], drawn.to(device)


def plan_views(
    labels: Tensor,
    num_classes: int,
    generator: torch.Generator,
    max_images: int = 1024,
    max_anchors: int = 4096,
    max_views: int = 4,
) -> Plan:
    """Choose the synthetic images of a contrast, equally many of every class, and how often each is augmented.

    Args:
        labels: Class of every synthetic image, int64 [n].
        num_classes: Number of classes, K.
        generator: Source of randomness, on the CPU.
        max_images: Most images in all, shared out equally; a class takes part with one at least, or all that it has.
        max_anchors: Most augmented images in all; each image is augmented once at least.
        max_views: Most augmentations of an image.
    """
    num = len(labels)
    own = labels.cpu()
    counts = torch.bincount(own, minlength=num_classes)
    share = max(max_images // num_classes, 1)
    shuffled = torch.randperm(num, generator=generator)
    by_class = shuffled[own[shuffled].argsort(stable=True)]
    starts = (counts.cumsum(0) - counts)[own[by_class]]
    rows = by_class[torch.arange(num) - starts < share].sort().values
    return Plan(rows.to(labels.device), min(max_views, max(max_anchors // max(len(rows), 1), 1)))
