"""Whole sweeps, as a user runs them: what they leave, what they say, and that nothing is ever run twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner

from ddnl_ray.cli import cli
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ArrayExperts, ExpertStore
from ddnl_ray.files import read_json, read_tensors
from ddnl_ray.results import read_rows
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.local import build_all
from ddnl_ray.sweep.needs import needs
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Plan, make_plan
from ddnl_ray.sweep.read import read_sweep
from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.sweep.status import begin
from ddnl_ray.sweep.studies import Studies
from ddnl_ray.trial import TrialInputs, run_trial

pytestmark = pytest.mark.ray

Files = dict[str, tuple[int, bytes]]
VOLATILE = ["run", "wall_s", "peak_memory_bytes", "finished_at"]
LONGER = "grid.noise=[{kind: symmetric, rate: [0, 0.2, 0.4]}]"
SLOW = ["budget.iterations=60", "budget.checkpoint_seconds=0.05", "search.trials=8"]


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Compare tables of results, bit for bit."""
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def parts(run: Path) -> Files:
    """Return time and bytes of every part."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (run / "parts").glob("*.parquet")}


def ended(run: Path) -> int:
    """Return how many trials have ended."""
    return len(list((run / "parts").glob("*.parquet")))


def here(*arguments: object) -> str:
    """Run a command in this process; return what it prints."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    return done.stdout


def table(run: Path) -> Any:
    """Return what ``ddnl table --json`` prints."""
    return json.loads(here("table", run, "--json"))


def status(run: Path) -> Any:
    """Return what ``ddnl status --json`` prints."""
    return json.loads(here("status", run, "--json"))


def results(run: Path) -> pd.DataFrame:
    """Return the rows of a run, but for what differs from one time to the next."""
    return read_rows(run / "results.parquet").drop(columns=VOLATILE)


def run_alone(plan: Plan, run: Path, store: ExpertStore) -> None:
    """Run a plan one trial after the other in this process: what a sweep should give, without Ray or faults."""
    torch.set_num_threads(1)
    ledger = Ledger(run)
    ledger.open(plan.sweep)
    begin(plan, ledger)
    list(build_all(plan, store, "cpu", rebuild=False))
    studies = Studies(plan, {})
    while (job := studies.next()) is not None:
        cell, experts, key = job.cell, None, None
        for key, need in needs(plan, [cell]).items():
            arrays = [store.load(key, index, need.epochs) for index in range(need.num_experts)]
            experts = ArrayExperts(arrays, need.epochs, need.buffer.recipe.epochs, need.buffer.dtype)
        inputs = TrialInputs(plan.data[cell.zca], plan.labels[cell.labels_key], experts, key)
        rows = run_trial(job.config, inputs, run / "trials" / job.trial, trial_options(plan.sweep, job))
        studies.complete(job, ledger.publish(job.trial, rows, plan.sweep.search.select_on))
    ledger.consolidate()


@pytest.fixture(scope="module")
def store(shell: Any) -> ExpertStore:
    """The expert store of the shell."""
    return ExpertStore(Path(shell.environment["DDNL_STORE"]))


@pytest.fixture(scope="module")
def alone(shell: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The longer sweep, run in this process."""
    folder = tmp_path_factory.mktemp("alone")
    sweep = read_sweep(shell.folder / "tiny.yaml", None, (LONGER,))
    run_alone(make_plan(sweep), folder / "run", ExpertStore(folder / "store"))
    return folder / "run"


@pytest.fixture(scope="module")
def finished(shell: Any, store: ExpertStore) -> dict[str, Any]:
    """What ``ddnl sweep --rebuild`` said of the whole sweep; a stored expert was damaged before."""
    key = here("experts", "build", shell.folder / "tiny.yaml", "--store", store.root).split()[0]
    (segment,) = store.segments(key)[0]
    segment.data.write_bytes(segment.data.read_bytes()[:-4] + b"spam")
    said = shell.run("sweep", "tiny.yaml", "--json", "--cpus", 2, "--rebuild")
    assert said.code == 0, said.err
    shell.wait_until_gone()
    (shell.folder / "said.txt").write_text(said.err)
    return dict(json.loads(said.out))


@pytest.fixture(scope="module")
def run(shell: Any, finished: dict[str, Any]) -> Path:
    """The folder of that run."""
    return Path(shell.folder / finished["run"])


def test_a_sweep_says_what_it_did(finished: dict[str, Any]) -> None:
    assert finished == {
        "run": "runs/tiny",
        "cells": 6,
        "trials": 10,
        "done": 10,
        "failed": 0,
        "cached": 0,
        "not_done": [],
        "results": "runs/tiny/results.parquet",
        "report": "runs/tiny/report.html",
    }


def test_a_sweep_shows_its_progress_in_plain_lines(shell: Any, run: Path) -> None:
    lines = [line.partition("] ")[2] for line in (shell.folder / "said.txt").read_text().splitlines()]
    assert lines[0] == "starting Ray"
    assert "experts 4/4" in lines  # the damaged one was trained again
    assert "running trials" in lines
    assert lines[-1] == "cells 6/6, trials 10/10, running 0, failed 0"
    assert all(line.startswith(("starting", "experts", "running", "cells")) for line in lines)


def test_a_run_folder_holds_what_is_promised(run: Path) -> None:
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names >= {"sweep.yaml", "results.parquet", "parts", "summary.json", "report.html", "figures", "trials"}
    assert not (run / ".tune").exists()
    assert SweepFile.model_validate(yaml.safe_load((run / "sweep.yaml").read_text())).name == "tiny"
    assert read_json(run / "summary.json")["state"] == "finished"
    assert len(parts(run)) == 10
    assert any((run / "figures").iterdir())
    assert (run / "report.html").stat().st_size > 10_000


def test_every_distilled_set_has_its_card_and_preview(run: Path) -> None:
    distilled = {name.removesuffix(".parquet") for name in parts(run) if "_full_" not in name}
    assert {path.parent.name for path in (run / "trials").glob("*/card.json")} == distilled
    for name in distilled:
        folder = run / "trials" / name
        assert {path.name for path in folder.iterdir()} >= {"card.json", "distilled.safetensors", "preview.png"}
        assert not (folder / "checkpoint.safetensors").exists()
        images = read_tensors(folder / "distilled.safetensors")[0]["images"]
        assert images.shape == (10, 1, 8, 8)


def test_the_rows_are_complete(run: Path) -> None:
    frame = read_rows(run / "results.parquet")
    assert set(frame["outcome"]) == {"ok"}
    assert set(frame["split"]) == {"val_noisy", "val_clean", "test"}
    assert frame.groupby("cell")["trial"].nunique().sort_values().tolist() == [1, 1, 1, 1, 3, 3]
    best = frame[frame["is_selected"]].groupby("cell")["trial"].nunique()
    assert (best == 1).all()
    assert len(best) == 6
    trained = frame[frame["base_method"] == "datm"]
    assert trained["expert_key"].nunique() == 2
    assert (trained.groupby("trial")["params"].nunique() == 1).all()
    assert trained["params"].nunique() == 5  # the first trial of both cells is the recipe's own
    assert frame["wall_s"].gt(0).all()


def test_the_table_has_a_row_for_every_setting(run: Path) -> None:
    rows = table(run)
    assert {(row["base_method"], row["noise_rate"]) for row in rows} == {
        (method, rate) for method in ("full", "random", "datm") for rate in (0.0, 0.4)
    }
    assert {"n", "mean", "low", "high", "split", "variant", "label_set"} <= set(rows[0])


def test_the_status_of_a_finished_run(run: Path) -> None:
    found = status(run)
    assert (found["state"], found["cells_done"], found["done"]) == ("finished", 6, 10)
    assert found["running"] == []
    assert len(found["best"]) == 6


def test_the_studies_are_there_for_optunas_own_tools(run: Path) -> None:
    import optuna

    journal = optuna.storages.journal.JournalFileBackend(str(run / "studies.journal"))
    storage = optuna.storages.JournalStorage(journal)
    frame = read_rows(run / "results.parquet")
    names = optuna.get_all_study_names(storage)
    assert set(names) == set(frame[frame["base_method"] == "datm"]["cell"])
    for name in names:
        study = optuna.load_study(study_name=name, storage=storage)
        best = frame[(frame["cell"] == name) & frame["is_selected"] & (frame["split"] == "val_noisy")]
        assert len(study.trials) == 3
        assert study.best_value == pytest.approx(best["accuracy"].mean())
        assert study.best_params["lr_img"] == json.loads(best["params"].iloc[0])["lr_img"]


def test_the_same_command_again_runs_nothing(
    shell: Any, store: ExpertStore, finished: dict[str, Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_ray(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ddnl_ray.sweep.driver.ray_session", no_ray)
    monkeypatch.chdir(shell.folder)
    before, rows = parts(run), table(run)
    assert json.loads(here("sweep", "tiny.yaml", "--json", "--store", store.root)) == {**finished, "cached": 10}
    assert parts(run) == before
    assert table(run) == rows


def test_a_sweep_gives_what_its_trials_give_alone(run: Path, alone: Path) -> None:
    expected = results(alone)
    expected = expected[expected["noise_rate"] != 0.2].reset_index(drop=True)
    assert_same(results(run), expected)


def test_an_extension_that_is_interrupted_and_killed_runs_only_what_is_new(
    shell: Any, store: ExpertStore, run: Path, alone: Path
) -> None:
    """One more noise rate: Ctrl-C in the terminal, then a power failure, then the same command once more."""
    longer = run.parent / "longer"
    shutil.copytree(run, longer)
    old = parts(longer)
    where = ["tiny.yaml", "--name", "longer", "--set", LONGER, "--json"]
    command = ["sweep", *where, "--cpus", 2]
    absolute = ["sweep", shell.folder / "tiny.yaml", *where[1:], "--out", run.parent, "--store", store.root]
    plan = json.loads(here(*absolute, "--dry-run"))
    assert (plan["cells"], plan["trials"], plan["cached"], plan["experts"], plan["experts_cached"]) == (9, 15, 10, 2, 0)

    driver = shell.start(*command)
    shell.wait(driver, lambda: status(longer)["state"] == "running")
    with pytest.raises(RequestError, match=r"another `ddnl sweep` is running on .*longer; wait for it, or use another"):
        here(*absolute)
    shell.wait(driver, lambda: ended(longer) >= 11)
    os.killpg(driver.pid, signal.SIGINT)
    interrupted = shell.end(driver)
    assert interrupted.code == 130
    assert interrupted.err.endswith("ddnl: interrupted; run the same command again to continue\n")
    assert "Traceback" not in interrupted.err
    shell.wait_until_gone()
    first = parts(longer)
    assert 11 <= len(first) < 15
    assert {name: first[name] for name in old} == old
    found = status(longer)
    assert (found["state"], found["done"]) == ("interrupted (run the same command again to continue)", len(first))

    driver = shell.start(*command)
    shell.wait(driver, lambda: ended(longer) > len(first))
    shell.kill(driver)
    killed = parts(longer)
    assert {name: killed[name] for name in first} == first

    said = shell.run(*command)
    assert said.code == 0, said.err
    summary = json.loads(said.out)
    assert (summary["cells"], summary["trials"], summary["done"], summary["cached"]) == (9, 15, 15, len(killed))
    after = parts(longer)
    assert {name: after[name] for name in killed} == killed
    assert {name.split("_")[0] for name in set(after) - set(old)} == {"symmetric-0.2"}
    assert table(longer) == table(alone)
    assert_same(results(longer), results(alone))
    shell.wait_until_gone()


@pytest.fixture(scope="module")
def slow_alone(shell: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose trials last long enough to be killed in their middle, run in this process."""
    folder = tmp_path_factory.mktemp("slow")
    sweep = read_sweep(shell.folder / "tiny.yaml", None, tuple(SLOW))
    run_alone(make_plan(sweep), folder / "run", ExpertStore(folder / "store"))
    return folder / "run"


def shards(store: Path) -> int:
    return len(list(store.glob("*/expert-*.json")))


def checkpoints(run: Path) -> int:
    return len(list((run / "trials").glob("*/checkpoint.safetensors")))


MOMENTS: dict[str, Callable[[Path, Path], bool]] = {
    "first file": lambda run, store: (run / "sweep.yaml").exists(),
    "first expert": lambda run, store: shards(store) >= 1,
    "third expert": lambda run, store: shards(store) >= 3,
    "first checkpoint": lambda run, store: checkpoints(run) >= 1,
    "two checkpoints": lambda run, store: checkpoints(run) >= 2,
    "first trial": lambda run, store: ended(run) >= 1,
    "fifth trial": lambda run, store: ended(run) >= 5,
    "fifteenth trial": lambda run, store: ended(run) >= 15,
    "last trial": lambda run, store: ended(run) >= 20,
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moments", [[name] for name in MOMENTS] + [list(MOMENTS)], ids=" + ".join)
def test_a_sweep_killed_at_any_moment_ends_with_the_same_table(
    shell: Any, slow_alone: Path, moments: list[str], tmp_path: Path
) -> None:
    """Each time with an expert store of its own; the last case is killed at every one of the moments in turn."""
    run = tmp_path / "runs" / "tiny"
    changes = [word for change in SLOW for word in ("--set", change)]
    where = ["--out", run.parent, "--store", tmp_path / "store", "--cpus", 2]
    command = ["sweep", "tiny.yaml", "--json", *where, *changes]
    kept: Files = {}
    for moment in moments:
        driver = shell.start(*command)
        shell.wait(driver, lambda: MOMENTS[moment](run, tmp_path / "store"))  # noqa: B023
        shell.kill(driver)
        now = parts(run)
        assert {part: now[part] for part in kept} == kept
        kept = now
    done = shell.run(*command)
    assert done.code == 0, done.err
    assert json.loads(done.out)["cached"] == len(kept)
    after = parts(run)
    assert {part: after[part] for part in kept} == kept
    assert table(run) == table(slow_alone)
    assert_same(results(run), results(slow_alone))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_trials_whose_workers_are_killed_go_on(shell: Any, slow_alone: Path, tmp_path: Path) -> None:
    """As the kernel does where memory runs out."""
    run = tmp_path / "runs" / "tiny"
    changes = [word for change in SLOW for word in ("--set", change)]
    driver = shell.start("sweep", "tiny.yaml", "--json", "--out", run.parent, "--cpus", 2, *changes)
    for number in range(3):
        shell.wait(driver, lambda: ended(run) > 3 * number and checkpoints(run) >= 1)  # noqa: B023
        workers = [process for process in shell.descendants() if process.name().startswith("ray::Implicit")]
        workers[0].kill()
    done = shell.end(driver)
    assert done.code == 0, done.err
    assert_same(results(run), results(slow_alone))


def test_nothing_is_left_running(shell: Any) -> None:
    shell.wait_until_gone()
