"""TIAT, Teacher-Inspired Auxiliary Targets: what an expert becomes on a subset whose labels are likely right.

Companion of SGR (:mod:`ddnl_ray.robust.sgr`; Eq. 9 to 13). Images that the prior trusts and on whose weight the experts
agree form the subset; the snapshots of an expert, fine-tuned on it, are second targets of matching.

On the digits (800 images, symmetric noise 0.4, one draw of it, 10 experts of 20 epochs) the variance says little: 86 %
of the 60 % that ``quantile`` takes have the right label, 97 % of those of ``confidence`` (each per class), and 98 % of
the 60 % with the highest prior.

Differs from the original:
    - the thresholds on prior and variance are "fixed" but never given, while its table varies the size of the subset:
      the rule ``quantile`` asks for the same quantile of both, such that the subset has that size, in each observed
      class (asymmetric noise skews the prior). It is found by ranks, which is where a bisection on the quantile ends;
      images that tie in one score are ranked by the other. The rule ``thresholds`` is the text's;
    - the mean over the experts (Eq. 9) is not used afterwards there; here the rule ``confidence`` takes its top share;
    - the variance is that of few mixtures where there are few experts; where it is the same for all images, as with one
      expert, the prior decides;
    - every class keeps ``MIN_PER_CLASS`` images, or all that it has: those that the prior trusts most fill it up;
    - how targets are fine-tuned is not stated: from the snapshots of SGR's experts, with the experts' optimizer and
      augmentation, without weights, for as many updates as they took between the matched epochs, from a fresh velocity;
    - the mean over synthetic images in Eq. 10 and 12 is read as the ordinary matching loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts import ExpertRecipe, TrainingState, train_experts
from ddnl_ray.experts.policy import Lesson
from ddnl_ray.models import Flat
from ddnl_ray.seeds import SeedTree

RULES = ("quantile", "confidence", "thresholds")
MIN_PER_CLASS = 20
GPU_TOGETHER = 8


@dataclass(frozen=True, kw_only=True)
class TiatConfig:
    """Hyper-parameters of TIAT."""

    beta: float = 0.1
    """Weight of the fine-tuned targets in the matching loss; the experts' own have the rest."""
    subset: float = 0.6
    """Size of the reliable subset as a share of the images; the rule ``thresholds`` has none."""
    rule: str = "quantile"
    """Which images are reliable: ``quantile`` (prior and variance alike), ``confidence`` (mean weight) or
    ``thresholds``."""
    per_class: bool = True
    """Whether ``quantile`` and ``confidence`` take their share of each observed class, or of all images at once."""
    min_prior: float | None = None
    """Thresholds: the least prior (delta_sup)."""
    max_variance: float | None = None
    """Thresholds: the largest variance between the experts (sigma_inf)."""
    lr: float | None = None
    """Learning rate of the fine-tuning; None: the experts'."""
    init_from_subset: bool = True
    """Whether the synthetic images start as images of the subset."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("rule", self.rule, RULES)
        if not 0 <= self.beta <= 1:
            raise RequestError(f"beta must lie in [0, 1], but got {self.beta}")
        if not 0 < self.subset <= 1:
            raise RequestError(f"subset must lie in (0, 1], but got {self.subset}")
        if self.lr is not None and not self.lr > 0:
            raise RequestError(f"lr must be above 0 or null, but got {self.lr}")
        for name in ("min_prior", "max_variance"):
            value = getattr(self, name)
            if self.rule != "thresholds" and value is not None:
                raise RequestError(f"{name} is for rule thresholds, but got {value} with rule {self.rule}; drop it")
            if self.rule == "thresholds" and (value is None or not value >= 0):
                raise RequestError(f"rule thresholds needs a {name} of 0 or more, but got {value}; set it")


@dataclass(frozen=True)
class Subset:
    """Some images, with their observed labels (a :class:`ddnl_ray.experts.policy.Policy`).

    Attributes:
        labels: Observed labels, int64 [N].
        rows: The images, int64 [m], ascending.
    """

    labels: Tensor
    rows: Tensor
    consistency: float = 0.0

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        """Return the subset (see :meth:`ddnl_ray.experts.policy.Policy.lesson`)."""
        return Lesson(self.labels, self.rows)


def confidence(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (Eq. 9) and variance (Eq. 11, over all experts, not all but one) of the weights, each [N].

    Args:
        weights: Last weights of every expert [experts, N].
    """
    return weights.mean(0), weights.var(0, correction=0)


def reliable_subset(prior: Tensor, weights: Tensor, labels: Tensor, num_classes: int, config: TiatConfig) -> Tensor:
    """Return the rows of the reliable images, int64 [m], ascending.

    Args:
        prior: Static reliability W_ssft [N].
        weights: Last weights of every expert [experts, N].
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        config: Which rule, and how many.
    """
    mean, variance = confidence(weights)
    classes = [(labels == label).nonzero().squeeze(1) for label in range(num_classes)]
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    if config.rule == "thresholds":
        assert config.min_prior is not None
        assert config.max_variance is not None
        chosen = (prior >= config.min_prior) & (variance <= config.max_variance)
    else:
        everything = torch.arange(len(labels), device=labels.device)
        for rows in classes if config.per_class else [everything]:
            if config.rule == "confidence":
                order = _sorted_by(-mean[rows], -prior[rows])
            else:
                order = _sorted_by_both(-prior[rows], variance[rows])
            chosen[rows[order[: round(config.subset * len(rows))]]] = True
    for rows in classes:
        missing = min(MIN_PER_CLASS, len(rows)) - int(chosen[rows].sum())
        if missing > 0:
            left = rows[~chosen[rows]]
            chosen[left[_sorted_by(-prior[left], variance[left])[:missing]]] = True
    return chosen.nonzero().squeeze(1)


def fine_tune(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    starts: Tensor,
    rows: Tensor,
    num_epochs: int,
    seeds: Sequence[SeedTree],
    at_once: int | None = None,
) -> Tensor:
    """Return what each snapshot of an expert becomes on a subset, float32 [T, P], on the device of ``starts``.

    Each takes as many steps as ``num_epochs`` epochs over all images have.

    Args:
        images: Training images in the transformed space [N, C, H, W].
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        recipe: How the expert was trained; its length is not read.
        starts: Snapshots [T, P].
        rows: The subset, int64 [m], ascending.
        num_epochs: Epochs between the snapshot and the target (M).
        seeds: One per snapshot: determines order and augmentation.
        at_once: Snapshots that are tuned in lock-step, which is the same up to rounding; None: 8 on a GPU, 1 elsewhere.

    Raises:
        RequestError: Training diverged.
        ValueError: There is not one seed per snapshot.
    """
    if len(seeds) != len(starts):
        raise ValueError(f"{len(starts)} snapshots need as many seeds, but got {len(seeds)}")
    recipe, policy = replace(recipe, epochs=num_epochs), Subset(labels, rows)
    size = at_once or (GPU_TOGETHER if images.is_cuda else 1)
    tuned = torch.empty_like(starts)
    for first in range(0, len(starts), size):
        some = slice(first, first + size)
        states = [TrainingState(0, theta, None) for theta in starts[some]]
        found = train_experts(images, labels, num_classes, recipe, seeds[some], states, policy)
        tuned[some] = torch.stack([each.snapshots[-1] for each in found]).to(tuned)
    return tuned


def _sorted_by(first: Tensor, second: Tensor) -> Tensor:
    """Return the order of ascending ``first``, ties by ascending ``second``, then by place, int64 [n]."""
    order = second.argsort(stable=True)
    return order[first[order].argsort(stable=True)]


def _sorted_by_both(first: Tensor, second: Tensor) -> Tensor:
    """Return the order in which images enter when the same quantile of two scores is raised, int64 [n].

    An image is in once the quantile reaches its worse rank.
    """
    ranks = torch.stack([_sorted_by(first, second).argsort(), _sorted_by(second, first).argsort()])
    return _sorted_by(ranks.amax(0), ranks[0])
