"""What the commands that read runs say of runs that are empty, failed, thin, mixed, old or broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.figures.__main__ import main as figures
from analysis.paper_tables.__main__ import main as paper_tables
from ddnl_ray.cli import main as ddnl
from ddnl_ray.results import SCHEMA, write_rows

Row = dict[str, Any]
MakeRow = Callable[..., Row]

COMMANDS: dict[str, list[str]] = {
    "table": ["ddnl", "table"],
    "paper table": ["ddnl", "table", "--paper", "tad"],
    "report": ["ddnl", "report"],
    "analyze": ["ddnl", "analyze"],
    "compare": ["ddnl", "compare", "--paper", "tad"],
    "figures": ["figures"],
    "paper_tables": ["paper_tables"],
}
OF_SEVERAL = ("report", "analyze", "compare", "figures", "paper_tables")
QUICK = ("table", "paper table", "analyze", "compare", "paper_tables")
"""Those that draw nothing."""
SWEEP = """
name: one
data: {name: cifar10, subset: 500}
grid: {noise: [{kind: symmetric, rate: [0.2, 0.4]}], method: [full, datm], ipc: [1, 10], noise_seed: [0, 1]}
model: {name: convnet3, width: 32}
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Say:
    """A function that runs a command on runs, in an empty folder; an error of ours that is not caught is not caught."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(command: str, *runs: Path) -> Said:
        program, *arguments = COMMANDS[command]
        words = [*arguments, *map(str, runs)]
        code = 0
        try:
            if program == "ddnl":
                monkeypatch.setattr(sys, "argv", ["ddnl", *words])
                ddnl()
            else:
                main: click.Command = {"figures": figures, "paper_tables": paper_tables}[program]
                main.main(words, standalone_mode=False)
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture
def make_run(tmp_path: Path, row: MakeRow) -> Callable[..., Path]:
    """A function that makes a run folder of DATM and of training on all the data."""

    def make(name: str = "one", rates: tuple[float, ...] = (0.2, 0.4), seeds: int = 2, **values: Any) -> Path:
        run = tmp_path / name
        rows = []
        for rate in rates:
            for seed in range(seeds):
                for base, ipc, accuracy in (("full", None, 0.6), ("datm", 1, 0.4), ("datm", 10, 0.7)):
                    cell = f"{base}-{rate}-{ipc}-{seed}"
                    own = {"noise_rate": rate, "noise_seed": seed, "base_method": base, "ipc": ipc}
                    score = {"accuracy": accuracy - rate / 3 + seed / 100, "accuracy_best": accuracy}
                    where = {"cell": cell, "trial": f"{cell}-0000", "dataset": "cifar10", "run": name}
                    rows.append(row(**where, **own, **score) | values)
        write_rows(run / "results.parquet", rows, "val_noisy")
        (run / "sweep.yaml").write_text(SWEEP)
        return run

    return make


def assert_one_sentence(said: Said, *words: str) -> None:
    """Exit code 2, nothing on standard output, and one line that has the words."""
    assert said.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_folder_and_no_folder_are_no_runs(say: Say, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    for run in (tmp_path / "empty", tmp_path / "nowhere"):
        assert_one_sentence(say(command, run), f"{run} is not a run folder", "ddnl sweep")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_is_no_run(say: Say, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("x")
    assert_one_sentence(say(command, tmp_path / "file"), "file")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_without_a_finished_trial_is_to_be_continued(say: Say, tmp_path: Path, command: str) -> None:
    run = tmp_path / "started"
    run.mkdir()
    (run / "sweep.yaml").write_text(SWEEP)
    assert_one_sentence(say(command, run), "has no results yet", "Run the same `ddnl sweep`")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_no_parquet_is_named(say: Say, make_run: Callable[..., Path], command: str) -> None:
    run = make_run()
    for content in (b"", b"not a table", (run / "results.parquet").read_bytes()[:200]):
        (run / "results.parquet").write_bytes(content)
        assert_one_sentence(say(command, run), "results.parquet is not a readable Parquet file", "ddnl sweep")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_part_that_is_no_parquet_is_named(say: Say, make_run: Callable[..., Path], command: str) -> None:
    run = make_run()
    (run / "parts").mkdir()
    (run / "parts" / "datm-0.2-1-0-0000.parquet").write_bytes(b"not a table")
    said = say(command, run)
    if command in ("figures", "paper_tables"):  # They read the table that the last command has made of the parts.
        assert said.code == 0
    else:
        assert_one_sentence(said, "datm-0.2-1-0-0000.parquet is not a readable Parquet file", "ddnl sweep")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_that_lacks_columns_was_made_by_another_version(
    say: Say, make_run: Callable[..., Path], command: str
) -> None:
    run = make_run()
    table = pq.read_table(run / "results.parquet").drop(["accuracy_best", "finished_at"])
    pq.write_table(table, run / "results.parquet")
    assert_one_sentence(say(command, run), "lacks the column(s) accuracy_best, finished_at", "ddnl sweep")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_of_another_format_version_says_which(say: Say, make_run: Callable[..., Path], command: str) -> None:
    run = make_run()
    table = pq.read_table(run / "results.parquet")
    for version in (0, None):
        column = pa.array([version] * len(table), pa.int64())
        other = table.set_column(SCHEMA.get_field_index("format_version"), "format_version", column)
        pq.write_table(other, run / "results.parquet")
        assert_one_sentence(say(command, run), f"format version {version}", "this ddnl reads version 1", "ddnl sweep")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_with_columns_of_other_types_is_refused(say: Say, make_run: Callable[..., Path], command: str) -> None:
    run = make_run()
    table = pq.read_table(run / "results.parquet")
    words = pa.array(["high"] * len(table))
    pq.write_table(table.set_column(SCHEMA.get_field_index("accuracy"), "accuracy", words), run / "results.parquet")
    assert_one_sentence(say(command, run), "accuracy", "ddnl sweep")


@pytest.mark.parametrize("command", COMMANDS)
def test_failed_cells_only_leave_a_table_without_rows(say: Say, make_run: Callable[..., Path], command: str) -> None:
    nothing = dict.fromkeys(("split", "accuracy", "accuracy_best", "eval_seed", "loss"))
    run = make_run(**nothing, is_selected=False, is_final=False, outcome="diverged", message="too high")
    said = say(command, run)
    assert (said.code, said.err) == (0, "")
    words = {
        "table": "No selected trial has a score",
        "paper table": "The runs have no cell of this table",
        "report": "report.html",
        "analyze": "No",
        "compare": "No cell of",
        "figures": "skipped.",
        "paper_tables": "skipped. The runs have no cell of this table; `sweeps/tad_table4.yaml` gives it.",
    }
    assert words[command] in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_one_seed_and_one_rate_are_enough_to_be_read(say: Say, make_run: Callable[..., Path], command: str) -> None:
    said = say(command, make_run(seeds=1, rates=(0.2,)))
    assert (said.code, said.err) == (0, "")
    assert said.out


@pytest.mark.parametrize("command", QUICK)
@pytest.mark.parametrize("shape", [{"seeds": 1}, {"rates": (0.4,)}, {"eval_seed": None}])
def test_one_seed_or_one_rate_is_enough_to_be_read(
    say: Say, make_run: Callable[..., Path], command: str, shape: dict[str, Any]
) -> None:
    said = say(command, make_run(**shape))
    assert (said.code, said.err) == (0, "")
    assert said.out


@pytest.mark.parametrize("command", OF_SEVERAL)
def test_runs_of_other_data_networks_and_splits_are_read_together(
    say: Say, make_run: Callable[..., Path], command: str
) -> None:
    runs = [
        make_run(),
        make_run("two", dataset="digits", backbone="convnet2", eval_backbone="convnet2"),
        make_run("three", backbone="resnet18", eval_backbone="vgg11"),
        make_run("four", split="val_clean"),
        make_run("five", rates=(0.2,), seeds=1),
    ]
    said = say(command, *runs)
    assert (said.code, said.err) == (0, "")
    assert said.out


@pytest.mark.parametrize("command", OF_SEVERAL)
def test_one_broken_run_of_several_is_named(say: Say, make_run: Callable[..., Path], command: str) -> None:
    good, bad = make_run(), make_run("bad")
    (bad / "results.parquet").write_bytes(b"not a table")
    assert_one_sentence(say(command, good, bad), "bad/results.parquet is not a readable Parquet file")


@pytest.mark.parametrize("command", QUICK)
@pytest.mark.parametrize("file", ["sweep.yaml", "summary.json", "noise.json"])
@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b"\xff\xfe"])
def test_other_files_of_a_run_never_end_in_a_traceback(
    say: Say, make_run: Callable[..., Path], command: str, file: str, content: bytes
) -> None:
    run = make_run()
    (run / file).write_bytes(content)
    said = say(command, run)
    if said.code:  # A sweep file has one line for each of its faults.
        assert (said.code, said.out) == (2, "")
        assert all(file in line for line in said.err.splitlines())
    else:
        assert said.err == ""


@pytest.mark.parametrize("command", ["figures", "report"])
@pytest.mark.parametrize(("file", "content"), [("summary.json", b"[1]"), ("noise.json", b"[1]")])
def test_what_draws_names_a_broken_file_too(
    say: Say, make_run: Callable[..., Path], command: str, file: str, content: bytes
) -> None:
    run = make_run()
    (run / file).write_bytes(content)
    assert_one_sentence(say(command, run), file, "ddnl sweep")


@pytest.mark.parametrize("command", QUICK)
def test_a_run_without_its_sweep_file_is_read(say: Say, make_run: Callable[..., Path], command: str) -> None:
    run = make_run()
    (run / "sweep.yaml").unlink()
    said = say(command, run)
    assert (said.code, said.err) == (0, "")


def test_params_that_are_no_json_say_nothing(say: Say, make_run: Callable[..., Path]) -> None:
    said = say("paper table", make_run(params="not json"))
    assert said.code == 0
    assert "DATM" in said.out


@pytest.mark.parametrize("command", QUICK)
def test_no_accuracy_is_a_number(say: Say, make_run: Callable[..., Path], command: str) -> None:
    said = say(command, make_run(accuracy=float("nan"), accuracy_best=float("nan")))
    assert (said.code, said.err) == (0, "")
    assert "nan" not in said.out
