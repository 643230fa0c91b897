"""Cleaners that read held-out predictions: what they share is the training of a network per fold.

Each method is one way to read the same evidence (:mod:`ddnl_ray.lnl.heldout`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ddnl_ray.denoise.base import Cleaner, CleanerConfig, Problem
from ddnl_ray.distill.base import State
from ddnl_ray.lnl.heldout import Folds, FoldsConfig, FoldsState, HeldOut
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class FoldsCleanerConfig(CleanerConfig):
    """Training of the networks, one per fold."""

    folds: int = 5
    """K: how many parts the images are dealt into."""
    epochs: int = 20
    """The most epochs of a training; the best one by the fold's observed labels counts."""
    batch_size: int = 256
    """Images per step."""
    lr: float = 0.01
    """Learning rate; times 0.2 after two thirds and after five sixths of the epochs."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    augment: str | None = None
    """DSA strategy, or None."""

    def of_folds(self, problem: Problem, neighbours: int = 0) -> FoldsConfig:
        """Return the settings of the folds."""
        own = {field.name for field in dataclasses.fields(FoldsCleanerConfig)}
        own -= {field.name for field in dataclasses.fields(CleanerConfig)}
        values = {name: getattr(self, name) for name in own}
        return FoldsConfig(network=problem.network, neighbours=neighbours, **values)


class FoldsCleaner(Cleaner[FoldsState]):
    """A cleaner whose steps train the folds, one after another."""

    state: ClassVar[type[State]] = FoldsState
    config: FoldsCleanerConfig

    @property
    def most_neighbours(self) -> int:
        """The most neighbours that are looked for: none."""
        return 0

    def _folds(self, problem: Problem, seed: SeedTree) -> Folds:
        config = self.config.of_folds(problem, self.most_neighbours)
        return Folds(problem.images, problem.labels, problem.num_classes, config, seed)

    def length(self, problem: Problem) -> int:
        """Return the epochs of all folds."""
        return self.config.folds * self.config.epochs

    def init(self, problem: Problem, seed: SeedTree) -> FoldsState:
        """Return the state before the first fold."""
        return self._folds(problem, seed).begin()

    def epoch(self, state: FoldsState, problem: Problem, seed: SeedTree) -> tuple[FoldsState, float]:
        """Train a fold's network for an epoch; the loss is that of the observed labels of the fold."""
        state, step = self._folds(problem, seed).advance(state)
        return state, step.loss

    def evidence(self, state: FoldsState, problem: Problem) -> HeldOut:
        """Return what was found.

        Raises:
            ValueError: Folds are left to train.
        """
        return self._folds(problem, SeedTree.root(0)).found(state)
