"""SGR, Selective Guidance Reweighting: experts learn more from images whose labels look right.

"Robust Trajectory Distillation: Hybrid Reweighting Meets Teacher-Inspired Targets" (anonymous ICLR submission, without
code). The weight of an image is a mix of a prior that never changes, second-split forgetting
(:mod:`ddnl_ray.robust.forgetting`), and of what the expert itself says of the image's neighbours
(:mod:`ddnl_ray.lnl.neighbours`). The share of the latter grows in a warm-up, up to a limit that differs between the
experts: ``W_t = (1 - alpha_t) W_ssft + alpha_t W_knn`` (Eq. 7 and 8).

Differs from the original:
    - what :mod:`ddnl_ray.robust.forgetting` and :mod:`ddnl_ray.lnl.neighbours` list;
    - expert p of P has the limit ``alpha_max (p - 1) / P``, with a scale ``alpha_max`` that is 1 as published; the
      first expert has 0, the last stays below 1 (the text says that they span [0, 1]);
    - lambda and K are not given: 0.5 and 20 (K as in the neighbourhood estimate that SGR builds on);
    - the epoch ``t`` counts the epochs that are done, so the first is learnt with the prior alone;
    - neighbours are looked up before every epoch, in float32 whatever the experts compute in;
    - the weights are divided by their mean over all images (not stated): the learning rate keeps its meaning, and so
      does the length of a trajectory. The mean loss of a batch is divided by its size;
    - GSAM takes the weighted loss in both of its gradients;
    - the weights take no part in the matching of the synthetic set ("or computing guidance": only experts are
      specified).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.policy import Lesson
from ddnl_ray.experts.precision import products
from ddnl_ray.lnl.neighbours import neighbour_consistency
from ddnl_ray.models import Flat
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.robust.forgetting import ForgettingConfig

SAMPLING = ("diverse", "fixed")


@dataclass(frozen=True, kw_only=True)
class SgrConfig(ForgettingConfig):
    """Hyper-parameters of SGR, and of the prior that it starts from."""

    prior_weight: float = 0.5
    """Share of the learning times in the prior (lambda); the rest is that of the forgetting times."""
    floor: float = 0.05
    """The least prior of an image."""
    neighbours: int = 20
    """Neighbours of an image (K)."""
    warmup: float = 0.2
    """Share of the epochs after which the neighbours have their full say."""
    alpha_max: float = 1.0
    """Scale of the experts' limits."""
    sampling: str = "diverse"
    """Limit of expert p of P: ``diverse``, ``alpha_max (p - 1) / P``, or ``fixed``, ``alpha_max`` for all."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("prior_weight", "floor", "warmup", "alpha_max"):
            if not 0 <= getattr(self, name) <= 1:
                raise RequestError(f"{name} must lie in [0, 1], but got {getattr(self, name)}")
        require_known("sampling", self.sampling, SAMPLING)
        if self.neighbours < 1:
            raise RequestError(f"neighbours must be at least 1, but got {self.neighbours}")


@dataclass(frozen=True)
class Sgr:
    """What the experts of SGR learn from (a :class:`ddnl_ray.experts.policy.Policy`).

    Attributes:
        config: Hyper-parameters.
        images: Training images in the transformed space [N, C, H, W].
        labels: Observed labels, int64 [N].
        prior: Static reliability W_ssft, in [0, 1], [N], on the device of the images.
        num_experts: How many experts share the ladder of limits (P).
        warmup_epochs: Epochs after which an expert is at its limit; 0: from the start.
    """

    config: SgrConfig
    images: Tensor
    labels: Tensor
    prior: Tensor
    num_experts: int
    warmup_epochs: float
    consistency: float = 0.0

    def alpha(self, expert: int, epoch: int) -> float:
        """Return the share of the neighbours in the weights, in [0, 1) (Eq. 8).

        Args:
            expert: Index of the expert, from 0.
            epoch: Epochs that are done.
        """
        progress = min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs > 0 else 1.0
        limit = expert / self.num_experts if self.config.sampling == "diverse" else 1.0
        return progress * self.config.alpha_max * limit

    def weights(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Tensor:
        """Return the reliability of every image, in [0, 1], [N] (Eq. 7).

        After the last epoch, it is what the expert contributes to the confidence (Eq. 9).

        Args:
            expert: Index of the expert, from 0.
            epoch: Epochs that are done.
            network: The network.
            theta: The expert's weights now [P].

        Raises:
            RequestError: There are not as many images as neighbours.
        """
        alpha = self.alpha(expert, epoch)
        if alpha == 0:
            return self.prior.clone()
        with products("float32", self.images.device):
            features, probabilities = self._look(network, theta)
            agreement = neighbour_consistency(features, probabilities, self.labels, self.config.neighbours)
        return self.prior + alpha * (agreement - self.prior)

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        """Return all images with weights of mean 1 (see :meth:`ddnl_ray.experts.policy.Policy.lesson`)."""
        weights = self.weights(expert, epoch, network, theta)
        return Lesson(self.labels, weights=weights / weights.mean())

    @torch.no_grad()
    def _look(self, network: Flat, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, d] and class probabilities [N, classes] of all images, without augmentation."""
        found = outputs_of(network, theta, self.images)
        return found.features, found.logits.softmax(1)
