"""One trial without Ray: experts trained in this process, results in the same ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertStore, training_labels
from ddnl_ray.robust import Inputs, build_buffer
from ddnl_ray.sweep.conduct import deadline_of
from ddnl_ray.sweep.ledger import Finished, Ledger
from ddnl_ray.sweep.needs import CellNeed, needs, verify_derived, verify_experts
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.status import begin
from ddnl_ray.sweep.studies import Studies
from ddnl_ray.sweep.watcher import Watcher
from ddnl_ray.trial import run_trial
from ddnl_ray.trial.prepare import description, make_inputs


def build_all(plan: Plan, store: ExpertStore, device: str, rebuild: bool) -> Iterator[tuple[str, int]]:
    """Train every expert that a plan needs and the store lacks; yield each as it is stored.

    Raises:
        CorruptFileError: A stored expert is corrupt.
    """
    _take_threads(plan)
    needed = needs(plan, plan.cells)
    verify_experts(needed, store, rebuild)
    verify_derived(plan, plan.cells, store, rebuild)
    for cell in plan.cells:
        preparation = plan.preparation(cell)
        if preparation is None or cell.prepares_itself:
            continue
        data, labels = plan.data[cell.zca].to(device), plan.labels[cell.labels_key]
        inputs = Inputs(data, training_labels(data, labels), store)
        for stage, buffer in preparation.stages:
            for derived in stage:
                derived.build(inputs)
            if buffer is not None and buffer.key in needed:
                yield from _build(plan, needed.pop(buffer.key), store, device)


def _build(plan: Plan, need: CellNeed, store: ExpertStore, device: str) -> Iterator[tuple[str, int]]:
    key = need.buffer.key
    data, labels = plan.data[need.cell.zca].to(device), plan.labels[need.cell.labels_key]
    store.describe(need.buffer, description(need.cell.config))
    store.touch(key)
    for group in need.groups(store, _at_once(plan, device)):
        build_buffer(data, labels, need.buffer, group, need.train_to, store)
        yield from ((key, index) for index in group)


def _take_threads(plan: Plan) -> None:
    """Use as many threads as a worker of a sweep does: their number decides about the last bits of sums."""
    torch.set_num_threads(max(1, int(plan.sweep.resources.cpu)))


def _at_once(plan: Plan, device: str) -> int:
    return plan.sweep.experts.group_size(on_gpu=torch.device(device).type == "cuda")


def run_one(plan: Plan, run: Path, store: ExpertStore, device: str, watcher: Watcher, rebuild: bool) -> Finished:
    """Run a plan of one trial in this process, or return its result where it is already there.

    Raises:
        RequestError: The plan has more than one trial.
        CorruptFileError: A stored expert is corrupt.
    """
    if plan.num_trials != 1:
        names = ", ".join(cell.name for cell in plan.cells[:4])
        raise RequestError(
            f"`ddnl distill` runs one trial, but the file asks for {plan.num_trials} ({names}, ...); "
            "narrow it with --set, or use `ddnl sweep`"
        )
    deadline = deadline_of(plan, time.time())
    ledger = Ledger(run)
    ledger.open(plan.sweep)
    begin(plan, ledger)
    studies = Studies(plan, ledger.finished())
    job = studies.next()
    if job is None:
        ledger.consolidate()
        return next(iter(studies.ended.values()))
    cell = job.cell
    data, labels = plan.data[cell.zca].to(device), plan.labels[cell.labels_key]
    _take_threads(plan)
    verify_experts(needs(plan, [cell]), store, rebuild)
    verify_derived(plan, [cell], store, rebuild)
    inputs = make_inputs(job.config, data, labels, store, _at_once(plan, device), watcher.experts)
    watcher.stage(f"distilling {job.trial}")
    rows = run_trial(job.config, inputs, run / "trials" / job.trial, trial_options(plan.sweep, job, deadline))
    finished = ledger.publish(job.trial, rows, plan.sweep.search.select_on)
    ledger.consolidate()
    return finished
