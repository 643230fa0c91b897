"""What a person sees while a sweep runs, on a terminal and elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from ddnl_ray.results import Outcome
from ddnl_ray.sweep.ledger import Finished
from ddnl_ray.sweep.live import StatusWatcher
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.studies import Job, Studies


@pytest.fixture
def small(plan: Callable[..., Plan]) -> Plan:
    """A cell of one trial (random) and one of three (datm)."""
    return plan("grid.noise=[{kind: none}]", "grid.method=[random, datm]", "search.parallel=4")


def ended(job: Job, outcome: Outcome = Outcome.OK, value: float | None = 0.5, message: str = "") -> Finished:
    return Finished(job.trial, job.config.params, outcome, message, value, {}, 60.0)


def start_all(studies: Studies) -> list[Job]:
    jobs = []
    while (job := studies.next()) is not None:
        jobs.append(job)
    return jobs


def said(watch: Callable[[StatusWatcher], None], terminal: bool = False) -> list[str]:
    """Return what a watcher writes, without its clock."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
    with StatusWatcher(console) as watcher:
        watch(watcher)
    return [line.partition("] ")[2] or line for line in file.getvalue().splitlines()]


def test_plain_lines_are_few(small: Plan) -> None:
    studies = Studies(small, {})
    jobs = start_all(studies)

    def watch(watcher: StatusWatcher) -> None:
        watcher.stage("starting Ray")
        for done in range(5):
            watcher.experts(done, 4)
        watcher.trials(studies, 4)
        for number, job in enumerate(jobs):
            studies.complete(job, ended(job))
            watcher.trials(studies, 3 - number)

    lines = said(watch)
    assert lines[:3] == ["starting Ray", "experts 0/4", "experts 4/4"]
    assert lines[3:] == ["cells 2/2, trials 4/4, running 0, failed 0"]


def test_failures_are_said_at_once_and_once(small: Plan) -> None:
    studies = Studies(small, {})
    jobs = start_all(studies)

    def watch(watcher: StatusWatcher) -> None:
        watcher.trials(studies, 4)
        studies.complete(jobs[0], ended(jobs[0], Outcome.OOM, None, "The device ran out of memory."))
        watcher.trials(studies, 3)
        studies.complete(jobs[1], ended(jobs[1], Outcome.STOPPED, None))
        watcher.trials(studies, 2)
        studies.complete(jobs[2], ended(jobs[2], Outcome.DIVERGED, None, "The loss rose."))
        watcher.last_line = -1e9
        watcher.trials(studies, 0)

    lines = said(watch)
    assert lines.count(f"oom: {jobs[0].trial}: The device ran out of memory.") == 1
    assert lines.count(f"diverged: {jobs[2].trial}: The loss rose.") == 1
    assert not [line for line in lines if line.startswith("stopped")]
    assert lines[-1] == "cells 1/2, trials 3/4, running 0, failed 2, about 1:00 left"


def test_what_was_there_before_is_counted_and_not_announced(small: Plan) -> None:
    jobs = start_all(Studies(small, {}))
    there = {job.trial: ended(job, Outcome.DIVERGED, None, "The loss rose.") for job in jobs}
    studies = Studies(small, there)
    assert said(lambda watcher: watcher.trials(studies, 0)) == ["cells 2/2, trials 4/4, running 0, failed 4, cached 4"]


def test_the_time_left_follows_from_the_trials_that_ran(small: Plan) -> None:
    """Trials of a minute each: two left, one at a time."""
    studies = Studies(small, {})
    jobs = start_all(studies)

    def watch(watcher: StatusWatcher) -> None:
        watcher.trials(studies, 4)
        for job in jobs[:2]:
            studies.complete(job, ended(job))
        watcher.last_line = -1e9
        watcher.trials(studies, 1)

    lines = said(watch)
    assert lines[-1] == "cells 1/2, trials 2/4, running 1, failed 0, about 2:00 left"


def test_a_terminal_shows_the_best_so_far(small: Plan) -> None:
    studies = Studies(small, {})
    jobs = start_all(studies)

    def watch(watcher: StatusWatcher) -> None:
        watcher.trials(studies, 4)
        for job, value in zip(jobs, (0.25, 0.5, 0.75), strict=False):
            studies.complete(job, ended(job, value=value))
        watcher.trials(studies, 1)

    text = "\n".join(said(watch, terminal=True))
    assert "best val_noisy" in text
    for job, best, count in ((jobs[0], "0.250", 1), (jobs[1], "0.750", 2)):
        line = next(line for line in reversed(text.splitlines()) if job.cell.name.rsplit("-", 1)[0] in line)
        assert line.split()[-2:] == [best, str(count)]
