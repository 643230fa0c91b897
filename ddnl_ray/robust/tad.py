"""TAD: Trust-Aware Diversion for Data-Effective Distillation (Wu et al. 2025, arXiv 2502.05027; no public code).

Two loops choose what experts learn from. The outer one (:mod:`ddnl_ray.lnl.mixture`) splits the samples by their
losses into trusted and untrusted ones; the inner one (:mod:`ddnl_ray.robust.reliability`) gives untrusted samples the
label of the reliable trusted ones that they resemble. The experts are trained on both, with a consistency term
(Eq. 6), and any trajectory-matching method distils them.

Differs from the original. It has no code, and its text leaves much open; further points stand in the two modules above
and in :mod:`ddnl_ray.robust.probes`:
    - when the split is made again is not said. ``rounds`` (default): probe experts split, their successors are trained
      on the outcome and split again, and the final experts are trained from scratch on the last outcome, so that one
      objective holds along a trajectory. ``in_training``: every expert splits for itself before every epoch once it is
      warm, by its weights at that time; each split is a round of its own;
    - losses are taken against the observed label, never a new one, and every split starts anew: what was relabelled can
      be trusted again with its own label. No option;
    - ``log 0`` in Eq. 6 is ``log_zero``. With one label per sample the term is ``|log_zero| (1 - p_y)``, so only the
      product of weight and constant counts; it is averaged over a batch, as the cross-entropy is. Experts alone have
      it, not the student nor the evaluation. No option;
    - the paper relabels and speaks of gradual expansion, but gives no rule for which new labels are used: those that
      lead most, a larger share each round (``accept``);
    - the introduction sieves trusted samples by similarity, the method section does not (``sieve``, off);
    - features are the caller's: a self-supervised ResNet on images that are not whitened, where the paper is followed.
      First images of the distillation should come from the chosen rows, with their labels; the paper does not say;
    - an epoch takes as many steps as one over all samples, so that the epochs of all experts mean the same;
    - class-mean thresholds mark some samples untrusted even where all labels are right. That is kept; the inner loop
      has to bring them back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.policy import Lesson
from ddnl_ray.lnl.mixture import RULES, class_thresholds, clean_posterior, trusted_mask
from ddnl_ray.models import Flat
from ddnl_ray.robust.probes import sample_losses
from ddnl_ray.robust.reliability import (
    READINGS,
    Reference,
    accepted_mask,
    labels_and_margins,
    most_reliable,
    pseudo_scores,
    reliabilities,
)
from ddnl_ray.robust.rounds import Curation, Round

MODES = ("rounds", "in_training")
LOOPS = ("both", "outer", "none")
FEATURES = ("simclr", "pixels")
ACCEPT = ("schedule", "all")


@dataclass(frozen=True, kw_only=True)
class TadConfig:
    """Hyper-parameters of TAD; the defaults are those for CIFAR-10."""

    mode: str = "rounds"
    """When samples are split: in ``rounds`` before the experts are trained, or ``in_training``."""
    loops: str = "both"
    """Which loops run: ``both``; ``outer`` (untrusted samples are left out, none is relabelled); ``none`` (all samples
    with their observed labels: the consistency term alone)."""
    rounds: int = 3
    """How often probes are trained and the samples split (``rounds``)."""
    probes: int = 5
    """Probe experts of a round."""
    probe_epochs: int = 20
    """Epochs of a probe (``rounds``; ``in_training`` needs the early ones alone)."""
    loss_epochs: int = 3
    """The last epochs of the probes whose losses are averaged (``rounds``)."""
    warmup_epochs: int = 5
    """Epochs on all samples before an expert splits for the first time (``in_training``)."""
    consistency_weight: float = 0.1
    """Weight of the consistency term (lambda); 0 turns it off."""
    log_zero: float = -4.0
    """The value of log 0 in the consistency term, below 0."""
    threshold_rule: str = "class_mean"
    """Threshold on the confidence: ``class_mean``, ``global_mean`` or ``fixed`` (0.5)."""
    minimum_trusted: int = 20
    """Trusted samples that a class has at least, if it has as many."""
    features: str = "simclr"
    """What images are compared by: ``simclr`` (a self-supervised extractor) or ``pixels`` (minus their mean)."""
    anchors_per_class: int = 50
    """Synthetic images per class that stand for it; at most the size of the smallest class."""
    anchor_epochs: int = 4
    """The last epoch of the probes that anchors match."""
    anchor_iterations: int = 500
    """Outer updates of the anchors."""
    refresh_anchors: bool = False
    """Whether each round distils anchors of its own, on what the round before chose (``rounds``)."""
    pca_dim: int | None = 64
    """Dimensions in which distances are measured; None: those of the features."""
    shrink_variance: float = 1.0
    """Share of the mean variance that is added to the variances of a class's anchors."""
    shrink_covariance: float = 0.0
    """Share of the mean covariance that is added to the covariances."""
    reliability: str = "proximity"
    """What makes a sample reliable: ``proximity`` to its class's anchors, or ``distance`` (the formula as printed)."""
    top_k: int = 50
    """The most reliable samples of every class, which vote."""
    sieve: bool = False
    """Whether a trusted sample that the reliable ones of another class outvote becomes untrusted."""
    accept: str = "schedule"
    """Which new labels are used: a share that grows with the rounds (``schedule``), or ``all``."""
    accept_shares: tuple[float, ...] = (0.5, 0.75, 1.0)
    """Share of the untrusted samples whose new labels are used in each round; the last one holds on."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("mode", self.mode, MODES)
        require_known("loops", self.loops, LOOPS)
        require_known("features", self.features, FEATURES)
        require_known("threshold_rule", self.threshold_rule, RULES)
        require_known("reliability", self.reliability, READINGS)
        require_known("accept", self.accept, ACCEPT)
        counts = ("rounds", "probes", "probe_epochs", "loss_epochs", "anchors_per_class", "anchor_epochs", "top_k")
        for name in (*counts, "anchor_iterations", "pca_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} must be at least 1, but got {value}")
        not_negative = (
            "warmup_epochs",
            "minimum_trusted",
            "consistency_weight",
            "shrink_variance",
            "shrink_covariance",
        )
        for name in not_negative:
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if not self.log_zero < 0:
            raise RequestError(f"log_zero must be below 0, but got {self.log_zero}")
        for name in ("loss_epochs", "anchor_epochs"):
            if getattr(self, name) > self.probe_epochs:
                raise RequestError(
                    f"{name} must be at most probe_epochs, but got {getattr(self, name)} with {self.probe_epochs}"
                )
        if not self.accept_shares or not all(0 <= share <= 1 for share in self.accept_shares):
            raise RequestError(
                f"accept_shares must be one or more numbers in [0, 1], but got {list(self.accept_shares)}"
            )

    @property
    def outer(self) -> bool:
        """Whether samples are split by their loss."""
        return self.loops != "none"

    @property
    def inner(self) -> bool:
        """Whether untrusted samples get new labels."""
        return self.loops == "both"

    @property
    def consistency(self) -> float:
        """Weight of the mean of ``1 - p_y`` beside the cross-entropy."""
        return self.consistency_weight * abs(self.log_zero)

    def accept_share(self, number: int) -> float:
        """Return the share of the untrusted samples whose new labels are used in a round, counted from 1."""
        if self.accept == "all":
            return 1.0
        return self.accept_shares[min(number, len(self.accept_shares)) - 1]


def split_and_relabel(
    losses: Tensor, labels: Tensor, num_classes: int, reference: Reference | None, config: TadConfig, number: int
) -> Round:
    """Split samples by their losses and give the untrusted ones new labels: one round.

    Args:
        losses: Loss of every sample against its observed label [N].
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        reference: Features of the samples and statistics of the anchors; the inner loop needs it.
        config: Thresholds, reliability and acceptance.
        number: Which round, from 1.

    Raises:
        RequestError: A loss is not finite.
    """
    posterior = clean_posterior(losses)
    thresholds = class_thresholds(posterior, labels, num_classes, config.threshold_rule)
    trusted = trusted_mask(posterior, thresholds, losses, labels, config.minimum_trusted)
    reliability, margins = torch.zeros_like(posterior), torch.zeros_like(losses)
    accepted, new = torch.zeros_like(trusted), labels.clone()
    if config.inner:
        assert reference is not None
        features = reference.features
        distances = torch.zeros_like(posterior)
        distances[trusted] = reference.statistics.distances(features[trusted], labels[trusted])
        reliability = reliabilities(distances, labels, trusted, config.reliability)
        top = most_reliable(reliability, labels, trusted, num_classes, config.top_k)
        if config.sieve:
            trusted = trusted & ~_outvoted(labels, trusted, features, reliability, top)
            reliability = reliability * trusted
        scores = pseudo_scores(features[~trusted], features, reliability, top)
        new[~trusted], lead = labels_and_margins(scores)
        margins[~trusted] = lead.to(margins)
        accepted[~trusted] = accepted_mask(lead, config.accept_share(number))
    return Round(losses, posterior, thresholds, trusted, reliability, new, margins, accepted)


def _outvoted(labels: Tensor, trusted: Tensor, features: Tensor, reliability: Tensor, top: list[Tensor]) -> Tensor:
    """Return the trusted samples, the voters apart, whom the voters give another label than the observed, bool [N]."""
    asked = trusted.clone()
    asked[torch.cat(top)] = False
    found, lead = labels_and_margins(pseudo_scores(features[asked], features, reliability, top))
    outvoted = torch.zeros_like(trusted)
    outvoted[asked] = (found != labels[asked]) & (lead >= 0)
    return outvoted


@dataclass(frozen=True)
class TadPolicy:
    """Experts learn from one choice of samples and labels, all along (a :class:`~ddnl_ray.experts.policy.Policy`).

    Attributes:
        labels: The label of every image, int64 [N].
        rows: The images that are trained on, int64, ascending.
        consistency: Weight of the mean of ``1 - p_y``.
    """

    labels: Tensor
    rows: Tensor
    consistency: float

    @classmethod
    def of(cls, curation: Curation, config: TadConfig) -> TadPolicy:
        """Return the policy that follows from a curation."""
        return cls(curation.labels, curation.rows, config.consistency)

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        """Return the chosen images with their labels."""
        return Lesson(self.labels, self.rows)


@dataclass(frozen=True)
class TadInTraining:
    """Every expert splits the samples for itself, before each epoch (a :class:`~ddnl_ray.experts.policy.Policy`).

    Attributes:
        images: Training images in the transformed space [N, C, H, W].
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        reference: Features of the images and statistics of the anchors; the inner loop needs it.
        config: Hyper-parameters.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    reference: Reference | None
    config: TadConfig

    @property
    def consistency(self) -> float:
        """Weight of the mean of ``1 - p_y``."""
        return self.config.consistency

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        """Return all images while the expert warms up, then what its weights make of them.

        Raises:
            RequestError: A loss is not finite.
        """
        if not self.config.outer or epoch < self.config.warmup_epochs:
            return Lesson(self.labels)
        losses = sample_losses(network, [theta], self.images, self.labels)
        number = epoch - self.config.warmup_epochs + 1
        found = split_and_relabel(losses, self.labels, self.num_classes, self.reference, self.config, number)
        return Lesson(found.pseudo_labels, found.rows)
