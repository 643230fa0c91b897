"""Which trial comes next: the studies of all cells, interleaved so that the machine stays full."""

from __future__ import annotations

import dataclasses
import heapq
import math
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
        limit_s: Seconds that its cell's budget leaves it.
    """

    trial: str
    cell: Cell
    config: TrialConfig
    rungs: Mapping[int, float]
    limit_s: float = math.inf


@dataclass
class Study:
    """How far the study of a cell is.

    Attributes:
        cell: The cell.
        order: Its place in the plan.
        next: The first trial that has neither been started nor ended.
        leading: How many trials have ended without a gap, from the first.
        ended: How many have ended.
        best: The highest value so far.
        spent_s: Their durations together.
        is_open: Whether a trial is left to start.
    """

    cell: Cell
    order: int
    next: int = 0
    leading: int = 0
    ended: int = 0
    best: float | None = None
    spent_s: float = 0.0
    is_open: bool = True


class Studies:
    """The state of all studies of a plan.

    A trial is ready when the trials that its suggestion may see have ended. Among the ready ones the earliest of its
    cell comes first, so that all cells advance together and none waits for another. A cell whose time budget is spent
    starts no trial.

    Args:
        plan: The plan.
        finished: The ledger's trials by name; settled ones are not run again.
    """

    def __init__(self, plan: Plan, finished: Mapping[str, Finished]) -> None:
        self.plan = plan
        self._params: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, Finished] = {}
        self.log: list[Finished] = []
        """The trials that have ended since, in that order."""
        self.failed = self.cells_done = 0
        self.studies = {cell.name: Study(cell, order) for order, cell in enumerate(plan.cells)}
        self._open = len(self.studies)
        self._ready: list[tuple[int, int]] = []
        for study in self.studies.values():
            for number in range(study.cell.trials):
                found = finished.get(trial_name(study.cell.name, number))
                if found is not None and found.outcome.is_settled:
                    self._end(study, found)
            self._queue(study)
        self.cached = len(self._ended)

    def next(self) -> Job | None:
        """Return the next trial to run and count it as started; None where nothing is ready."""
        while self._ready:
            number, order = heapq.heappop(self._ready)
            study = self.studies[self.plan.cells[order].name]
            if study.is_open:
                study.next += 1
                job = self._job(study, number)
                self._queue(study)
                return job
        return None

    def complete(self, job: Job, result: Finished) -> None:
        """Note how a trial ended."""
        study = self.studies[job.cell.name]
        was_waiting = self._waits(study)
        self._end(study, result)
        self.log.append(result)
        if was_waiting or self._is_spent(study):
            self._queue(study)

    @property
    def is_exhausted(self) -> bool:
        """Whether every trial has been started or was there before, or its cell has no time left."""
        return self._open == 0

    def remaining(self) -> list[Cell]:
        """Return the cells that still have a trial to run."""
        return [study.cell for study in self.studies.values() if study.ended < study.cell.trials]

    @property
    def ended(self) -> Mapping[str, Finished]:
        """The trials that have ended, by name."""
        return self._ended

    def _end(self, study: Study, result: Finished) -> None:
        cell = study.cell
        self._ended[result.trial] = result
        self._params[result.trial] = {name: result.params[name] for name in cell.space}
        self.failed += result.outcome.is_failure
        study.ended += 1
        study.spent_s += result.wall_s
        if result.value is not None:
            study.best = max(result.value, study.best if study.best is not None else -math.inf)
        while study.leading < cell.trials and self._has_ended(cell, study.leading):
            study.leading += 1
        self.cells_done += study.ended == cell.trials

    def _has_ended(self, cell: Cell, number: int) -> bool:
        return trial_name(cell.name, number) in self._ended

    def _is_spent(self, study: Study) -> bool:
        return study.spent_s >= (self.plan.sweep.budget.cell_seconds or math.inf)

    def _waits(self, study: Study) -> bool:
        """Return whether the next trial of a study waits for one that its suggestion may see."""
        return study.leading <= study.next - self.plan.sweep.search.parallel

    def _queue(self, study: Study) -> None:
        """Put the next trial of a study among the ready ones if it is, or close the study if there is none."""
        while study.next < study.cell.trials and self._has_ended(study.cell, study.next):
            study.next += 1
        if study.is_open and (study.next >= study.cell.trials or self._is_spent(study)):
            study.is_open = False
            self._open -= 1
        if study.is_open and not self._waits(study):
            heapq.heappush(self._ready, (study.next, study.order))

    def _job(self, study: Study, number: int) -> Job:
        sweep, cell = self.plan.sweep, study.cell
        seen = max(0, number - sweep.search.parallel + 1)
        names = [trial_name(cell.name, earlier) for earlier in range(number)]
        shown = [self._shown(name) for name in names[:seen]]
        pending = [self._params[name] for name in names[seen:]]
        params = suggest(cell, number, shown, pending, sweep.search)
        self._params[trial_name(cell.name, number)] = params
        config = dataclasses.replace(cell.config, params={**cell.config.params, **params})
        iterations = int(config.params.get("iterations", 0))
        floors = rungs(sweep.stopper if cell.space else None, iterations, shown)
        left = (sweep.budget.cell_seconds or math.inf) - study.spent_s
        return Job(trial_name(cell.name, number), cell, config, floors, left)

    def _shown(self, name: str) -> Shown:
        result = self._ended[name]
        value = result.value if result.outcome is Outcome.OK else None
        return Shown(self._params[name], value, result.looks)
