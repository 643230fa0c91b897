"""The studies of a sweep: what comes next, whatever the order in which trials end and however often it is killed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnl_ray.results import Outcome
from ddnl_ray.seeds import SeedTree
from ddnl_ray.sweep.ledger import Finished
from ddnl_ray.sweep.plan import Plan, make_plan
from ddnl_ray.sweep.read import parse_sweep
from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.sweep.studies import Job, Studies

MakePlan = Callable[..., Plan]

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "data": {"subset": 400, "test_subset": 100},
    "grid": {"method": ["random", "datm"], "ipc": [1], "noise_seed": [0, 1]},
    "search": {"trials": 11, "parallel": 3, "space": {"datm.lr_img": {"log_uniform": [3, 100]}}},
    "model": {"name": "convnet1", "width": 4},
    "budget": {"iterations": 20},
    "stopper": {"kind": "asha", "grace": 2},
}


@pytest.fixture(scope="module")
def searched() -> Plan:
    """Two cells that search with 11 trials each, 3 at once, and two that do not search."""
    return make_plan(parse_sweep(DOCUMENT, "here"))


def objective(job: Job) -> Finished:
    """A trial that ends in a way that its name and parameters alone determine."""
    bits = SeedTree(("outcome", job.trial)).entropy()
    score = (bits >> 8) % 1000 / 1000 - abs(job.config.params.get("lr_img", 30) - 40) / 1000
    outcome = [Outcome.OK] * 7 + [Outcome.DIVERGED, Outcome.STOPPED, Outcome.FAILED]
    chosen = outcome[bits % 10]
    value = score if chosen is Outcome.OK else None
    return Finished(job.trial, job.config.params, chosen, "", value, {2: score, 6: score + 0.1}, 1.0)


class World:
    """Runs studies on a machine with ``width`` slots whose trials end in a random order."""

    def __init__(self, plan: Plan, finished: Mapping[str, Finished], width: int, seed: int) -> None:
        self.studies = Studies(plan, finished)
        self.width, self.random = width, random.Random(seed)
        self.started: dict[str, Job] = {}
        self.running: list[Job] = []
        self.ended: dict[str, Finished] = dict(finished)

    def run(self, stop_after: int | None = None) -> World:
        while stop_after is None or len(self.started) - len(self.running) < stop_after:
            while len(self.running) < self.width and (job := self.studies.next()) is not None:
                assert job.trial not in self.started, "a trial was started twice"
                self.started[job.trial] = job
                self.running.append(job)
                self.check_outstanding()
            if not self.running:
                break
            job = self.running.pop(self.random.randrange(len(self.running)))
            self.ended[job.trial] = objective(job)
            self.studies.complete(job, self.ended[job.trial])
        return self

    def check_outstanding(self) -> None:
        per_cell = Counter(job.cell.name for job in self.running)
        assert max(per_cell.values()) <= self.studies.plan.sweep.search.parallel

    def asked(self) -> dict[str, tuple[Any, Any]]:
        return {name: (job.config, dict(job.rungs)) for name, job in self.started.items()}


@pytest.fixture(scope="module")
def undisturbed(searched: Plan) -> World:
    return World(searched, {}, width=1, seed=0).run()


def test_every_trial_is_run_once(searched: Plan, undisturbed: World) -> None:
    assert len(undisturbed.started) == searched.num_trials == 2 * 11 + 2
    assert undisturbed.studies.is_exhausted
    assert undisturbed.studies.remaining() == []
    assert set(undisturbed.studies.ended) == set(undisturbed.started)
    assert undisturbed.studies.cached == 0


@given(width=st.integers(1, 8), seed=st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_trials_do_not_depend_on_the_order_in_which_others_end(
    searched: Plan, undisturbed: World, width: int, seed: int
) -> None:
    assert World(searched, {}, width, seed).run().asked() == undisturbed.asked()


@given(width=st.integers(1, 6), seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3), gap=st.integers(0, 7))
@settings(max_examples=12, deadline=None)
def test_a_killed_sweep_asks_for_what_the_undisturbed_one_does(
    searched: Plan, undisturbed: World, width: int, seeds: list[int], gap: int
) -> None:
    """Killed after some trials (what was running is lost), started again from the ledger, several times."""
    ledger: dict[str, Finished] = {}
    for seed in seeds:
        world = World(searched, ledger, width, seed).run(stop_after=gap)
        assert world.asked().items() <= undisturbed.asked().items()
        assert not {name for name in world.started if name in ledger and ledger[name].outcome.is_settled}
        ledger = world.ended
    last = World(searched, ledger, width, seeds[0]).run()
    assert last.asked().items() <= undisturbed.asked().items()
    assert last.ended == undisturbed.ended


def test_settled_trials_are_not_run_again(searched: Plan, undisturbed: World) -> None:
    again = World(searched, undisturbed.ended, 2, 0).run()
    failed = {name for name, result in undisturbed.ended.items() if result.outcome is Outcome.FAILED}
    assert failed
    assert set(again.started) == failed
    assert again.studies.cached == searched.num_trials - len(failed)


def test_more_trials_ask_for_the_new_ones_only(undisturbed: World) -> None:
    more = make_plan(parse_sweep({**DOCUMENT, "search": {**DOCUMENT["search"], "trials": 13}}, "here"))
    settled = {name: replace(result, outcome=Outcome.OK, value=0.5) for name, result in undisturbed.ended.items()}
    asked = World(more, settled, 2, 0).run().asked()
    assert len(asked) == 2 * 2
    assert {name[-4:] for name in asked} == {"0011", "0012"}


def test_cells_take_turns(searched: Plan) -> None:
    """Trial k of every cell comes before trial k + 1 of any, as long as slots allow."""
    studies = Studies(searched, {})
    started = []
    while (job := studies.next()) is not None:
        started.append(job)
    assert [job.trial[-4:] for job in started] == ["0000"] * 4 + ["0001"] * 2 + ["0002"] * 2
    assert [job.cell.name for job in started[:4]] == [cell.name for cell in searched.cells]


def test_at_most_parallel_trials_of_a_cell_are_outstanding(searched: Plan) -> None:
    """Trial 3 waits for trial 0, not for just any: it may see that one and no later one."""
    studies = Studies(searched, {})
    jobs: dict[str, Job] = {}
    while (job := studies.next()) is not None:
        jobs[job.trial] = job
    cell = next(cell for cell in searched.cells if cell.space).name
    for name in (f"{cell}-0001", f"{cell}-0002"):
        studies.complete(jobs[name], objective(jobs[name]))
        assert studies.next() is None
    studies.complete(jobs[f"{cell}-0000"], objective(jobs[f"{cell}-0000"]))
    ready = [studies.next() for _ in range(4)]
    assert [job.trial if job else None for job in ready] == [f"{cell}-000{number}" for number in (3, 4, 5)] + [None]


def test_exhausted_means_started_not_ended(plan: MakePlan) -> None:
    studies = Studies(plan("grid.noise=[{kind: none}]", "search.trials=1"), {})
    jobs = []
    while not studies.is_exhausted:
        job = studies.next()
        assert job is not None
        jobs.append(job)
    assert len(studies.remaining()) == len(jobs) == 3
    assert studies.next() is None
    for job in jobs:
        studies.complete(job, objective(job))
    assert studies.remaining() == []
    assert studies.is_exhausted


def test_the_first_trial_of_a_cell_is_the_recipes(searched: Plan, undisturbed: World) -> None:
    for cell in searched.cells:
        assert undisturbed.started[f"{cell.name}-0000"].config == cell.config


def test_a_job_changes_nothing_but_the_searched_parameters(undisturbed: World) -> None:
    for job in undisturbed.started.values():
        searched = {name: job.config.params[name] for name in job.cell.space}
        assert job.config == replace(job.cell.config, params={**job.cell.config.params, **searched})


def test_rungs_compare_trials_of_the_same_cell_only(plan: MakePlan) -> None:
    """One cell's trials all reach 0.9 and the other's 0.1: each later trial must pass its own cell's bar."""
    made = plan(
        "grid.method=[datm]",
        "search.trials=3",
        "search.parallel=1",
        "budget.iterations=20",
        "stopper={kind: asha, grace: 2}",
    )
    studies = Studies(made, {})
    level = {cell.name: value for cell, value in zip(made.cells, (0.9, 0.1), strict=True)}
    while (job := studies.next()) is not None:
        first = job.trial.endswith("0000")
        assert job.rungs == (
            {2: 0.0, 6: 0.0, 18: 0.0} if first else {2: pytest.approx(level[job.cell.name]), 6: 0, 18: 0}
        )
        value = level[job.cell.name]
        studies.complete(job, Finished(job.trial, job.config.params, Outcome.OK, "", value, {2: value}, 1.0))


def test_rungs_do_not_see_the_trials_that_a_suggestion_must_not_see(undisturbed: World) -> None:
    """With 3 at once, trial 3 sees trial 0 alone."""
    for name, job in undisturbed.started.items():
        if name.endswith("-0003"):
            first = undisturbed.ended[name[:-4] + "0000"]
            assert job.rungs[2] == pytest.approx(first.looks[2])


def test_a_cell_that_searches_nothing_is_never_stopped(plan: MakePlan) -> None:
    made = plan("search.space={}", "budget.iterations=20", "stopper={kind: asha, grace: 2}")
    started = World(made, {}, 8, 0).run().started
    assert {job.cell.config.method for job in started.values()} == {"full", "random", "datm"}
    assert all(job.rungs == {} for job in started.values())


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.DIVERGED, Outcome.TIMEOUT])
def test_only_trials_that_ended_well_teach_the_sampler(searched: Plan, outcome: Outcome) -> None:
    """Whatever value the others may carry."""
    asked = []
    for value in (None, 0.9):
        studies = Studies(searched, {})
        number, last = 0, {}
        while (job := studies.next()) is not None:
            number += 1
            ends = outcome if number % 3 == 0 else Outcome.OK
            given = value if ends is outcome else job.config.params.get("lr_img", 0) / 100
            studies.complete(job, Finished(job.trial, job.config.params, ends, "", given, {}, 1.0))
            last[job.cell.name] = job.config
        asked.append(last)
    assert asked[0] == asked[1]


def test_sweeps_differ_by_their_parallelism(sweep: Callable[..., SweepFile]) -> None:
    """What a suggestion may see is part of the cell's identity."""
    wide, narrow = make_plan(sweep("search.parallel=4")), make_plan(sweep("search.parallel=3"))
    pairs = zip(wide.cells, narrow.cells, strict=True)
    assert [a.name == b.name for a, b in pairs] == [True, True, False] * 2
