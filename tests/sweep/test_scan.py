"""The studies' bookkeeping against the plain one, which looks at every trial of every cell each time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnl_ray.results import Outcome
from ddnl_ray.sweep.ledger import Finished, trial_name
from ddnl_ray.sweep.plan import Cell, Plan, make_plan
from ddnl_ray.sweep.read import parse_sweep
from ddnl_ray.sweep.studies import Job, Studies

Finishes = dict[str, Finished]


class Scan:
    """What is ready, exhausted and left, by looking at everything."""

    def __init__(self, plan: Plan, finished: Mapping[str, Finished]) -> None:
        self.plan, self.next_of = plan, dict.fromkeys((cell.name for cell in plan.cells), 0)
        names = {trial_name(cell.name, number) for cell in plan.cells for number in range(cell.trials)}
        self.ended = {name: r for name, r in finished.items() if name in names and r.outcome.is_settled}

    def _has(self, cell: Cell, number: int) -> bool:
        return trial_name(cell.name, number) in self.ended

    def _number(self, cell: Cell) -> int:
        later = range(self.next_of[cell.name], cell.trials)
        return next((number for number in later if not self._has(cell, number)), cell.trials)

    def _spent(self, cell: Cell) -> bool:
        own = [self.ended[trial_name(cell.name, n)].wall_s for n in range(cell.trials) if self._has(cell, n)]
        budget = self.plan.sweep.budget.cell_seconds
        return budget is not None and sum(own) >= budget

    def next(self) -> str | None:
        found = []
        for order, cell in enumerate(self.plan.cells):
            number = self._number(cell)
            seen = range(number - self.plan.sweep.search.parallel + 1)
            if number < cell.trials and not self._spent(cell) and all(self._has(cell, one) for one in seen):
                found.append((number, order))
        if not found:
            return None
        number, order = min(found)
        cell = self.plan.cells[order]
        self.next_of[cell.name] = number + 1
        return trial_name(cell.name, number)

    @property
    def is_exhausted(self) -> bool:
        return all(self._number(cell) >= cell.trials or self._spent(cell) for cell in self.plan.cells)

    def remaining(self) -> list[Cell]:
        return [cell for cell in self.plan.cells if not all(self._has(cell, n) for n in range(cell.trials))]


@pytest.fixture(scope="module")
def plans() -> dict[tuple[int, float | None], Plan]:
    """Six cells, three of which search with nine trials, by ``parallel`` and the seconds of a cell."""
    document: dict[str, Any] = {
        "name": "scan",
        "data": {"subset": 400, "test_subset": 100},
        "grid": {"method": ["random", "dm"], "ipc": [1], "seed": [0, 1, 2]},
        "model": {"name": "convnet1", "width": 4},
    }
    made = {}
    for parallel, seconds in itertools.product((1, 3), (None, 12.0)):
        search = {
            "trials": 9,
            "parallel": parallel,
            "sampler": "random",
            "space": {"dm.lr_img": {"log_uniform": [0.1, 10]}},
        }
        changed = {**document, "search": search, "budget": {"cell_seconds": seconds}}
        made[parallel, seconds] = make_plan(parse_sweep(changed, "here"))
    return made


def finished(job: Job, draw: random.Random) -> Finished:
    outcome = draw.choice([Outcome.OK, Outcome.OK, Outcome.DIVERGED, Outcome.FAILED, Outcome.TIMEOUT, Outcome.STOPPED])
    value = draw.random() if outcome is Outcome.OK else None
    return Finished(job.trial, job.config.params, outcome, "", value, {}, draw.choice([1.0, 2.5, 4.0]))


def _course(plan: Plan, ledger: Finishes, width: int, draw: random.Random, steps: int) -> Iterator[tuple[Any, Any]]:
    """Run both at once; yield what the one and the other says."""
    fast, slow, running = Studies(plan, ledger), Scan(plan, ledger), list[Job]()
    yield fast.cached, len(slow.ended)
    for _ in range(steps):
        if len(running) < width and draw.random() < 0.7:
            job, name = fast.next(), slow.next()
            yield (job.trial if job else None), name
            if job is not None:
                running.append(job)
        elif running:
            job = running.pop(draw.randrange(len(running)))
            ledger[job.trial] = slow.ended[job.trial] = finished(job, draw)
            fast.complete(job, ledger[job.trial])
        yield fast.is_exhausted, slow.is_exhausted
        yield fast.remaining(), slow.remaining()
        yield fast.cells_done, len(plan.cells) - len(slow.remaining())
        yield dict(fast.ended), slow.ended
        yield fast.failed, sum(r.outcome not in (Outcome.OK, Outcome.STOPPED) for r in slow.ended.values())


@given(
    parallel=st.sampled_from([1, 3]),
    seconds=st.sampled_from([None, 12.0]),
    width=st.integers(1, 12),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=15, deadline=None)
def test_the_studies_say_what_a_scan_of_everything_says(
    plans: dict[tuple[int, float | None], Plan],
    parallel: int,
    seconds: float | None,
    width: int,
    steps: list[int],
    seed: int,
) -> None:
    """Through several runs: each starts from the ledger that the one before left when it was killed."""
    plan, draw, ledger = plans[parallel, seconds], random.Random(seed), Finishes()
    for count in steps:
        for ours, theirs in _course(plan, ledger, width, draw, count):
            assert ours == theirs


def test_a_cell_grants_a_trial_what_its_budget_leaves(plans: dict[tuple[int, float | None], Plan]) -> None:
    studies = Studies(plans[1, 12.0], {})
    granted = []
    while (job := studies.next()) is not None:
        if job.cell is plans[1, 12.0].cells[-1]:
            granted.append(job.limit_s)
        studies.complete(job, Finished(job.trial, job.config.params, Outcome.OK, "", 0.5, {}, 5.0))
    assert granted == [12.0, 7.0, 2.0]
    assert studies.is_exhausted
    assert len(studies.remaining()) == 3
