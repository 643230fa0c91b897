"""Driving a sweep: experts as Ray tasks, buffers in the object store, trials under Ray Tune, results in the ledger.

The ledger is the truth and Tune only executes: whatever happens to Tune, the same command finishes the rest.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddnl_ray.experts import ExpertStore
from ddnl_ray.results import Outcome
from ddnl_ray.sweep.capacity import max_concurrent
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.making import make_all
from ddnl_ray.sweep.mirror import mirror
from ddnl_ray.sweep.needs import needs, require_trainable, verify_derived, verify_experts
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.runtime import ray_session
from ddnl_ray.sweep.shelf import Shelf
from ddnl_ray.sweep.status import begin
from ddnl_ray.sweep.studies import Job, Studies
from ddnl_ray.sweep.watcher import Watcher
from ddnl_ray.trial import TrialInputs
from ddnl_ray.trial.rows import shared_columns

MAX_FAILURES = 3


@dataclass(frozen=True)
class Machine:
    """Where a sweep runs.

    Attributes:
        address: None for this machine alone, else a Ray cluster.
        cpus: Cores to use on this machine; None: all.
        gpus: GPUs to use on this machine; None: all.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None


def run_sweep(plan: Plan, run: Path, store: ExpertStore, machine: Machine, watcher: Watcher, rebuild: bool) -> None:
    """Run what is left of a sweep, and write ``results.parquet``.

    Args:
        plan: The sweep.
        run: The run folder.
        store: The expert store.
        machine: Where to run.
        watcher: Told what happens.
        rebuild: Whether to train corrupt experts again instead of refusing them.

    Raises:
        RequestError: The run folder is not ours, nothing fits on the machine, or experts cannot train there.
        CorruptFileError: A stored expert is corrupt.
    """
    ledger = Ledger(run)
    ledger.open(plan.sweep)
    begin(plan, ledger)
    studies = Studies(plan, ledger.finished())
    needed = needs(plan, studies.remaining())
    verify_experts(needed, store, rebuild)
    verify_derived(plan, studies.remaining(), store, rebuild)
    require_trainable(needed, store, "cuda" if plan.sweep.resources.gpu else "cpu")
    if studies.is_exhausted:
        watcher.trials(studies, 0)
        ledger.consolidate()
        return
    watcher.stage("starting Ray")
    with ray_session(machine.address, machine.cpus, machine.gpus, run / "logs" / "ray.log") as ray:
        concurrent = max_concurrent(ray, plan.sweep.resources, grows=machine.address is not None)
        shelf = Shelf(ray, plan, store)
        make_all(ray, shelf, studies.remaining(), watcher)
        shelf.open_buffers(needed)
        shelf.note_stores(run)
        try:
            _run_trials(Execution(plan, ledger, studies, shelf, watcher), run, concurrent)
        finally:
            ledger.consolidate()
            mirror(plan, ledger)


@dataclass
class Execution:
    """A sweep in execution: what Tune's searcher talks to."""

    plan: Plan
    ledger: Ledger
    studies: Studies
    shelf: Shelf
    watcher: Watcher
    running: dict[str, Job] = field(default_factory=dict)
    refresh_at: float = 0.0

    def start(self, tune_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial; None where none is ready."""
        from ddnl_ray.sweep.worker import Payload

        job = self.studies.next()
        if job is None:
            return None
        self.running[tune_id] = job
        self.watcher.trials(self.studies, len(self.running))
        cell = job.cell
        shelf = self.shelf
        run = str(self.ledger.run.resolve())
        prepared = shelf.prepared(cell)
        payload = Payload(run, shelf.root, self.plan.sweep, job, shelf.data(cell), shelf.labels(cell), prepared)
        return {"payload": payload}

    def end(self, tune_id: str, error: bool) -> None:
        """Note that a trial ended; one whose worker died for good is recorded as failed."""
        job = self.running.pop(tune_id)
        if not self.ledger.has(job.trial):
            message = f"its worker died {MAX_FAILURES + 1} times" if error else "it ended without a result"
            self.ledger.publish(job.trial, [self._failed(job, message)], self.plan.sweep.search.select_on)
        self.studies.complete(job, self.ledger.read(job.trial))
        self.watcher.trials(self.studies, len(self.running))
        began = time.monotonic()
        if began > self.refresh_at:
            self.ledger.consolidate()
            self.shelf.note_stores(self.ledger.run)
            # Writing the table takes longer the more parts there are: spend a twentieth of the time on it at most.
            self.refresh_at = began + max(10.0, 20 * (time.monotonic() - began))

    def _failed(self, job: Job, message: str) -> dict[str, Any]:
        cell = job.cell
        inputs = TrialInputs(self.plan.data[cell.zca], self.plan.labels[cell.labels_key])
        row = shared_columns(job.config, inputs, trial_options(self.plan.sweep, job))
        return {**row, "wall_s": 0.0, "outcome": Outcome.FAILED, "message": message}


def _run_trials(execution: Execution, run: Path, concurrent: int) -> None:
    """Let Ray Tune run every trial that is left."""
    from ray import tune

    from ddnl_ray.sweep.tuning import CellSearcher
    from ddnl_ray.sweep.worker import run_payload

    storage = run / ".tune"
    shutil.rmtree(storage, ignore_errors=True)
    resources = execution.plan.sweep.resources
    bundle = {"CPU": resources.cpu} | ({"GPU": resources.gpu} if resources.gpu else {})
    tuner = tune.Tuner(
        tune.with_resources(run_payload, tune.PlacementGroupFactory([bundle])),
        tune_config=tune.TuneConfig(
            search_alg=CellSearcher(execution),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage.resolve()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    execution.watcher.stage("running trials")
    tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)
