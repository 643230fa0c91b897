"""How far a run is, told from its folder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.errors import RequestError
from ddnl_ray.files import read_json, write_json
from ddnl_ray.sweep.ledger import Ledger, trial_name
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.status import begin, conclude, read_status, status_text

Row = dict[str, Any]


@pytest.fixture
def small(plan: Callable[..., Plan]) -> Plan:
    """A cell of one trial (random) and one of three (datm)."""
    return plan("grid.noise=[{kind: none}]", "grid.method=[random, datm]")


@pytest.fixture
def ledger(tmp_path: Path, small: Plan) -> Ledger:
    ledger = Ledger(tmp_path / "run")
    ledger.open(small.sweep)
    begin(small, ledger)
    return ledger


@pytest.fixture
def publish(ledger: Ledger, row: Callable[..., Row]) -> Callable[..., str]:
    def publish(cell: str, number: int, accuracy: float | None, **values: Any) -> str:
        name = trial_name(cell, number)
        if accuracy is None:
            values = {"split": None, "is_final": False, "is_selected": False, **values}
        ledger.publish(name, [row(cell, name, accuracy, **values)], "val_noisy")
        return name

    return publish


def test_a_run_that_has_just_started(ledger: Ledger, small: Plan) -> None:
    with ledger.lock():
        status = read_status(ledger.run)
    assert status == {
        "run": str(ledger.run),
        "state": "running",
        "cells": 2,
        "cells_done": 0,
        "trials": 4,
        "done": 0,
        "outcomes": {},
        "failed": {},
        "select_on": "val_noisy",
        "best": {},
        "running": [],
        "object_store": {"nodes": [], "streamed": {}},
        "stragglers": [],
    }


def test_a_run_whose_driver_is_gone_was_interrupted(ledger: Ledger) -> None:
    assert read_status(ledger.run)["state"] == "interrupted (run the same command again to continue)"


def test_a_run_in_its_middle(ledger: Ledger, small: Plan, publish: Callable[..., str]) -> None:
    random, datm = (cell.name for cell in small.cells)
    publish(random, 0, 0.25)
    publish(datm, 0, 0.5)
    failed = publish(datm, 1, None, outcome="oom", message="The device ran out of memory.")
    publish("gone", 0, 0.9)
    for name in (trial_name(datm, 1), trial_name(datm, 2), trial_name("gone", 1)):
        progress = {"trial": name, "iteration": 40, "iterations": 100, "looks": []}
        write_json(ledger.run / "trials" / name / "progress.json", progress)
    status = read_status(ledger.run)
    assert (status["cells_done"], status["trials"], status["done"]) == (1, 4, 3)
    assert status["outcomes"] == {"ok": 2, "oom": 1}
    assert status["failed"] == {failed: "The device ran out of memory."}
    assert status["best"] == {random: 0.25, datm: 0.5}
    assert status["running"] == [{"trial": trial_name(datm, 2), "iteration": 40, "of": 100}]
    assert status_text(status).splitlines() == [
        f"{ledger.run}: interrupted (run the same command again to continue)",
        "cells 1/2, trials 3/4, failed 1",
        f"  {random}  best val_noisy 0.250" if random < datm else f"  {datm}  best val_noisy 0.500",
        f"  {datm}  best val_noisy 0.500" if random < datm else f"  {random}  best val_noisy 0.250",
        f"  in progress {trial_name(datm, 2)}: iteration 40 of 100",
        f"  failed {failed}: The device ran out of memory.",
    ]


def test_a_trial_that_takes_far_longer_than_those_of_its_cell_is_named(
    ledger: Ledger, small: Plan, publish: Callable[..., str]
) -> None:
    """The cell's trials took 10 s; one runs for 4 + 25 s, one for 4 + 27 s, and one of the other cell for ever."""
    random, datm = (cell.name for cell in small.cells)
    publish(datm, 0, 0.5, wall_s=10.0)
    for name, at in ((trial_name(datm, 1), 975.0), (trial_name(datm, 2), 973.0), (trial_name(random, 0), 0.0)):
        progress = {"trial": name, "iteration": 1, "iterations": 9, "looks": [], "wall_s": 4.0, "written_at": at}
        write_json(ledger.run / "trials" / name / "progress.json", progress)
    with ledger.lock():
        status = read_status(ledger.run, now=1000.0)
    (found,) = status["stragglers"]
    assert (found["trial"], found["seconds"], found["median"]) == (trial_name(datm, 2), 31.0, 10.0)
    said = (
        f"straggler {found['trial']}: it has run for 31 s, 3.1 times the median of its cell's 1 trials (10 s), and was"
    )
    assert said in status_text(status)
    assert read_status(ledger.run, now=1000.0)["stragglers"] == []  # its driver is gone


def test_cells_that_no_time_was_left_for_are_named(ledger: Ledger, small: Plan, publish: Callable[..., str]) -> None:
    random, datm = (cell.name for cell in small.cells)
    publish(random, 0, 0.25)
    publish(datm, 0, 0.5)
    summary, failed = conclude(small, ledger, set(), None)
    assert (summary["not_done"], failed) == ([datm], [])
    assert read_status(ledger.run)["state"].startswith("out of time (run the same command again")


def test_a_stopped_trial_has_not_failed(ledger: Ledger, small: Plan, publish: Callable[..., str]) -> None:
    publish(small.cells[1].name, 0, None, outcome="stopped", message="others were better")
    assert read_status(ledger.run)["failed"] == {}


def test_the_end_of_a_sweep(ledger: Ledger, small: Plan, publish: Callable[..., str]) -> None:
    random, datm = (cell.name for cell in small.cells)
    before = {publish(random, 0, 0.25), publish("gone", 0, 0.9)}
    publish(datm, 0, 0.5)
    publish(datm, 1, None, outcome="stopped")
    failed = publish(datm, 2, None, outcome="diverged", message="the loss rose")
    publish(datm, 3, 0.9)  # of a longer study, before
    summary, bad = conclude(small, ledger, before, ledger.run / "report.html")
    assert summary == {
        "run": str(ledger.run),
        "cells": 2,
        "trials": 4,
        "done": 3,
        "failed": 1,
        "cached": 1,
        "not_done": [],
        "results": str(ledger.run / "results.parquet"),
        "report": str(ledger.run / "report.html"),
    }
    assert [(result.trial, result.message) for result in bad] == [(failed, "the loss rose")]
    written = {**summary, "cells": {random: 1, datm: 3}, "state": "finished", "select_on": "val_noisy"}
    written["data"] = [{"dataset": "digits", "train_images": 360, "classes": 10}]
    assert read_json(ledger.run / "summary.json") == written
    assert read_status(ledger.run)["state"] == "finished"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=rf"^{tmp_path} is not the folder of a run that has started: it has no summary"
    ):
        read_status(tmp_path)
