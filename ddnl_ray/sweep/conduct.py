"""Handing out trials and taking their ends in: what a driver does, whatever runs the trials and whatever time is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ddnl_ray.results import Outcome
from ddnl_ray.sweep.ledger import Finished, Ledger
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.studies import Job, Studies
from ddnl_ray.sweep.watcher import Watcher
from ddnl_ray.trial import TrialInputs
from ddnl_ray.trial.rows import shared_columns

MAX_FAILURES = 3


def deadline_of(plan: Plan, now: float) -> float:
    """Return when the time budget of a command that starts now ends; infinity: never."""
    return now + (plan.sweep.budget.sweep_seconds or math.inf)


@dataclass(kw_only=True)
class Conduct:
    """A sweep in execution.

    Attributes:
        plan: The sweep.
        ledger: Its results.
        studies: Its studies.
        watcher: Told what happens.
        deadline: After it no trial starts; by ``clock``.
        clock: The time in seconds.
        running: The trials that run, by the key under which they were taken.
        refresh_at: When ``results.parquet`` may be written again, by the machine's own clock.
    """

    plan: Plan
    ledger: Ledger
    studies: Studies
    watcher: Watcher
    deadline: float = math.inf
    clock: Callable[[], float] = time.time
    running: dict[str, Job] = field(default_factory=dict)
    refresh_at: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether no further trial will start."""
        return self.studies.is_exhausted or self.clock() >= self.deadline

    def take(self, key: str) -> Job | None:
        """Return the next trial, which runs from now on; None where none is ready."""
        job = None if self.is_over else self.studies.next()
        if job is not None:
            self.running[key] = job
            self.watcher.trials(self.studies, len(self.running))
        return job

    def end(self, key: str, error: bool) -> Finished:
        """Note that a trial ended; one whose worker died for good is recorded as failed."""
        job = self.running.pop(key)
        if not self.ledger.has(job.trial):
            message = f"its worker died {MAX_FAILURES + 1} times" if error else "it ended without a result"
            self.ledger.publish(job.trial, [self._failed(job, message)], self.plan.sweep.search.select_on)
        finished = self.ledger.read(job.trial)
        self.studies.complete(job, finished)
        self.watcher.trials(self.studies, len(self.running))
        began = time.monotonic()
        if began > self.refresh_at:
            self.refresh()
            # Writing the table takes longer the more parts there are: spend a twentieth of the time on it at most.
            self.refresh_at = began + max(10.0, 20 * (time.monotonic() - began))
        return finished

    def refresh(self) -> None:
        """Write ``results.parquet`` with what has ended until now."""
        self.ledger.refresh()

    def _failed(self, job: Job, message: str) -> dict[str, Any]:
        cell = job.cell
        inputs = TrialInputs(self.plan.data[cell.zca], self.plan.labels[cell.labels_key])
        row = shared_columns(job.config, inputs, trial_options(self.plan.sweep, job))
        return {**row, "wall_s": 0.0, "outcome": Outcome.FAILED, "message": message}
