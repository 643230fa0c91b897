"""Loss mixture: labels whose held-out loss belongs to the larger of two kinds.

The split of DivideMix (Li et al., ICLR 2020) on its own: two Gaussians on the losses of the observed labels
(:mod:`ddnl_ray.lnl.mixture`). The losses are held out, so that no network has to be stopped before it memorises.

Differs from the original:
    - held-out losses of a network per fold (there those of a network on its own training set after a warm-up);
    - losses are cut at -log 1e-4 before they are scaled to [0, 1], for a single outlier would rescale all;
    - the posterior is made monotone (:mod:`ddnl_ray.lnl.mixture`), and 0.5 is enough to be believed;
    - class probabilities are the observed label in the measure of the posterior and the prediction for the rest, as in
      DivideMix's refinement, without sharpening. The rate is 1 less the mean posterior, and the transition matrix takes
      these probabilities for the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional as F

from ddnl_ray.denoise.base import Cleaned, Problem, settle, transition_of
from ddnl_ray.denoise.folds import FoldsCleaner, FoldsCleanerConfig
from ddnl_ray.lnl.heldout import FoldsState
from ddnl_ray.lnl.mixture import clean_posterior

SMALLEST_PROBABILITY = 1e-4
BELIEVED = 0.5


@dataclass(frozen=True, kw_only=True)
class LossmixConfig(FoldsCleanerConfig):
    """Settings of the loss mixture."""

    relabel: str = "noisy_only"
    """``noisy_only``: labels that are not believed are replaced; ``all`` and ``drop`` as elsewhere."""


class Lossmix(FoldsCleaner):
    """See the module."""

    name: ClassVar[str] = "lossmix"

    def export(self, state: FoldsState, problem: Problem) -> Cleaned:
        """Return what the held-out losses say of the labels."""
        observed = problem.labels
        predicted = self.evidence(state, problem).probabilities.to(problem.device)
        own = predicted.gather(1, observed[:, None]).squeeze(1)
        posterior = clean_posterior(-own.clamp_min(SMALLEST_PROBABILITY).log())
        given = F.one_hot(observed, problem.num_classes).to(predicted)
        soft = posterior[:, None] * given + (1 - posterior[:, None]) * predicted
        return settle(
            self.config,
            observed,
            soft,
            posterior,
            posterior > BELIEVED,
            float(1 - posterior.mean()),
            transition_of(soft, observed),
        )
