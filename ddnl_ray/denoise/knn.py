"""KNN label consistency: labels that the plurality of their nearest neighbours outvotes.

Bahri, Jiang and Gupta, "Deep k-NN for Noisy Labels", ICML 2020: an image is left out where most of its neighbours, by
their given labels, are of another class. Neighbours are looked for in features that were made without labels, among all
images, or else in the penultimate layer of networks that have not seen the labels, fold by fold.

Differs from the original:
    - features are those of an extractor or the input of the linear layer (there the logits of a network trained on the
      same labels), neighbours the nearest by cosine (there by Euclidean distance), and an image is not its own;
    - the number of neighbours is at most half of the images per class, so that a class can fill a neighbourhood;
    - class probabilities are shares of the votes; a tie with the observed label is none, and the label stays. The rate
      is the share that is outvoted, and the transition matrix takes the most frequent class for the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise.base import Cleaned, Problem, settle, transition_of
from ddnl_ray.denoise.folds import FoldsCleaner, FoldsCleanerConfig
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.lnl.heldout import FoldsState, neighbours_for
from ddnl_ray.lnl.neighbours import nearest_neighbours
from ddnl_ray.seeds import SeedTree

SOURCES = ("given", "heldout")


@dataclass(frozen=True, kw_only=True)
class KnnConfig(FoldsCleanerConfig):
    """Settings of KNN label consistency."""

    neighbours: int = 50
    """The most neighbours that vote (k)."""
    source: str = "given"
    """Features: ``given`` (:attr:`ddnl_ray.denoise.Problem.features`) or ``heldout``, which alone trains networks."""
    relabel: str = "noisy_only"
    """``noisy_only``: outvoted labels are replaced by the winner; ``drop``: left out, as in the paper."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        require_known("source of features", self.source, SOURCES)
        if self.neighbours < 1:
            raise RequestError(f"neighbours must be at least 1, but got {self.neighbours}")


def vote_shares(labels: Tensor, neighbours: Tensor, num_classes: int) -> Tensor:
    """Return the share of every class in the votes of each image's neighbours [N, C], float64.

    Args:
        labels: Observed labels, int64 [N].
        neighbours: Rows that vote, int64 [N, k].
        num_classes: C.
    """
    votes = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    ones = torch.ones_like(neighbours, dtype=torch.float64)
    return votes.scatter_add_(1, labels[neighbours], ones) / neighbours.shape[1]


class Knn(FoldsCleaner):
    """See the module."""

    name: ClassVar[str] = "knn"
    needs_features: ClassVar[bool] = True
    config: KnnConfig

    @property
    def most_neighbours(self) -> int:
        """The most neighbours that are looked for."""
        return self.config.neighbours

    def length(self, problem: Problem) -> int:
        """Return the epochs of all folds; 0 where features are given, for nothing is trained."""
        return 0 if self.config.source == "given" else super().length(problem)

    def init(self, problem: Problem, seed: SeedTree) -> FoldsState:
        """Return the state before the first fold; with given features, their neighbours.

        Raises:
            RequestError: Features are asked for, and the problem has none, or not of every image.
        """
        state = super().init(problem, seed)
        if self.config.source == "heldout":
            return state
        features, num = problem.features, len(problem.labels)
        if features is None or len(features) != num:
            raise RequestError(
                f"knn needs features of all {num} images, but got {'none' if features is None else len(features)}; "
                "train an extractor, or set knn.source to heldout"
            )
        k = neighbours_for(num, problem.num_classes, self.config.neighbours)
        return replace(state, neighbours=nearest_neighbours(features, k))

    def export(self, state: FoldsState, problem: Problem) -> Cleaned:
        """Return what the neighbours say of the labels."""
        neighbours = state.neighbours
        if self.config.source == "heldout":
            neighbours = self.evidence(state, problem).neighbours.to(problem.device)
        observed = problem.labels
        soft = vote_shares(observed, neighbours, problem.num_classes)
        own = soft.gather(1, observed[:, None]).squeeze(1)
        believed = own >= soft.amax(1)
        winner = torch.where(believed, observed, soft.argmax(1))
        transition = transition_of(F.one_hot(winner, problem.num_classes), observed)
        rate = float((~believed).double().mean())
        return settle(self.config, observed, soft, own, believed, rate, transition)
