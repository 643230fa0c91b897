"""Driving a sweep: experts as Ray tasks, buffers in the object store, trials under Ray Tune, results in the ledger.

The ledger is the truth and Tune only executes: whatever happens to Tune, the same command finishes the rest.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ddnl_ray.experts import BufferId, ExpertStore
from ddnl_ray.results import Outcome
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.mirror import mirror
from ddnl_ray.sweep.needs import CellNeed, Stage, needs, require_trainable, stages, verify_experts
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.sweep.runtime import max_concurrent, ray_session
from ddnl_ray.sweep.status import begin
from ddnl_ray.sweep.studies import Job, Studies
from ddnl_ray.trial import TrialInputs
from ddnl_ray.trial.prepare import description
from ddnl_ray.trial.rows import shared_columns

MAX_FAILURES = 3


class Watcher(Protocol):
    """Told what a sweep does, to show it."""

    def stage(self, text: str) -> None:
        """Note that a stage of the sweep starts."""

    def experts(self, done: int, total: int) -> None:
        """Note how many experts are there."""

    def trials(self, studies: Studies, running: int) -> None:
        """Note that trials have started or ended."""


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
    require_trainable(needed, store, "cuda" if plan.sweep.resources.gpu else "cpu")
    if studies.is_exhausted:
        watcher.trials(studies, 0)
        ledger.consolidate()
        return
    watcher.stage("starting Ray")
    with ray_session(machine.address, machine.cpus, machine.gpus, run / "logs" / "ray.log") as ray:
        concurrent = max_concurrent(ray, plan.sweep.resources)
        shelf = _Shelf(ray, plan, store)
        _prepare(ray, shelf, stages(plan, studies.remaining()), watcher)
        shelf.open_buffers(needed)
        try:
            _run_trials(Execution(plan, ledger, studies, shelf, watcher), run, concurrent)
        finally:
            ledger.consolidate()
            mirror(plan, ledger)


class _Shelf:
    """The plan's data and labels in the object store, put there on first use."""

    def __init__(self, ray: Any, plan: Plan, store: ExpertStore) -> None:
        self._ray, self.plan, self.store = ray, plan, store
        self.root = str(store.root.resolve())
        self._data: dict[bool, Any] = {}
        self._labels: dict[Any, Any] = {}
        self._actor: Any = None
        self._sources: dict[str, Any] = {}

    def data(self, cell: Cell) -> Any:
        from ddnl_ray.sweep.worker import SharedData

        if cell.zca not in self._data:
            data = self.plan.data[cell.zca]
            self._data[cell.zca] = SharedData(self._ray.put(data.arrays()), data.meta())
        return self._data[cell.zca]

    def labels(self, cell: Cell) -> Any:
        if cell.labels_key not in self._labels:
            self._labels[cell.labels_key] = self._ray.put(self.plan.labels[cell.labels_key])
        return self._labels[cell.labels_key]

    def open_buffers(self, needed: dict[str, CellNeed]) -> None:
        """Start the actor that shares the buffers."""
        from ddnl_ray.sweep.shared import BufferSource, ExpertBuffers

        for key, need in needed.items():
            self.store.touch(key)
            self._sources[key] = BufferSource(key, need.num_experts, need.epochs, need.buffer.dtype)
        self._actor = ExpertBuffers.remote(self.root, self._sources)  # type: ignore[attr-defined]

    def experts(self, cell: Cell, buffer: BufferId) -> Any:
        from ddnl_ray.sweep.shared import SharedExperts

        source = self._sources[buffer.key]
        return SharedExperts(self._actor, source, cell.config.num_experts, buffer.recipe.epochs)

    def prepared(self, cell: Cell) -> Any:
        """Return what a trial of a cell reads of what was prepared; None: nothing, or the trial prepares itself."""
        from ddnl_ray.sweep.worker import Prepared

        preparation = self.plan.preparation(cell)
        if preparation is None or cell.prepares_itself:
            return None
        targets = preparation.targets
        return Prepared(
            preparation,
            self.experts(cell, preparation.experts),
            self.experts(cell, targets) if targets is not None else None,
        )


def _prepare(ray: Any, shelf: _Shelf, order: list[Stage], watcher: Watcher) -> None:
    """Make what the store lacks, stage by stage; a task makes one derived thing, or trains a group of experts."""
    needed = {key: need for stage in order for key, need in stage.buffers.items()}
    total = sum(need.num_experts for need in needed.values())
    at_once = shelf.plan.sweep.experts.group_size(on_gpu=shelf.plan.sweep.resources.gpu > 0)
    missing = {key: need.groups(shelf.store, at_once) for key, need in needed.items()}
    done = total - sum(len(group) for own in missing.values() for group in own)
    if total:
        watcher.experts(done, total)
    for stage in order:
        _derive(ray, shelf, stage, watcher)
        waiting = _train(shelf, {key: need for key, need in stage.buffers.items() if missing[key]}, missing)
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            ray.get(ready)
            done += waiting.pop(ready)
            watcher.experts(done, total)


def _train(shelf: _Shelf, buffers: dict[str, CellNeed], missing: dict[str, list[list[int]]]) -> dict[Any, int]:
    """Start the training of groups of experts; return how many experts each reference stands for."""
    from ddnl_ray.sweep.worker import run_experts

    waiting: dict[Any, int] = {}
    if not buffers:
        return waiting
    resources = shelf.plan.sweep.resources
    task = run_experts.options(num_cpus=resources.cpu, num_gpus=resources.gpu)
    for key, need in buffers.items():
        shelf.store.describe(need.buffer, description(need.cell.config))
        data, labels = shelf.data(need.cell), shelf.labels(need.cell)
        where = shelf.root, resources.cpu, resources.gpu
        for group in missing[key]:
            reference = task.remote(data.arrays, data.meta, labels, need.buffer, group, need.train_to, *where)
            waiting[reference] = len(group)
    return waiting


def _derive(ray: Any, shelf: _Shelf, stage: Stage, watcher: Watcher) -> None:
    """Make what a stage derives and the store lacks."""
    from ddnl_ray.sweep.worker import run_derived

    resources = shelf.plan.sweep.resources
    task = run_derived.options(num_cpus=resources.cpu, num_gpus=resources.gpu)
    waiting = []
    for derived, cell in stage.derived.values():
        if not derived.is_made(shelf.store.root):
            data, labels = shelf.data(cell), shelf.labels(cell)
            where = shelf.root, resources.cpu, resources.gpu
            waiting.append(task.remote(data.arrays, data.meta, labels, derived, *where))
    if waiting:
        watcher.stage(f"making {', '.join(sorted({derived.kind for derived, _ in stage.derived.values()}))}")
    for reference in waiting:
        ray.get(reference)


@dataclass
class Execution:
    """A sweep in execution: what Tune's searcher talks to."""

    plan: Plan
    ledger: Ledger
    studies: Studies
    shelf: _Shelf
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
