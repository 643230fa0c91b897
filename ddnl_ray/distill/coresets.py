"""Baselines that choose real images: ``random`` (``ipc`` per observed class) and ``full`` (the whole noisy set)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo, pick_per_class
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class RowsState(State):
    """Rows of the training set that were chosen.

    Attributes:
        rows: int64 [n].
    """

    rows: Tensor


@dataclass(frozen=True)
class RandomConfig:
    """The random coreset has no hyper-parameters."""


@dataclass(frozen=True)
class Random(Method[RowsState]):
    """Random real images of every observed class, with their observed labels."""

    config: RandomConfig
    name: ClassVar[str] = "random"
    state: ClassVar[type[RowsState]] = RowsState

    def init(self, problem: Problem, seed: SeedTree) -> RowsState:
        """Choose the images (see :meth:`Method.init`)."""
        return RowsState(0, pick_per_class(problem, seed.child("init")))

    def step(self, state: RowsState, problem: Problem, seed: SeedTree) -> tuple[RowsState, StepInfo]:
        """Do nothing: a coreset is chosen at once."""
        return state, StepInfo(0.0, accepted=False)

    def export(self, state: RowsState, problem: Problem) -> Distilled:
        """Return the chosen images with their observed labels."""
        return Distilled(problem.images[state.rows], problem.labels[state.rows])


@dataclass(frozen=True)
class FullConfig:
    """Training on the whole noisy set has no hyper-parameters of its own."""


@dataclass(frozen=True)
class Full(Method[State]):
    """The whole noisy training set, as it is: the dashed lines of the papers' figures."""

    config: FullConfig
    name: ClassVar[str] = "full"
    state: ClassVar[type[State]] = State

    def init(self, problem: Problem, seed: SeedTree) -> State:
        """Return an empty state: nothing is chosen."""
        return State(0)

    def step(self, state: State, problem: Problem, seed: SeedTree) -> tuple[State, StepInfo]:
        """Do nothing: the set is taken whole."""
        return state, StepInfo(0.0, accepted=False)

    def export(self, state: State, problem: Problem) -> Distilled:
        """Return all training images with their observed labels."""
        return Distilled(problem.images, problem.labels)
