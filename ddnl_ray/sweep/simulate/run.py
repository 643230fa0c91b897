"""A whole sweep in simulated time: what is made before, the trials, and what they would take."""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.files import write_json
from ddnl_ray.results import SIMULATED, Outcome
from ddnl_ray.sweep.conduct import Conduct, deadline_of
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.needs import needs
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.simulate.cluster import Cluster
from ddnl_ray.sweep.simulate.machines import Machines, Task
from ddnl_ray.sweep.simulate.model import Course, TrialModel
from ddnl_ray.sweep.status import STRAGGLES, begin, conclude
from ddnl_ray.sweep.studies import Job, Studies
from ddnl_ray.sweep.watcher import Watcher

POINTS = 64
Recorded = Mapping[tuple[str, int | None], list[float]]


def simulate(
    plan: Plan, run: Path, cluster: Cluster, store: ExpertStore, watcher: Watcher, recorded: Recorded | None = None
) -> dict[str, Any]:
    """Run a sweep on a modelled cluster.

    Args:
        plan: The sweep.
        run: A folder that does not exist or is empty; its ledger is left there, marked as simulated.
        cluster: The cluster.
        store: The expert store: what it holds is not made again. It is only read.
        watcher: Told what happens.
        recorded: Durations of trials that ran, in seconds, by method and IPC.

    Returns:
        Hours, their shares, the tail, and what the driver cost (see :func:`_summary`).

    Raises:
        RequestError: The folder is not empty, a duration is not known, or a trial fits on no node.
    """
    if run.exists() and any(run.iterdir()):
        raise RequestError(f"{run} is not empty; a simulation needs a folder of its own, so choose another --out")
    model, machines = TrialModel(plan, cluster, recorded or {}), Machines(cluster, plan.sweep.resources)
    steps = _steps(plan, cluster, store)
    ledger = Ledger(run)
    ledger.open(plan.sweep)
    write_json(run / SIMULATED, {"sweep": plan.sweep.name, "cluster": cluster.model_dump()})
    begin(plan, ledger)
    conduct = Conduct(
        plan=plan,
        ledger=ledger,
        studies=Studies(plan, {}),
        watcher=watcher,
        deadline=deadline_of(plan, 0.0),
        clock=lambda: machines.now,
    )
    _make(machines, steps, conduct.deadline)
    made_at = machines.now
    trials = _Trials(machines, conduct, model)
    trials.run()
    machines.close()
    ledger.refresh()
    said, _ = conclude(plan, ledger, set(), None)
    return _summary(trials, made_at, said)


@dataclass
class _Step:
    """A task before the trials: its seconds, and the steps that come before it."""

    seconds: float
    after: list[int]


def _steps(plan: Plan, cluster: Cluster, store: ExpertStore) -> list[_Step]:
    """Return what has to be made, each after those that it waits for (see :mod:`ddnl_ray.sweep.making`)."""
    needed = needs(plan, plan.cells)
    at_once = plan.sweep.experts.group_size(on_gpu=plan.sweep.resources.gpu > 0)
    steps: list[_Step] = []
    there: dict[str, list[int]] = {}
    for cell in plan.cells:
        preparation = plan.preparation(cell)
        if preparation is None or cell.prepares_itself:
            continue
        after: list[int] = []
        for stage, buffer in preparation.stages:
            for derived in stage:
                if derived.key not in there:
                    there[derived.key] = []
                    if not derived.is_made(store.root):
                        there[derived.key] = [len(steps)]
                        steps.append(_Step(cluster.derived_s, list(after)))
                after += there[derived.key]
            if buffer is None:
                continue
            if buffer.key not in there:
                need = needed[buffer.key]
                reach = store.reach(buffer.key, need.num_experts)
                there[buffer.key] = []
                for group in need.groups(store, at_once):
                    epochs = need.train_to - max(0, min(reach[index] for index in group))
                    there[buffer.key].append(len(steps))
                    steps.append(_Step(epochs * _epoch_s(cluster), list(after)))
            after += there[buffer.key]
    return steps


def _epoch_s(cluster: Cluster) -> float:
    if cluster.expert_epoch_s is None:
        raise RequestError(
            "experts have to be trained before the trials: how long does an epoch of a group of them take? Give "
            "expert_epoch_s in seconds, or --store with the experts in it"
        )
    return cluster.expert_epoch_s


def _make(machines: Machines, steps: list[_Step], deadline: float) -> None:
    """Let what comes before the trials be made."""
    left = {number: len(set(step.after)) for number, step in enumerate(steps)}
    then: dict[int, list[int]] = defaultdict(list)
    for number, step in enumerate(steps):
        for earlier in set(step.after):
            then[earlier].append(number)

    def submit(number: int) -> None:
        machines.submit(Task(f"step {number}", steps[number].seconds, lambda task: ended(number)))

    def ended(number: int) -> None:
        for later in then[number]:
            left[later] -= 1
            if not left[later]:
                submit(later)

    making = True
    if math.isfinite(deadline):
        machines.at(deadline, lambda: machines.stop() if making else [])
    for number, count in left.items():
        if not count:
            submit(number)
    machines.run(lambda: None)
    making = False


@dataclass
class _Trials:
    """The trials of a sweep on a modelled cluster."""

    machines: Machines
    conduct: Conduct
    model: TrialModel
    jobs: dict[str, tuple[Job, Course]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    lasted: dict[str, list[tuple[float, float, str]]] = field(default_factory=lambda: defaultdict(list))
    last_start: float = 0.0
    driver_s: float = 0.0

    def run(self) -> None:
        """Let all trials run."""
        if math.isfinite(self.conduct.deadline):
            self.machines.at(max(self.conduct.deadline, self.machines.now), self._stop)
        self.machines.run(self._refill)

    def _refill(self) -> None:
        """Start trials while there are places, as Tune does."""
        conduct, sweep = self.conduct, self.conduct.plan.sweep
        places = min(self.machines.slots, sweep.resources.max_concurrent or self.machines.slots)
        while len(conduct.running) < places:
            began = time.process_time()
            job = conduct.take("next")
            self.driver_s += time.process_time() - began
            if job is None:
                return
            conduct.running[job.trial] = conduct.running.pop("next")
            course = self.model.course(job)
            limit = min(sweep.budget.trial_seconds or math.inf, job.limit_s)
            self.jobs[job.trial] = job, course
            self.last_start = self.machines.now
            seconds = min(course.seconds, limit)
            self.machines.submit(Task(job.trial, seconds, self._end, sweep.budget.checkpoint_seconds))

    def _end(self, task: Task) -> None:
        """Publish a trial that came to its end, or to that of its time."""
        course = self.jobs[task.name][1]
        self._publish(task, course.outcome if task.seconds >= course.seconds else Outcome.TIMEOUT, task.seconds)

    def _stop(self) -> None:
        """End what runs when the sweep's time is up."""
        for task in self.machines.stop():
            self._publish(task, Outcome.TIMEOUT, task.kept)

    def _publish(self, task: Task, outcome: Outcome, wall_s: float) -> None:
        job, course = self.jobs.pop(task.name)
        conduct = self.conduct
        rows = self.model.rows(job, course, outcome, wall_s)
        conduct.ledger.publish(job.trial, rows, conduct.plan.sweep.search.select_on)
        began = time.process_time()
        finished = conduct.end(job.trial, error=False)
        self.driver_s += time.process_time() - began
        elapsed = self.machines.now - (task.first if task.first is not None else self.machines.now)
        self.lasted[job.cell.name].append((elapsed, self.machines.now, job.trial))
        if finished.value is not None and finished.value > self.best.get(job.cell.name, -math.inf):
            self.best[job.cell.name] = finished.value
            self._note()

    def _note(self) -> None:
        """Add a point to the curve of the best so far: the mean over the cells that have one."""
        if len(self.curve) >= 2 * POINTS:
            del self.curve[1::2]
        hours = self.machines.now / 3600
        if not self.curve or hours - self.curve[-1][0] > hours / (2 * POINTS):
            self.curve.append((hours, sum(self.best.values()) / len(self.best)))


def _summary(trials: _Trials, made_at: float, said: dict[str, Any]) -> dict[str, Any]:
    """Return what a simulated sweep took.

    Hours of GPUs (of cores, where trials take no GPU) are those of all nodes that are paid for. ``tail_hours`` is the
    time at the end in which less than half of the places were in use; ``stragglers`` are trials that lasted, with their
    interruptions, beyond three times the median of their cell.
    """
    machines, conduct = trials.machines, trials.conduct
    hours, count = machines.hours, max(1, len(conduct.studies.log))
    stragglers = []
    for own in trials.lasted.values():
        median = statistics.median(seconds for seconds, _, _ in own)
        stragglers += [(seconds / median, name) for seconds, _, name in own if seconds > STRAGGLES * median > 0]
    late = {cell: sum(at > machines.half_at for _, at, _ in own) for cell, own in trials.lasted.items()}
    outcomes: dict[str, int] = defaultdict(int)
    for result in conduct.studies.log:
        outcomes[str(result.outcome)] += 1
    price = machines.cluster.price
    return {
        "simulated": True,
        "cells": said["cells"],
        "trials": said["trials"],
        "outcomes": dict(sorted(outcomes.items())),
        "not_done": said["not_done"],
        "places": machines.slots,
        "most_running": machines.most_running,
        "hours": machines.now / 3600,
        "making_hours": made_at / 3600,
        "tail_hours": (machines.now - machines.half_at) / 3600,
        "tail_trials": sum(late.values()),
        "tail_cells": [cell for cell, number in sorted(late.items(), key=lambda item: -item[1]) if number][:3],
        "last_start_hours": trials.last_start / 3600,
        "unit": machines.unit,
        "unit_hours": hours.total / 3600,
        "busy": hours.busy / 3600,
        "idle": hours.idle / 3600,
        "lost": hours.lost / 3600,
        "utilisation": hours.busy / hours.total if hours.total else 0.0,
        "preemptions": machines.preemptions,
        "cost": price * hours.total / 3600 if price is not None else None,
        "longest_wait_s": machines.longest_wait,
        "stragglers": [name for _, name in sorted(stragglers, reverse=True)[:10]],
        "best_so_far": [[round(at, 4), round(value, 4)] for at, value in trials.curve],
        "driver_ms_per_trial": 1000 * trials.driver_s / count,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
