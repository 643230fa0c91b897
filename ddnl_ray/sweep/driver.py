"""Driving a sweep: experts as Ray tasks, buffers in the object store, trials under Ray Tune, results in the ledger.

The ledger is the truth and Tune only executes: whatever happens to Tune, the same command finishes the rest.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddnl_ray.experts import ExpertStore
from ddnl_ray.storage import Folder
from ddnl_ray.sweep.capacity import max_concurrent
from ddnl_ray.sweep.conduct import MAX_FAILURES, Conduct, deadline_of
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.making import make_all
from ddnl_ray.sweep.memory import FILE
from ddnl_ray.sweep.mirror import mirror
from ddnl_ray.sweep.needs import needs, require_trainable, verify_derived, verify_experts
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.runtime import ray_session
from ddnl_ray.sweep.shelf import Shelf
from ddnl_ray.sweep.status import begin
from ddnl_ray.sweep.studies import Studies
from ddnl_ray.sweep.watcher import Watcher


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


def run_sweep(
    plan: Plan, run: Path | Folder, store: ExpertStore, machine: Machine, watcher: Watcher, rebuild: bool
) -> None:
    """Run what is left of a sweep, and write ``results.parquet``.

    Where the sweep has a time budget, it counts from this call: when it ends, nothing more starts, and what runs keeps
    a checkpoint and ends as ``timeout``. The same call goes on from there.

    Args:
        plan: The sweep.
        run: The run folder, or its path.
        store: The expert store.
        machine: Where to run.
        watcher: Told what happens.
        rebuild: Whether to train corrupt experts again instead of refusing them.

    Raises:
        RequestError: The run folder is not ours, nothing fits on the machine, or experts cannot train there.
        CorruptFileError: A stored expert is corrupt.
    """
    deadline = deadline_of(plan, time.time())
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
        ledger.refresh()
        return
    watcher.stage("starting Ray")
    with ray_session(machine.address, machine.cpus, machine.gpus, ledger.run / "logs" / "ray.log") as ray:
        concurrent = max_concurrent(ray, plan.sweep.resources, grows=machine.address is not None)
        shelf = Shelf(ray, plan, store)
        if not make_all(ray, shelf, studies.remaining(), watcher, deadline):
            return
        shelf.open_buffers(needed)
        ledger.write(FILE, shelf.stores())
        execution = Execution(
            plan=plan, ledger=ledger, studies=studies, watcher=watcher, deadline=deadline, shelf=shelf
        )
        try:
            _run_trials(execution, concurrent)
        finally:
            ledger.refresh()
            mirror(plan, ledger)


@dataclass(kw_only=True)
class Execution(Conduct):
    """A sweep in execution under Ray: what Tune's searcher talks to.

    Attributes:
        shelf: What trials share, in the object store.
    """

    shelf: Shelf

    def start(self, tune_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial; None where none is ready."""
        from ddnl_ray.sweep.worker import Payload

        job = self.take(tune_id)
        if job is None:
            return None
        cell, shelf = job.cell, self.shelf
        payload = Payload(
            run=self.ledger.folder.address,
            store=shelf.root,
            sweep=self.plan.sweep,
            job=job,
            deadline=self.deadline,
            data=shelf.data(cell),
            labels=shelf.labels(cell),
            prepared=shelf.prepared(cell),
        )
        return {"payload": payload}

    def refresh(self) -> None:
        """Write ``results.parquet``, and how full the object stores are."""
        super().refresh()
        self.ledger.write(FILE, self.shelf.stores())


def _run_trials(execution: Execution, concurrent: int) -> None:
    """Let Ray Tune run every trial that is left; its own files stay on this machine."""
    from ray import tune

    from ddnl_ray.sweep.tuning import CellSearcher
    from ddnl_ray.sweep.worker import run_payload

    storage = execution.ledger.run / ".tune"
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
