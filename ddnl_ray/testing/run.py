"""Driving a method the way a trial does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing.bits import Bits, bits
from ddnl_ray.testing.generators import seeded


@dataclass(frozen=True)
class Run:
    """A method on a problem from a seed.

    Attributes:
        method: The method.
        problem: The problem.
        seed: What a trial passes to every call.
        steps: How many steps the configuration asks for.
        isolated: Whether the global generators have one and the same state in every call, so that a method that draws
            from them fails the one test which is about that.
    """

    method: Method[Any]
    problem: Problem
    seed: SeedTree
    steps: int
    isolated: bool = True

    def init(self) -> State:
        """Return the first state."""
        with self._around():
            state: State = self.method.init(self.problem, self.seed)
            return state

    def step(self, state: State) -> tuple[State, StepInfo]:
        """Take one step."""
        with self._around():
            return self.method.step(state, self.problem, self.seed)

    def export(self, state: State) -> Distilled:
        """Return the set that a state stands for."""
        with self._around():
            return self.method.export(state, self.problem)

    def states(self, taken: int = 0, state: State | None = None) -> Iterator[State]:
        """Yield the states up to the last, each before the step that follows it is taken.

        Args:
            taken: Steps that led to ``state``.
            state: Where to go on; None: from the start.
        """
        state = self.init() if state is None else state
        yield state
        for _ in range(taken, self.steps):
            state, _ = self.step(state)
            yield state

    def outcome(self, taken: int = 0, state: State | None = None) -> Bits:
        """Return what identifies the last state and the set that it stands for (arguments as :meth:`states`)."""
        *_, last = self.states(taken, state)
        return _prefixed("state", bits(last)) | _prefixed("export", bits(self.export(last)))

    def _around(self) -> AbstractContextManager[None]:
        return seeded(0) if self.isolated else nullcontext()


def _prefixed(name: str, record: Bits) -> Bits:
    """Return a record under longer names."""
    return {f"{name}.{key}": value for key, value in record.items()}
