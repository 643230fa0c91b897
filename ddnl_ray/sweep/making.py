"""Making what a sweep's trials need, as Ray tasks: extractors, scores, labels, experts, golden sets, subsets, targets.

Every task waits for those that it depends on, and for nothing else, so that the machine stays full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from ddnl_ray.robust import Derived
from ddnl_ray.sweep.needs import CellNeed, needs
from ddnl_ray.sweep.plan import Cell
from ddnl_ray.sweep.shelf import Shelf
from ddnl_ray.sweep.watcher import Watcher
from ddnl_ray.trial.prepare import description


def make_all(ray: Any, shelf: Shelf, cells: Iterable[Cell], watcher: Watcher, deadline: float = math.inf) -> bool:
    """Make what the store lacks for the cells whose trials do not prepare themselves.

    Returns:
        Whether all was made before the deadline (seconds since 1970). What was not is dropped with the session of Ray;
        what was is in the store.
    """
    cells = list(cells)
    making = _Making(shelf, needs(shelf.plan, cells))
    for cell in cells:
        making.start(cell)
    total = sum(need.num_experts for need in making.needed.values())
    done = total - sum(making.experts.values())
    if total:
        watcher.experts(done, total)
    if making.kinds:
        watcher.stage(f"making {', '.join(sorted(making.kinds))}")
    waiting = [reference for references in making.references.values() for reference in references]
    while waiting:
        left = deadline - time.time()
        done_now, waiting = ray.wait(waiting, num_returns=1, timeout=None if left == math.inf else max(0.0, left))
        if not done_now:
            return False
        (ready,) = done_now
        ray.get(ready)
        if ready in making.experts:
            done += making.experts[ready]
            watcher.experts(done, total)
    return True


class _Making:
    """The tasks that were started.

    Args:
        shelf: Data and labels in the object store.
        needed: The buffers that the cells need together.

    Attributes:
        references: The tasks that make a thing, by its key; none where the store holds it.
        experts: How many experts a task trains, of those that train experts.
        kinds: The kinds of derived things that are made.
    """

    def __init__(self, shelf: Shelf, needed: dict[str, CellNeed]) -> None:
        self.shelf, self.needed = shelf, needed
        self.references: dict[str, list[Any]] = {}
        self.experts: dict[Any, int] = {}
        self.kinds: set[str] = set()

    def start(self, cell: Cell) -> None:
        """Start what a cell needs and nothing before it did."""
        preparation = self.shelf.plan.preparation(cell)
        if preparation is None or cell.prepares_itself:
            return
        after: list[Any] = []
        for stage, buffer in preparation.stages:
            for derived in stage:
                after = [*after, *self._derive(derived, cell, after)]
            if buffer is not None:
                after = [*after, *self._train(self.needed[buffer.key], after)]

    def _derive(self, derived: Derived, cell: Cell, after: list[Any]) -> list[Any]:
        from ddnl_ray.sweep.worker import run_derived

        if derived.key not in self.references:
            self.references[derived.key] = []
            if not derived.is_made(self.shelf.store.root):
                self.kinds.add(derived.kind)
                self.references[derived.key] = [self._task(run_derived, cell, after, derived)]
        return self.references[derived.key]

    def _train(self, need: CellNeed, after: list[Any]) -> list[Any]:
        from ddnl_ray.sweep.worker import run_experts

        shelf, key = self.shelf, need.buffer.key
        if key in self.references:
            return self.references[key]
        self.references[key] = []
        sweep = shelf.plan.sweep
        groups = need.groups(shelf.store, sweep.experts.group_size(on_gpu=sweep.resources.gpu > 0))
        if groups:
            shelf.store.describe(need.buffer, description(need.cell.config))
        for group in groups:
            reference = self._task(run_experts, need.cell, after, need.buffer, group, need.train_to)
            self.experts[reference] = len(group)
            self.references[key].append(reference)
        return self.references[key]

    def _task(self, function: Any, cell: Cell, after: list[Any], *what: Any) -> Any:
        """Start a task that waits for others; return its reference."""
        shelf, resources = self.shelf, self.shelf.plan.sweep.resources
        data, labels = shelf.data(cell), shelf.labels(cell)
        task = function.options(num_cpus=resources.cpu, num_gpus=resources.gpu)
        place = shelf.root, resources.cpu, resources.gpu
        return task.remote(data.arrays, data.meta, labels, *what, *place, *after)
