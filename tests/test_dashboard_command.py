"""``ddnl dashboard`` with the serving function replaced."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from ddnl_ray.cli import main

Said = tuple[int, str, str]
Ddnl = Callable[..., Said]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str, int]]:
    """What the dashboard was asked to serve; the package need not be installed."""
    calls: list[tuple[Any, str, int]] = []
    package = ModuleType("optuna_dashboard")
    package.run_server = lambda storage, host, port: calls.append((storage, host, port))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "optuna_dashboard", package)
    return calls


@pytest.fixture
def ddnl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ddnl:
    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ddnl", "dashboard", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two studies, one of which has a failed trial."""
    (tmp_path / "sweep.yaml").write_text("name: x\n")
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "studies.journal")))
    space = {"a": optuna.distributions.FloatDistribution(0.1, 1, log=True)}
    for name in ("one", "two"):
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
        study.add_trial(optuna.trial.create_trial(params={"a": 0.5}, distributions=space, value=0.7))
    study.add_trial(
        optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, params={"a": 0.1}, distributions=space)
    )
    return tmp_path


def test_it_serves_a_copy_of_the_studies_to_this_machine_alone(
    ddnl: Ddnl, run: Path, served: list[tuple[Any, str, int]]
) -> None:
    before = (run / "studies.journal").read_bytes()
    code, out, _ = ddnl(run, "--port", "0")
    assert code == 0
    ((storage, host, port),) = served
    assert host == "127.0.0.1"
    assert out == f"2 studies of {run}: http://127.0.0.1:{port}  (ctrl-C ends it)\n"
    studies = {name: optuna.load_study(study_name=name, storage=storage) for name in ("one", "two")}
    assert [trial.value for trial in studies["two"].trials] == [0.7, None]
    assert studies["one"].best_params == {"a": 0.5}
    assert studies["one"].direction == optuna.study.StudyDirection.MAXIMIZE
    optuna.delete_study(study_name="one", storage=storage)
    assert (run / "studies.journal").read_bytes() == before


def test_a_port_that_is_taken_ends_with_2(ddnl: Ddnl, run: Path, served: list[tuple[Any, str, int]]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, err = ddnl(run, "--port", port)
    assert code == 2
    assert f"ddnl: port {port} of 127.0.0.1 cannot be used (Address already in use); choose another" in err
    assert served == []


def test_a_missing_package_ends_with_2(ddnl: Ddnl, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    code, _, err = ddnl(run)
    assert code == 2
    assert "pip install 'ddnl-ray[dash]'" in err


def test_a_run_without_studies_ends_with_2(ddnl: Ddnl, tmp_path: Path, served: list[tuple[Any, str, int]]) -> None:
    code, _, err = ddnl(tmp_path)
    assert (code, "is not a run folder" in err) == (2, True)
    (tmp_path / "sweep.yaml").write_text("name: x\n")
    code, _, err = ddnl(tmp_path)
    assert (code, "has no studies: studies.journal is written when" in err) == (2, True)
    assert not (tmp_path / "studies.journal").exists()
    (tmp_path / "studies.journal").touch()
    code, _, err = ddnl(tmp_path)
    assert (code, "holds no study yet" in err) == (2, True)
    assert served == []


def test_a_damaged_journal_ends_with_2(ddnl: Ddnl, run: Path, served: list[tuple[Any, str, int]]) -> None:
    journal = run / "studies.journal"
    journal.write_bytes(b'{"half": \n' + journal.read_bytes())
    code, _, err = ddnl(run)
    assert (code, "cannot be read" in err) == (2, True)
    assert served == []
