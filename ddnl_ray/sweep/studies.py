"""Which trial comes next: the studies of all cells, interleaved so that the machine stays full."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddnl_ray.results import Outcome
from ddnl_ray.sweep.ledger import Finished, trial_name
from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.sweep.search import Shown, rungs, suggest
from ddnl_ray.trial import TrialConfig


@dataclass(frozen=True)
class Job:
    """A trial to run.

    Attributes:
        trial: Its name, unique in the run.
        cell: Its cell.
        config: What to run.
        rungs: Iteration to the accuracy on the selection split that it must reach there.
    """

    trial: str
    cell: Cell
    config: TrialConfig
    rungs: Mapping[int, float]


class Studies:
    """The state of all studies of a plan.

    A trial is ready when the trials that its suggestion may see have ended. Among the ready ones the earliest of its
    cell comes first, so that all cells advance together and none waits for another.

    Args:
        plan: The plan.
        finished: The ledger's trials by name; settled ones are not run again.
    """

    def __init__(self, plan: Plan, finished: Mapping[str, Finished]) -> None:
        self.plan = plan
        self._params: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, Finished] = {}
        self._next = dict.fromkeys((cell.name for cell in plan.cells), 0)
        self.cached = 0
        for cell in plan.cells:
            for number in range(cell.trials):
                name = trial_name(cell.name, number)
                if name in finished and finished[name].outcome.is_settled:
                    self.cached += 1
                    self._end(cell, finished[name])

    def next(self) -> Job | None:
        """Return the next trial to run and count it as started; None where nothing is ready."""
        best: tuple[int, Cell] | None = None
        for cell in self.plan.cells:
            number = self._skip_ended(cell)
            if number < cell.trials and self._is_ready(cell, number) and (best is None or number < best[0]):
                best = number, cell
        if best is None:
            return None
        number, cell = best
        self._next[cell.name] = number + 1
        return self._job(cell, number)

    def complete(self, job: Job, result: Finished) -> None:
        """Note how a trial ended."""
        self._end(job.cell, result)

    @property
    def is_exhausted(self) -> bool:
        """Whether every trial has been started or was there before."""
        return all(self._skip_ended(cell) >= cell.trials for cell in self.plan.cells)

    def remaining(self) -> list[Cell]:
        """Return the cells that still have a trial to run."""
        return [cell for cell in self.plan.cells if any(not self._has_ended(cell, n) for n in range(cell.trials))]

    @property
    def ended(self) -> Mapping[str, Finished]:
        """The trials that have ended, by name."""
        return self._ended

    def _end(self, cell: Cell, result: Finished) -> None:
        self._ended[result.trial] = result
        self._params[result.trial] = {name: result.params[name] for name in cell.space}

    def _has_ended(self, cell: Cell, number: int) -> bool:
        return trial_name(cell.name, number) in self._ended

    def _skip_ended(self, cell: Cell) -> int:
        number = self._next[cell.name]
        while number < cell.trials and self._has_ended(cell, number):
            number += 1
        self._next[cell.name] = number
        return number

    def _is_ready(self, cell: Cell, number: int) -> bool:
        visible = number - self.plan.sweep.search.parallel
        return all(self._has_ended(cell, earlier) for earlier in range(visible + 1))

    def _job(self, cell: Cell, number: int) -> Job:
        sweep = self.plan.sweep
        seen = max(0, number - sweep.search.parallel + 1)
        names = [trial_name(cell.name, earlier) for earlier in range(number)]
        shown = [self._shown(name) for name in names[:seen]]
        pending = [self._params[name] for name in names[seen:]]
        params = suggest(cell, number, shown, pending, sweep.search)
        self._params[trial_name(cell.name, number)] = params
        config = dataclasses.replace(cell.config, params={**cell.config.params, **params})
        iterations = int(config.params.get("iterations", 0))
        floors = rungs(sweep.stopper if cell.space else None, iterations, shown)
        return Job(trial_name(cell.name, number), cell, config, floors)

    def _shown(self, name: str) -> Shown:
        result = self._ended[name]
        value = result.value if result.outcome is Outcome.OK else None
        return Shown(self._params[name], value, result.looks)
