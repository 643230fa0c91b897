"""``ddnl analyze --measure`` on a run of the embedded digits: what it trains, writes, keeps and refuses."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.measure.record import QUANTITIES, read_information
from ddnl_ray.cli import main

SWEEP = """
name: one
data: {name: digits, subset: 400, test_subset: 150}
grid:
  noise: [{kind: symmetric, rate: 0.2}]
  method: [random]
  ipc: [5]
evaluate: {repeats: 3}
budget: {eval_epochs: 40}
model: {name: convnet1, width: 8}
"""
Command = Callable[..., Any]


@pytest.fixture
def ddnl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process; return its JSON, or where it fails its error."""

    def run(*arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", ["ddnl", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return said.err if code == 2 else json.loads(said.out)

    return run


@pytest.fixture
def run(ddnl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(SWEEP)
    ddnl("distill", "one.yaml", "--store", tmp_path / "store", "--json")
    return tmp_path / "runs" / "one"


def test_a_run_is_measured_once(ddnl: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = ("--measure", "--measure-epochs", 5, "--json")
    said = ddnl("analyze", run, *measure)
    assert {"crossover", "fit", "bounds", "coverage", "noise_rate", "variance", "information"} <= set(said)
    found = read_information(run)
    assert found is not None
    assert said["information"]["one"]["key"] == found.key
    assert found.data == {"dataset": "digits", "train_images": 360, "classes": 10}
    assert found.reference["samples"] == 150
    assert [value.estimator for value in found.values] == [name for names in QUANTITIES.values() for name in names]
    few_shot = found.value("i_min", "few_shot", "random")
    assert few_shot is not None
    assert few_shot.estimate is not None, few_shot.reason
    assert few_shot.estimate.inputs["retrained_differs_by"] == 0  # the same networks as the run scored
    assert few_shot.estimate.inputs["unit"] == "networks of one set"
    lower = {each["form"]: each["lower"] for each in said["bounds"]}
    assert lower["published"] > 0

    def no_training(*_: object) -> None:
        raise AssertionError("a network was trained")

    monkeypatch.setattr("ddnl_ray.reference.train", no_training)
    assert ddnl("analyze", run, *measure) == said
    assert ddnl("analyze", run, "--json")["information"] == said["information"]
    given = ddnl("analyze", run, "--json", "--i-min", 4, "--i-clean", 2, "--redundancy", 0.5)
    assert given["bounds"][0]["lower"] == pytest.approx(4 / (0.5 * 2 * (1 - given["crossover"][0]["rate"])))


def test_what_cannot_be_measured_is_said(ddnl: Command, run: Path) -> None:
    assert "--measure-epochs must be at least 1" in ddnl("analyze", run, "--measure", "--measure-epochs", 0)
    assert "redundancy must lie in (0, 1] but got 2.0" in ddnl("analyze", run, "--redundancy", 2)
    (trial,) = (run / "trials").iterdir()
    shutil.rmtree(trial)
    said = ddnl("analyze", run, "--measure", "--measure-epochs", 1, "--json")
    values = {each["estimator"]: each for each in said["information"]["one"]["values"]}
    assert values["few_shot"]["reason"].startswith("A network could not be trained again: ")
    assert values["clusters"]["estimate"] is not None
    assert said["bounds"][0]["reason"] == "Without I_min there is no lower bound."
