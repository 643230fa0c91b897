"""One trial without Ray: experts trained in this process, results in the same ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ArrayExperts, ExpertStore, build_experts
from ddnl_ray.sweep.driver import Watcher
from ddnl_ray.sweep.ledger import Finished, Ledger
from ddnl_ray.sweep.needs import Need, needs, verify_experts
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.status import begin
from ddnl_ray.sweep.studies import Studies
from ddnl_ray.trial import TrialInputs, run_trial


def build_all(plan: Plan, store: ExpertStore, device: str, rebuild: bool) -> Iterator[tuple[str, int]]:
    """Train every expert that a plan needs and the store lacks; yield each as it is stored.

    Raises:
        CorruptFileError: A stored expert is corrupt.
    """
    needed = needs(plan, list(plan.cells))
    verify_experts(needed, store, rebuild)
    for need in needed.values():
        yield from _build(plan, need, store, device)


def _build(plan: Plan, need: Need, store: ExpertStore, device: str) -> Iterator[tuple[str, int]]:
    config, key = need.cell.config, need.buffer.key
    data, labels = plan.data[need.cell.zca].to(device), plan.labels[need.cell.labels_key]
    about = {"dataset": config.dataset, "noise": config.noise.slug(), "noise_seed": config.noise_seed}
    store.describe(need.buffer, about)
    store.touch(key)
    at_once = plan.sweep.experts.group_size(on_gpu=torch.device(device).type == "cuda")
    for group in need.groups(store, at_once):
        build_experts(data, labels, need.buffer, group, need.train_to, store)
        yield from ((key, index) for index in group)


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
    torch.set_num_threads(max(1, int(plan.sweep.resources.cpu)))
    needed = needs(plan, [cell])
    verify_experts(needed, store, rebuild)
    experts = None
    for key, need in needed.items():
        done = need.num_experts - len(store.missing(key, need.num_experts, need.train_to))
        watcher.experts(done, need.num_experts)
        for count, _ in enumerate(_build(plan, need, store, device), done + 1):
            watcher.experts(count, need.num_experts)
        arrays = [store.load(key, index, need.epochs) for index in range(need.num_experts)]
        experts = ArrayExperts(arrays, need.epochs, need.buffer.recipe.epochs, need.buffer.dtype)
    watcher.stage(f"distilling {job.trial}")
    inputs = TrialInputs(data, labels, experts, next(iter(needed), None))
    rows = run_trial(job.config, inputs, run / "trials" / job.trial, trial_options(plan.sweep, job))
    finished = ledger.publish(job.trial, rows, plan.sweep.search.select_on)
    ledger.consolidate()
    return finished
