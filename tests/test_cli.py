"""The command line: what it offers, prints and refuses, and its exit codes. Nothing here starts Ray."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from ddnl_ray import __version__
from ddnl_ray.cli import cli, main
from ddnl_ray.errors import StorageError
from ddnl_ray.results import read_rows

SWEEP = """
name: one
data: {name: digits, subset: 400, test_subset: 100}
grid:
  noise: [{kind: symmetric, rate: 0.4}]
  method: [datm]
  ipc: [1]
params: {datm.max_start_epoch: 2, datm.current_max_start_epoch: 1, datm.expert_epochs: 1, datm.syn_steps: 2}
evaluate: {repeats: 3}
budget: {experts: 2, expert_epochs: 3, iterations: 3, eval_epochs: 5, full_epochs: 2}
model: {name: convnet1, width: 4}
profiles:
  wide: {model: {width: 8}}
"""

OPTIONS = {
    "sweep": "--profile --set --name --out --store --address --cpus --gpus --rebuild --json --dry-run",
    "distill": "--profile --set --name --out --store --device --rebuild --json",
    "status": "--json",
    "table": "--split --paper --number --md --latex --html --json",
    "report": "--out",
    "dashboard": "--port",
    "analyze": (
        "--split --rival --measure --measure-epochs --measure-samples --i-min --i-clean --redundancy --device --json"
    ),
    "compare": "--paper --all --md --latex --json",
    "show": "--json",
    "evaluate": "--network --width --epochs --repeats --data --root --device --seed --json",
    "verify": "--repeats --data --root --device --seed --json",
    "export": "--format --out --formation --json",
    "doctor": "--no-ray --out --store --json",
    "sweeps ls": "--json",
    "recipe show": "--noise --json",
    "noise-rate": (
        "--labels --root --size --subset --out --json --epochs --folds --features --seed --device --alpha "
        "--calibrated-on --ipc --corrupt"
    ),
    "experts ls": "--store --json",
    "experts build": "--profile --set --store --device --rebuild",
    "experts export": "--all --out --store --json",
    "experts import": "--store --json",
    "experts gc": "--store --unused-days",
    "data ls": "",
    "data check": "--root --labels --size --download",
    "cluster check": "--json",
    "simulate": "--profile --set --store --cluster --like --out --json",
}

LAZY = """
import sys
import ddnl_ray.cli
heavy = {"ray", "torch", "pandas", "optuna", "matplotlib", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""

DISTILL = """
import sys
from ddnl_ray.cli import main
sys.argv = ["ddnl", "distill", *sys.argv[1:]]
try:
    main()
finally:
    assert "ray" not in sys.modules, "Ray was imported"
"""


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)


Ddnl = Callable[..., Said]


@pytest.fixture
def ddnl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ddnl:
    """Run a command in this process, in a folder of its own; it must not start Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDNL_STORE", str(tmp_path / "store"))

    def no_ray(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ddnl_ray.sweep.driver.ray_session", no_ray)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ddnl", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep file of one trial."""
    path = tmp_path / "one.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of that file, made by ``ddnl distill`` in a process that must not import Ray."""
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "one.yaml").write_text(SWEEP)
    environment = {**os.environ, "DDNL_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", DISTILL, "one.yaml", "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout)
    return folder / "runs" / "one"


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)


def test_commands_and_options_are_those_that_scripts_rely_on() -> None:
    found = {}
    for name, command in commands(cli):
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        found[name] = sorted(options)
    assert found == {name: sorted(options.split()) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_explains_itself_with_an_example(ddnl: Ddnl, name: str) -> None:
    said = ddnl(*name.split(), "--help")
    assert said.code == 0
    assert f"Example:  ddnl {name}" in said.out


def test_version_and_help(ddnl: Ddnl) -> None:
    assert __version__ in ddnl("--version").out
    assert "Start with:  ddnl sweep" in ddnl("-h").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "No such command 'swep'"),
        (["sweep", "one.yaml", "--cpu", "1"], "No such option"),
        (["sweep", "one.yaml", "--cpus", "two"], "'two' is not a valid integer"),
        (["sweep"], "Missing argument 'FILE'"),
        (["distill", "one.yaml", "--device", "gpu"], "'gpu' is not a device here"),
    ],
)
def test_wrong_command_lines_end_with_2(ddnl: Ddnl, file: Path, arguments: list[str], message: str) -> None:
    said = ddnl(*arguments)
    assert said.code == 2
    assert message in said.err


WRONG = [
    (["--set", "budgt.experts=1"], "unknown key 'budgt': did you mean 'budget'? Known: budget, cleaner, data, "),
    (["--set", "budget.expert=1"], "unknown key 'budget.expert': did you mean 'experts'? Known: "),
    (["--set", "grid.ipcs=[1]"], "grid.ipcs: unknown key: did you mean 'ipc'?"),
    (["--set", "params.datm.lr_imgs=1"], "params.datm.lr_imgs: no chosen method has it: did you mean 'datm.lr_img'?"),
    (["--set", "grid.method=[dtm]"], "unknown method 'dtm': did you mean 'datm'? Known: "),
    (["--set", "grid.method=[datm+tab]"], "unknown method 'datm+tab': did you mean 'datm+tad'?"),
    (
        ["--set", "data.name=cifar10", "--set", "data.root=nowhere"],
        "cifar10 is not there: looked for nowhere/cifar-10-",
    ),
    (["--set", "data.name='folder:nowhere'", "--set", "data.size=8"], "no folder at nowhere"),
    (["--set", "grid.ipc=[99]"], "grid.ipc: 99 is larger than class"),
    (["--set", "grid.noise=[{kind: symmetric, rate: 1.0}]"], "noise rate must be in [0, 1), but got 1.0"),
    (["--set", "grid.noise=[{kind: symmetric, rate: -0.2}]"], "noise rate must be in [0, 1), but got -0.2"),
    (["--set", "search.select_on=val_clan"], "'val_noisy', 'val_clean' or 'test', but got 'val_clan'"),
    (["--set", "model.name=convnet6"], "convnet6 is too deep for images of 8 x 8 pixels"),
    (["--set", "budget.expert_epochs=1"], "datm reads experts up to epoch 2"),
    (["--set", "name"], "--set needs key=value, but got 'name'"),
    (["--set", "grid.ipc=[1"], "--set grid.ipc: '[1' is not a YAML value"),
    (["--profile", "wid"], "unknown profile 'wid' in one.yaml: did you mean 'wide'? Known: wide"),
]


@pytest.mark.parametrize("command", ["sweep", "distill", "sweep --dry-run", "experts build"])
@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_requests_end_with_2_before_any_compute(
    ddnl: Ddnl, file: Path, tmp_path: Path, command: str, arguments: list[str], message: str
) -> None:
    said = ddnl(*command.split(), "one.yaml", *arguments)
    assert said.code == 2
    assert said.err.startswith("ddnl: ")
    assert message in said.err
    assert said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["one.yaml"]


def test_a_name_that_is_no_folder_name_ends_with_2(ddnl: Ddnl, file: Path) -> None:
    said = ddnl("sweep", "one.yaml", "--name", "a/b")
    assert said.code == 2
    assert "name: String should match pattern" in said.err


def test_a_missing_file_ends_with_2(ddnl: Ddnl) -> None:
    said = ddnl("sweep", "two.yaml")
    assert said.code == 2
    assert "ddnl: sweep file two.yaml does not exist; `sweeps/` holds the ones that ship with ddnl-ray" in said.err


@pytest.mark.parametrize("command", ["sweep", "distill"])
def test_a_strangers_folder_ends_with_2_and_is_left_alone(ddnl: Ddnl, file: Path, tmp_path: Path, command: str) -> None:
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    said = ddnl(command, file)
    assert said.code == 2
    assert "runs/one exists and is not a run folder (it holds 'thesis.tex' and no sweep.yaml)" in said.err
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_damaged_expert_ends_with_2_and_is_made_again_on_request(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    built = ddnl("experts", "build", file)
    assert built.code == 0
    key = built.out.split()[0]
    assert built.out.splitlines() == [f"{key} expert 0", f"{key} expert 1"]
    segment = tmp_path / "store" / key / "expert-00001.00000-00003.safetensors"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-9] + bytes([whole[-9] ^ 0xFF]) + whole[-8:])
    for command in (["sweep", file], ["distill", file], ["experts", "build", file]):
        said = ddnl(*command)
        assert said.code == 2
        assert f"expert segment {segment} is corrupt: snapshot 3 does not match its checksum" in said.err
        assert "--rebuild" in said.err
    again = ddnl("experts", "build", file, "--rebuild")
    assert (again.code, again.out) == (0, f"{key} expert 1\n")
    assert segment.read_bytes() == whole
    assert ddnl("experts", "build", file).out == ""


def test_the_plan_of_a_dry_run(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    said = ddnl("sweep", file, "--dry-run", "--json", "--set", "grid.method=[full, datm]", "--set", "grid.ipc=[1, 2]")
    assert said.code == 0
    plan = said.json
    assert set(plan) == {
        *("run", "cells", "trials", "cached", "experts", "experts_cached", "derived"),
        *("store_bytes", "object_store_bytes", "student_bytes", "core_seconds", "trial_seconds"),
    }
    assert plan["student_bytes"] > 0
    assert (plan["run"], plan["cells"], plan["trials"], plan["cached"]) == ("runs/one", 3, 3, 0)
    weights = 4 * 9 * 1 + 4 + 2 * 4 + (4 * 4 * 4 + 1) * 10
    assert (plan["experts"], plan["experts_cached"]) == (2, 0)
    assert plan["store_bytes"] == 2 * 4 * weights * 4  # experts, snapshots, weights, bytes
    assert plan["object_store_bytes"] == 2 * 4 * weights * 4
    assert set(plan["trial_seconds"]) == {"full", "datm ipc 1", "datm ipc 2"}
    assert plan["core_seconds"] > 0
    assert plan["derived"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["one.yaml"]


def test_a_dry_run_names_what_robust_methods_need(ddnl: Ddnl, file: Path) -> None:
    methods = ["--set", "grid.method=[datm, datm+tad, datm+sgr+tiat]"]
    plan = ddnl("sweep", file, "--dry-run", "--json", *methods).json
    assert plan["derived"] == ["curated", "features", "forgotten", "reliable"]
    assert plan["experts"] == 4 * 2  # plain, on curated labels, weighed, and tuned
    words = ddnl("sweep", file, "--dry-run", *methods).out
    assert "to make before: 1 curated, 1 features, 1 forgotten, 1 reliable; training extractors is not" in words
    space = ["--set", "search={trials: 2, space: {tad.top_k: {choice: [5, 10]}}}"]
    assert "1 cells search what their experts depend on" in ddnl("sweep", file, "--dry-run", *methods, *space).out


def test_a_dry_run_in_words(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    space = ["--set", "search={trials: 5, space: {datm.lr_img: {uniform: [1, 2]}}}"]
    said = ddnl("sweep", file, "--dry-run", *space, "--set", "grid.noise_seed=[0, 1]")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "one: 2 cells, 10 trials, 0 there already"
    assert lines[1].startswith("  symmetric-0.4_datm_ipc1_n0_s0-")
    assert "5 trials over lr_img; tuned on val_noisy of digits" in lines[1]
    assert lines[3].startswith("experts: 4 needed, 0 stored; ")
    assert lines[-1] == "each trial takes cpu 1, gpu 0; run without --dry-run to start"
    assert [path.name for path in tmp_path.iterdir()] == ["one.yaml"]


def test_a_dry_run_knows_what_is_there(ddnl: Ddnl, finished: Path) -> None:
    where = ["--out", finished.parent, "--store", finished.parents[1] / "store"]
    plan = ddnl("sweep", finished.parents[1] / "one.yaml", "--dry-run", "--json", *where).json
    assert (plan["trials"], plan["cached"], plan["experts"], plan["core_seconds"]) == (1, 1, 0, 0)
    more = ["--set", "grid.ipc=[1, 2]"]
    plan = ddnl("sweep", finished.parents[1] / "one.yaml", "--dry-run", "--json", *where, *more).json
    assert (plan["trials"], plan["cached"], plan["experts"], plan["experts_cached"]) == (2, 1, 2, 2)
    assert plan["store_bytes"] == 0


def test_distill_runs_one_trial_without_ray(finished: Path) -> None:
    said = json.loads((finished.parents[1] / "said.json").read_text())
    assert said == {
        "run": "runs/one",
        "cells": 1,
        "trials": 1,
        "done": 1,
        "failed": 0,
        "cached": 0,
        "not_done": [],
        "results": "runs/one/results.parquet",
        "report": "runs/one/report.html",
    }
    (part,) = (finished / "parts").iterdir()
    folder = finished / "trials" / part.stem
    assert {path.name for path in folder.iterdir()} >= {"card.json", "distilled.safetensors", "preview.png"}
    assert not (folder / "checkpoint.safetensors").exists()
    assert (finished / "report.html").is_file()
    frame = read_rows(finished / "results.parquet")
    assert set(frame["split"]) == {"val_noisy", "val_clean", "test"}
    assert len(frame[frame["split"] == "test"]) == 3
    assert frame["is_selected"].all()


def test_distill_runs_nothing_twice(ddnl: Ddnl, finished: Path) -> None:
    (part,) = (finished / "parts").iterdir()
    before = part.stat().st_mtime_ns
    where = ["--out", finished.parent, "--store", finished.parents[1] / "store"]
    said = ddnl("distill", finished.parents[1] / "one.yaml", "--json", *where)
    assert (said.code, said.json["cached"], said.json["done"]) == (0, 1, 1)
    assert part.stat().st_mtime_ns == before
    said = ddnl("sweep", finished.parents[1] / "one.yaml", "--json", *where)
    assert (said.code, said.json["cached"], said.json["done"]) == (0, 1, 1)
    assert part.stat().st_mtime_ns == before


def test_distill_refuses_more_than_one_trial(ddnl: Ddnl, file: Path) -> None:
    said = ddnl("distill", file, "--set", "grid.ipc=[1, 2]")
    assert said.code == 2
    assert "`ddnl distill` runs one trial, but the file asks for 2 (symmetric-0.4_datm_ipc1_n0_s0-" in said.err


@pytest.mark.parametrize("name", ["123", "on", "1e3", "null"])
def test_any_word_may_be_a_name(ddnl: Ddnl, file: Path, name: str) -> None:
    """Also one that YAML reads as a number or a truth value."""
    assert ddnl("sweep", file, "--name", name, "--dry-run", "--json").json["run"] == f"runs/{name}"


def test_a_failed_trial_is_named_and_ends_with_1(ddnl: Ddnl, file: Path) -> None:
    impossible = ["--set", "params.datm.threshold=1e-12", "--json"]
    for cached in (0, 1):  # diverged is settled: it would diverge again
        said = ddnl("distill", file, *impossible)
        assert said.code == 1
        assert (said.json["done"], said.json["failed"], said.json["cached"]) == (0, 1, cached)
    words = ddnl("distill", file, *impossible[:-1])
    assert words.code == 1
    assert "diverged: symmetric-0.4_datm_ipc1_n0_s0-" in words.err
    assert "0 of 1 trials done (1 were there before)" in words.out


def test_an_unsettled_trial_is_run_again(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    said = ddnl("distill", file, "--json", "--set", "budget.trial_seconds=1e-9")
    assert (said.code, said.json["failed"]) == (1, 1)
    (part,) = (tmp_path / "runs" / "one" / "parts").iterdir()
    assert set(read_rows(part)["outcome"]) == {"timeout"}
    said = ddnl("distill", file, "--json")
    assert (said.code, said.json["done"], said.json["failed"], said.json["cached"]) == (0, 1, 0, 0)


def test_an_interrupt_ends_with_130(ddnl: Ddnl, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ddnl_ray.sweep.driver.run_sweep", interrupted)
    said = ddnl("sweep", file)
    assert said.code == 130
    assert said.err.endswith("ddnl: interrupted; run the same command again to continue\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/one/parts/x"), "No space left on device at runs/one"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; free some"),
        (StorageError("s3://bucket does not answer"), "s3://bucket does not answer"),
    ],
)
def test_a_fault_from_outside_ends_with_130_and_keeps_what_has_ended(
    ddnl: Ddnl, file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ddnl_ray.sweep.local.run_trial", fail)
    said = ddnl("distill", file)
    assert said.code == 130
    assert says in said.err
    assert "Traceback" not in said.err
    assert ddnl("status", "runs/one", "--json").json["done"] == 0


TABLE_KEYS = {
    *("dataset", "noise", "noise_rate", "label_set", "base_method", "variant", "ipc", "backbone", "eval_backbone"),
    *("split", "n", "mean", "low", "high"),
}


def test_the_table_as_json(ddnl: Ddnl, finished: Path) -> None:
    said = ddnl("table", finished, "--json")
    assert said.code == 0
    (row,) = said.json
    assert set(row) == TABLE_KEYS
    assert (row["base_method"], row["noise_rate"], row["ipc"], row["split"]) == ("datm", 0.4, 1, "test")
    frame = read_rows(finished / "results.parquet")
    assert row["mean"] == pytest.approx(frame[frame["split"] == "test"]["accuracy"].mean())
    (noisy,) = ddnl("table", finished, "--json", "--split", "val_noisy").json
    assert noisy["split"] == "val_noisy"


@pytest.mark.parametrize(("style", "mark"), [([], "datm"), (["--md"], "| "), (["--latex"], "\\begin{tabular}")])
def test_the_table_in_other_styles(ddnl: Ddnl, finished: Path, style: list[str], mark: str) -> None:
    said = ddnl("table", finished, *style)
    assert said.code == 0
    assert mark in said.out


def test_the_report_is_written_again(ddnl: Ddnl, finished: Path) -> None:
    (finished / "report.html").unlink()
    said = ddnl("report", finished)
    assert (said.code, said.out) == (0, f"{finished / 'report.html'}\n")
    assert (finished / "report.html").is_file()


def test_the_status_of_a_run_that_has_ended(ddnl: Ddnl, finished: Path) -> None:
    status = ddnl("status", finished, "--json").json
    assert set(status) == {
        *(
            "run",
            "state",
            "cells",
            "cells_done",
            "trials",
            "done",
            "outcomes",
            "failed",
            "select_on",
            "best",
            "running",
        ),
        *("stragglers", "object_store"),
    }
    assert (status["state"], status["cells"], status["cells_done"]) == ("finished", 1, 1)
    assert (status["trials"], status["done"], status["outcomes"]) == (1, 1, {"ok": 1})
    assert (status["failed"], status["running"], status["select_on"]) == ({}, [], "val_noisy")
    (best,) = status["best"].values()
    assert 0 <= best <= 1
    words = ddnl("status", finished).out.splitlines()
    assert words[:2] == [f"{finished}: finished", "cells 1/1, trials 1/1, failed 0"]
    assert words[2].endswith(f"best val_noisy {best:.3f}")


@pytest.mark.parametrize("command", ["status", "table", "report"])
def test_a_folder_that_is_no_run_ends_with_2(ddnl: Ddnl, tmp_path: Path, command: str) -> None:
    (tmp_path / "stuff").mkdir()
    for folder in ("stuff", "nowhere"):
        said = ddnl(command, folder)
        assert said.code == 2
        assert f"ddnl: {folder} is not " in said.err
    assert list((tmp_path / "stuff").iterdir()) == []


def test_an_unknown_split_ends_with_2(ddnl: Ddnl, finished: Path) -> None:
    said = ddnl("table", finished, "--split", "tset")
    assert said.code == 2
    assert "unknown split 'tset': did you mean 'test'? Known: test, val_clean, val_noisy" in said.err


def test_the_expert_store_is_listed_and_cleaned(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    assert ddnl("experts", "ls").out == f"0 buffers, 0.0 MiB in {tmp_path / 'store'}\n"
    assert ddnl("experts", "ls", "--json").json == []
    key = ddnl("experts", "build", file).out.split()[0]
    (buffer,) = ddnl("experts", "ls", "--json").json
    assert set(buffer) == {"key", "experts", "last_epoch", "num_bytes", "used_at", "about"}
    assert (buffer["key"], buffer["experts"], buffer["last_epoch"]) == (key, 2, 3)
    assert buffer["about"]["noise"] == "symmetric-0.4"
    line, total = ddnl("experts", "ls").out.splitlines()
    assert line.startswith(f"{key}     2 experts to epoch   3 ")
    assert line.endswith("digits symmetric-0.4")
    assert total.startswith("1 buffers, ")
    assert ddnl("experts", "gc").out == "0 buffers removed\n"
    removed = ddnl("experts", "gc", "--unused-days", 0).out.splitlines()
    assert removed[0].startswith(f"removed {key} (")
    assert removed[1] == "1 buffers removed"
    assert ddnl("experts", "ls", "--json").json == []


MTT = ["--set", "grid.method=[mtt]", "--set", "params={}", "--set", "params={mtt.expert_epochs: 1}"]


def test_a_longer_window_trains_the_same_experts_on(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    """The dry run says how much, and the data of the shorter one stay as they are."""
    short = [*MTT, "--set", "budget.expert_epochs=9", "--set", "params.mtt.max_start_epoch=2"]
    longer = [*short, "--set", "params.mtt.max_start_epoch=4"]
    weights = 4 * 9 * 1 + 4 + 2 * 4 + (4 * 4 * 4 + 1) * 10
    for arguments, experts, snapshots in ((short, ["0", "1"], 3), (longer, ["0", "1"], 2), (longer, [], 0)):
        plan = ddnl("sweep", file, "--dry-run", "--json", *arguments).json
        assert plan["store_bytes"] == 2 * snapshots * weights * 4
        assert plan["object_store_bytes"] == 2 * (5 if arguments is longer else 3) * weights * 4
        assert [line.split()[-1] for line in ddnl("experts", "build", file, *arguments).out.splitlines()] == experts
    (folder,) = (tmp_path / "store").iterdir()
    names = {path.name for path in folder.glob("*.safetensors")}
    assert names == {f"expert-0000{i}.{ends}.safetensors" for i in (0, 1) for ends in ("00000-00002", "00003-00004")}


def test_experts_move_to_another_store(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    keys = []
    for seed in (0, 1):
        built = ddnl("experts", "build", file, "--set", f"experts.seed={seed}")
        keys.append(built.out.split()[0])
    archive, away = tmp_path / "experts.tar", ["--store", tmp_path / "away"]
    said = ddnl("experts", "export", keys[0][:9], "--out", archive, "--json")
    assert said.code == 0
    (buffer,) = said.json["buffers"]
    assert set(buffer) == {"key", "experts", "segments", "num_bytes", "skipped"}
    assert (said.json["file"], buffer["key"], buffer["experts"]) == (str(archive), keys[0], 2)
    imported = ddnl("experts", "import", archive, "--json", *away).json
    assert imported == {"file": str(archive), "buffers": [buffer]}
    assert ddnl("experts", "build", file, *away).out == ""
    assert ddnl("experts", "build", file, *away, "--set", "experts.seed=1").out.split()[0] == keys[1]

    words = ddnl("experts", "export", "--all", "--out", archive).out.splitlines()
    assert [line.split()[:3] for line in words[:2]] == [[key, "2", "experts"] for key in sorted(keys)]
    assert words[2].startswith("2 buffers, ")
    assert words[2].endswith(f" MiB: {archive}")
    words = ddnl("experts", "import", archive, *away).out.splitlines()
    assert [line.split("; ")[-1] for line in words[:2]] == ["2 segments were there already"] * 2
    fresh = ddnl("experts", "import", archive, "--store", tmp_path / "fresh")
    assert fresh.code == 0
    assert "already" not in fresh.out
    assert ddnl("experts", "build", file, "--store", tmp_path / "fresh").out == ""


def test_experts_that_are_not_there_cannot_be_exported(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "x.tar"]
    said = ddnl("experts", "export", "12", *out)
    assert (said.code, said.err) == (
        2,
        f"ddnl: unknown expert buffer '12': the store {tmp_path / 'store'} holds none\n",
    )
    key = ddnl("experts", "build", file).out.split()[0]
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    said = ddnl("experts", "export", wrong, *out)
    assert (said.code, said.err) == (
        2,
        f"ddnl: unknown expert buffer '{wrong}': did you mean '{key}'? Known: {key}\n",
    )
    for arguments in ([], [key, "--all"]):
        said = ddnl("experts", "export", *arguments, *out)
        assert said.code == 2
        assert "name the buffers to export (`ddnl experts ls` lists them), or use --all" in said.err
    assert ddnl("experts", "export", key, "--out", tmp_path).code == 2
    assert not (tmp_path / "x.tar").exists()


def test_a_corrupt_expert_is_neither_exported_nor_imported(ddnl: Ddnl, file: Path, tmp_path: Path) -> None:
    key = ddnl("experts", "build", file).out.split()[0]
    archive = tmp_path / "experts.tar"
    assert ddnl("experts", "export", "--all", "--out", archive).code == 0
    content = archive.read_bytes()
    segment = tmp_path / "store" / key / "expert-00001.00000-00003.safetensors"
    place = content.rindex(segment.read_bytes()[-64:])
    archive.write_bytes(content[:place] + b"spam" + content[place + 4 :])
    said = ddnl("experts", "import", archive, "--store", tmp_path / "away")
    assert said.code == 2
    assert f"archive {archive} is refused: '{key}/{segment.name}' does not match its checksum" in said.err
    assert ddnl("experts", "ls", "--store", tmp_path / "away", "--json").json == []
    segment.write_bytes(segment.read_bytes()[:-4] + b"spam")
    said = ddnl("experts", "export", "--all", "--out", tmp_path / "y.tar")
    assert said.code == 2
    assert f"ddnl: expert segment {segment} is corrupt: it does not match its checksum" in said.err
    said = ddnl("experts", "import", tmp_path / "y.tar")
    assert (said.code, said.err) == (
        2,
        f"ddnl: there is no archive at {tmp_path / 'y.tar'}; write one with `ddnl experts export`\n",
    )
    assert not list(tmp_path.glob(".*"))


def test_data_sets_are_listed_and_checked(ddnl: Ddnl, tmp_path: Path) -> None:
    names = ddnl("data", "ls").out.split()
    assert {"digits", "cifar10", "cifar100", "tinyimagenet", "folder:PATH", "parquet:PATH"} <= set(names)
    said = ddnl("data", "check", "digits")
    assert said.code == 0
    assert "1437 training and 360 test images, 1 x 8 x 8, 10 classes" in said.out
    assert "true labels: known" in said.out
    missing = ddnl("data", "check", "cifar10", "--root", tmp_path)
    assert missing.code == 2
    assert f"ddnl: cifar10 is not there: looked for {tmp_path}/cifar-10-batches-py" in missing.err
