"""Whole runs on remote storage: the same files as on this machine, through deaths and absences, without Ray."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.figures.__main__ import main as figures
from ddnl_ray.cli import main
from ddnl_ray.results import read_rows
from ddnl_ray.storage import RemoteAddress
from ddnl_ray.storage.lease import Timing
from ddnl_ray.storage.remote import RemoteFolder
from ddnl_ray.storage.retry import Patience
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.testing.objects import Killed, Objects

SWEEP = """
name: one
data: {name: digits, subset: 400, test_subset: 100}
grid:
  noise: [{kind: symmetric, rate: 0.4}]
  method: [datm+sgr]
  ipc: [1]
params:
  datm.max_start_epoch: 2
  datm.current_max_start_epoch: 1
  datm.expert_epochs: 1
  datm.syn_steps: 2
  sgr.forgetting_networks: 1
  sgr.forgetting_first_epochs: 1
  sgr.forgetting_second_epochs: 1
search: {select_on: val_noisy}
evaluate: {repeats: 2}
budget: {experts: 2, expert_epochs: 3, iterations: 4, eval_epochs: 3, checkpoint_seconds: 0.0001}
model: {name: convnet1, width: 4}
"""
VOLATILE = ["wall_s", "peak_memory_bytes", "finished_at"]
OUT, STORE = "s3://bucket/runs", "s3://bucket/experts"
FAST = Timing(beat_s=0.2, stale_s=1.0, settle_s=0.02)


@dataclass(frozen=True)
class Machine:
    """A machine that runs commands: what it keeps of remote folders is below ``DDNL_CACHE``."""

    folder: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def ddnl(self, *arguments: object) -> tuple[int, str, str]:
        self.patch.setattr(sys, "argv", ["ddnl", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.capture.readouterr()
        return code, said.out, said.err

    def is_replaced(self) -> None:
        """Lose all that is not remote, as a spot machine does."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)


@pytest.fixture
def machine(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Machine:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDNL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ddnl_ray.storage.connect.connect", lambda _address: objects.filesystem())
    monkeypatch.setattr("ddnl_ray.storage.remote.Timing", lambda: FAST)
    monkeypatch.setattr("ddnl_ray.storage.remote.Patience", lambda: Patience(2.0, 0.01))
    (tmp_path / "one.yaml").write_text(SWEEP)
    return Machine(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on this machine's disk."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "one.yaml").write_text(SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ddnl", "distill", "one.yaml", "--store", str(folder / "store"), "--json"])
        main()
    return folder


def names(folder: Path) -> set[str]:
    """Return the files of a folder, but those that stay on a machine."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not any(part.startswith(".") for part in name.split("/"))}


def same(one: Path, other: Path) -> None:
    """Compare tables of results, bit for bit."""
    frames = [read_rows(path).drop(columns=VOLATILE) for path in (one, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_a_remote_run_leaves_what_a_local_one_does(objects: Objects, machine: Machine, alone: Path) -> None:
    code, out, err = machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["run"], said["report"]) == (f"{OUT}/one", f"{OUT}/one/report.html")
    run, bucket = Path(objects.root) / "bucket" / "runs" / "one", Path(objects.root) / "bucket"
    assert names(run) == names(alone / "runs" / "one")
    same(run / "results.parquet", alone / "runs" / "one" / "results.parquet")
    (trial,) = (run / "trials").iterdir()
    for name in ("distilled.safetensors", "preview.png", "trust.json"):
        there = alone / "runs" / "one" / "trials" / trial.name / name
        assert (trial / name).read_bytes() == there.read_bytes()
    experts = {name for name in names(bucket / "experts") if name.endswith((".safetensors", "buffer.json"))}
    assert experts == {name for name in names(alone / "store") if name.endswith((".safetensors", "buffer.json"))}
    assert not (machine.folder / "runs").exists()


def test_it_is_looked_at_from_a_machine_that_has_nothing(machine: Machine, alone: Path) -> None:
    assert machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE)[0] == 0
    machine.is_replaced()
    run, local = f"{OUT}/one", alone / "runs" / "one"
    for command in (["table"], ["table", "--json"], ["analyze", "--json"]):
        name, *options = command
        assert machine.ddnl(name, run, *options) == machine.ddnl(name, local, *options)
    status = json.loads(machine.ddnl("status", run, "--json")[1])
    assert (status["run"], status["state"], status["done"], status["trials"]) == (run, "finished", 1, 1)
    copies = names(machine.folder / "cache")
    assert copies
    assert not any(name.endswith(".safetensors") for name in copies)
    code, out, _ = machine.ddnl("report", run)
    assert (code, out) == (0, f"{run}/report.html\n")
    assert machine.ddnl("compare", run, "--paper", "sgr_tiat")[0] == 0
    drawn = CliRunner().invoke(figures, [run], catch_exceptions=False)
    assert drawn.exit_code == 0
    assert "figures/" in drawn.output
    assert (machine.folder / "figures").is_dir()
    listed = json.loads(machine.ddnl("experts", "ls", "--store", STORE, "--json")[1])
    assert [buffer["experts"] for buffer in listed] == [2]
    code, out, _ = machine.ddnl("sweep", "one.yaml", "--out", OUT, "--store", STORE, "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["run"], plan["cached"], plan["trials"]) == (0, run, 1, 1)


def test_a_run_whose_machine_dies_at_any_upload_ends_the_same(
    objects: Objects, machine: Machine, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is lost, with all that it had, at every third upload in turn, until the run ends."""
    died, steps = 0, 0

    def before(step: str, path: str) -> None:
        nonlocal steps
        if not path.endswith(".lock"):  # it is renewed from a thread
            steps += step == "complete"
            if steps > 3 * (died + 1):
                raise Killed

    objects.before = before
    while True:
        steps = 0
        try:
            code, _, err = machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE)
            break
        except Killed:
            died += 1
            machine.is_replaced()
    assert code == 0, err
    assert died > 3
    run = Path(objects.root) / "bucket" / "runs" / "one"
    same(run / "results.parquet", alone / "runs" / "one" / "results.parquet")
    assert names(run) == names(alone / "runs" / "one")


def test_a_trial_goes_on_from_its_last_checkpoint_on_another_machine(
    objects: Objects, machine: Machine, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_after_two(step: str, path: str) -> None:
        saved = [p for s, p in objects.steps if s == "complete" and p.endswith("checkpoint.safetensors")]
        if len(saved) == 2 and path.endswith("checkpoint.safetensors") and step == "open":
            raise Killed

    objects.before = die_after_two
    with pytest.raises(Killed):
        machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE)
    machine.is_replaced()
    objects.before = lambda _step, _path: None
    steps: list[int] = []
    save = Ledger.save
    monkeypatch.setattr(Ledger, "save", lambda ledger, trial: (steps.append(1), save(ledger, trial))[1])
    assert machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE)[0] == 0
    whole = len([p for s, p in objects.steps if s == "complete" and p.endswith("checkpoint.safetensors")])
    assert len(steps) == whole - 2
    run = Path(objects.root) / "bucket" / "runs" / "one"
    same(run / "results.parquet", alone / "runs" / "one" / "results.parquet")


def test_storage_that_is_away_for_a_while_is_waited_for(objects: Objects, machine: Machine, alone: Path) -> None:
    count = 0

    def before(_step: str, _path: str) -> None:
        nonlocal count
        count += 1
        if count % 20 < 3:
            raise OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7")

    objects.before = before
    code, _, err = machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE)
    assert code == 0, err
    run = Path(objects.root) / "bucket" / "runs" / "one"
    same(run / "results.parquet", alone / "runs" / "one" / "results.parquet")


def test_a_second_driver_is_refused(machine: Machine, objects: Objects, tmp_path: Path) -> None:
    address = RemoteAddress("s3", "bucket", "runs/one")
    other = RemoteFolder(str(address), address.place, objects.filesystem(), address.prefix, tmp_path / "x", timing=FAST)
    with other.lock(".lock"):
        code, _, err = machine.ddnl("distill", "one.yaml", "--out", OUT, "--store", STORE)
    assert code == 2
    assert f"another `ddnl sweep` is running on {OUT}/one on " in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", "one.yaml", "--out", "http://host/runs"], "http:// cannot be read and written here"),
        (["sweep", "one.yaml", "--store", "s3:/bucket"], "needs two slashes"),
        (["status", "s3://"], "has no bucket"),
        (["table", "s3://key:hush@bucket/run"], "holds credentials"),
        (["status", "s3://bucket/none"], "s3://bucket/none is not the folder of a run that has started"),
        (["table", "s3://bucket/none"], "s3://bucket/none is not a run folder: there is nothing"),
        (["report", "s3://bucket/none"], "s3://bucket/none is not a run folder: there is nothing"),
        (["table", "s3://other/none"], "is in a bucket that is not there, 'other'"),
        (["distill", "one.yaml", "--store", "s3://other/experts"], "is in a bucket that is not there, 'other'"),
        (["distill", "one.yaml", "--out", "s3://bucket/taken"], "exists and is not a run folder"),
    ],
)
def test_wrong_addresses_end_with_2_and_leave_nothing(
    machine: Machine, objects: Objects, arguments: list[str], message: str
) -> None:
    taken = Path(objects.root) / "bucket" / "taken" / "one" / "thesis.tex"
    taken.parent.mkdir(parents=True)
    taken.write_text("x")
    code, out, err = machine.ddnl(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "hush" not in err
    assert names(Path(objects.root)) == {"bucket/taken/one/thesis.tex"}


def test_a_run_on_a_local_s3_is_the_same(
    local_s3: str, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDNL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ddnl_ray.storage.remote.Timing", lambda: FAST)
    (tmp_path / "one.yaml").write_text(SWEEP)
    machine = Machine(tmp_path, monkeypatch, capsys)
    code, _, err = machine.ddnl("distill", "one.yaml", "--out", f"{local_s3}/runs", "--store", f"{local_s3}/experts")
    assert code == 0, err
    machine.is_replaced()
    local = alone / "runs" / "one"
    assert machine.ddnl("table", f"{local_s3}/runs/one", "--json") == machine.ddnl("table", local, "--json")
    (results,) = (tmp_path / "cache").rglob("results.parquet")
    same(results, local / "results.parquet")
