"""What a sweep would do: cells, what is there already, what must be made, bytes and an estimate of the time."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddnl_ray.experts import ExpertStore
from ddnl_ray.experts.buffer import DTYPES
from ddnl_ray.models import Flat, build
from ddnl_ray.robust import Derived
from ddnl_ray.robust.rdc_experts import GoldenSource
from ddnl_ray.robust.stages import TunedSource
from ddnl_ray.seeds import SeedTree
from ddnl_ray.storage import Folder
from ddnl_ray.sweep.ledger import Ledger, trial_name
from ddnl_ray.sweep.needs import CellNeed, needs
from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.sweep.probe import Probe
from ddnl_ray.sweep.studies import Studies

_UNKNOWN = {"features": "training extractors", "cleaned": "cleaning labels"}
"""Derived things whose making takes no known number of epochs of an expert."""


@dataclass(frozen=True)
class _Work:
    """What the store lacks of a buffer.

    Attributes:
        need: What the sweep needs of it.
        experts: Experts to train, or to train on.
        epochs: Their epochs together, each as long as one of a plain expert.
        store_bytes: What they add to the store.
        object_store_bytes: What all experts take in the object store.
    """

    need: CellNeed
    experts: int
    epochs: float
    store_bytes: int
    object_store_bytes: int

    @classmethod
    def of(cls, plan: Plan, need: CellNeed, reach: list[int]) -> _Work:
        """Return what is to be done for experts that are stored up to the epochs ``reach``."""
        data, recipe = plan.data[need.cell.zca], need.buffer.recipe
        network = build(recipe.network, data.input_shape, data.num_classes, SeedTree.root(0).torch(), "cpu")
        dtype = DTYPES[need.buffer.dtype]
        weights, snapshot = (Flat(network).num_params * each.itemsize for each in (torch.float32, dtype))
        end = weights * ((dtype != torch.float32) + (recipe.momentum > 0))
        short = [epoch for epoch in reach if epoch < need.train_to]
        return cls(
            need,
            experts=len(short),
            epochs=sum(_epochs(need, epoch) for epoch in short),
            store_bytes=sum((need.train_to - epoch) * snapshot + end for epoch in short),
            object_store_bytes=need.num_experts * len(need.epochs) * snapshot,
        )


def _epochs(need: CellNeed, reach: int) -> float:
    """Return what an expert of a buffer lacks that is stored up to ``reach`` (-1: not at all), in plain epochs."""
    policy, last, done = need.buffer.policy, need.train_to, max(reach, 0)
    if isinstance(policy, TunedSource):
        return (last - reach) * policy.num_epochs
    if isinstance(policy, GoldenSource):
        return policy.plain_epochs(done, last, need.buffer.recipe.batch_size)
    return last - done


def estimate(plan: Plan, run: Path | Folder, store: ExpertStore) -> dict[str, Any]:
    """Return the plan in figures.

    Durations of trials come from finished trials of the same method and IPC where the run has some, else from timing
    a few steps on this machine with one thread.
    """
    ledger = Ledger(run)
    finished = ledger.finished()
    studies = Studies(plan, finished)
    needed = needs(plan, studies.remaining())
    probe = Probe(plan)
    works = [_Work.of(plan, need, store.reach(key, need.num_experts)) for key, need in needed.items()]
    known: dict[tuple[str, int | None], list[float]] = defaultdict(list)
    left: Counter[tuple[str, int | None]] = Counter()
    example: dict[tuple[str, int | None], Cell] = {}
    for cell in plan.cells:
        kind = cell.config.method, cell.config.ipc
        for number in range(cell.trials):
            name = trial_name(cell.name, number)
            if name in studies.ended:
                known[kind].append(studies.ended[name].wall_s)
            else:
                left[kind] += 1
                example[kind] = cell
    each = {
        kind: sum(known[kind]) / len(known[kind]) if known[kind] else probe.trial_seconds(example[kind])
        for kind in left
    }
    derived = _derived(plan, studies.remaining(), store)
    known_epochs = [(each.expert_epochs, cell) for each, cell in derived.values()]
    expert_seconds = sum(epochs * probe.epoch_seconds(cell) for epochs, cell in known_epochs if epochs)
    expert_seconds += sum(work.epochs * probe.epoch_seconds(work.need.cell) for work in works if work.epochs)
    total = expert_seconds + sum(each[kind] * count for kind, count in left.items())
    return {
        "run": ledger.folder.named(),
        "cells": len(plan.cells),
        "trials": plan.num_trials,
        "cached": studies.cached,
        "experts": sum(need.num_experts for need in needed.values()),
        "experts_cached": sum(work.need.num_experts - work.experts for work in works),
        "derived": sorted(each.kind for each, _ in derived.values()),
        "store_bytes": sum(work.store_bytes for work in works),
        "object_store_bytes": sum(work.object_store_bytes for work in works),
        "student_bytes": max((probe.student_bytes(cell) for cell in example.values()), default=0),
        "core_seconds": total,
        "trial_seconds": {f"{method} ipc {ipc}" if ipc else method: each[method, ipc] for method, ipc in each},
    }


def _derived(plan: Plan, cells: list[Cell], store: ExpertStore) -> dict[str, tuple[Derived, Cell]]:
    """Return what is to be derived, by key, each with a cell that needs it."""
    found = {}
    for cell in cells:
        preparation = plan.preparation(cell)
        if preparation is not None and not cell.prepares_itself:
            for each in (*preparation.first, *preparation.then):
                if not each.is_stored(store):
                    found[each.key] = each, cell
    return found


def estimate_text(plan: Plan, figures: dict[str, Any]) -> str:
    """Return the figures as lines for a person."""
    lines = [
        f"{plan.sweep.name}: {figures['cells']} cells, {figures['trials']} trials, {figures['cached']} there already"
    ]
    shown = plan.cells[:20]
    for cell in shown:
        study = f"{cell.trials} trials over {', '.join(cell.space)}" if cell.space else "1 trial"
        lines.append(f"  {cell.name}: {study}; {cell.source}")
    if len(plan.cells) > len(shown):
        lines.append(f"  ... and {len(plan.cells) - len(shown)} more")
    lines.append(
        f"experts: {figures['experts']} needed, {figures['experts_cached']} stored; "
        f"{figures['store_bytes'] / 2**20:.1f} MiB to write, "
        f"{figures['object_store_bytes'] / 2**20:.1f} MiB in the object store"
    )
    if figures["derived"]:
        counts = Counter(figures["derived"])
        named = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        unknown = [text for kind, text in _UNKNOWN.items() if kind in counts]
        without = f"; {' and '.join(unknown)} is not in the estimate" if unknown else ""
        lines.append(f"to make before: {named}{without}")
    own = [cell.name for cell in plan.cells if cell.prepares_itself]
    if own:
        lines.append(f"{len(own)} cells search what their experts depend on: each trial makes its own, not estimated")
    if figures["student_bytes"]:
        lines.append(f"up to {figures['student_bytes'] / 2**20:.0f} MiB for the student of a trial")
    for kind, seconds in figures["trial_seconds"].items():
        lines.append(f"about {seconds:.0f} s for a trial of {kind}")
    cpu, seconds = plan.sweep.resources.cpu, figures["core_seconds"]
    total = f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{seconds / 60:.1f} minutes"
    lines.append(f"estimate: {total} one trial at a time on this machine, divided by how many run at once")
    lines.append(f"each trial takes cpu {cpu:g}, gpu {plan.sweep.resources.gpu:g}; run without --dry-run to start")
    return "\n".join(lines)
