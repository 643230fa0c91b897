"""One small trial, whose card all tests here share, and the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.cli import main
from ddnl_ray.experts import ExpertStore
from ddnl_ray.sweep.local import run_one
from ddnl_ray.sweep.plan import make_plan
from ddnl_ray.sweep.read import parse_sweep
from ddnl_ray.sweep.watcher import Silent

SWEEP: dict[str, Any] = {
    "name": "one",
    "data": {"name": "digits", "subset": 600, "test_subset": 200},
    "grid": {"noise": [{"kind": "symmetric", "rate": 0.2}], "method": ["datm"], "ipc": [1]},
    "params": {
        "datm.max_start_epoch": 4,
        "datm.current_max_start_epoch": 2,
        "datm.expert_epochs": 2,
        "datm.syn_steps": 5,
    },
    "evaluate": {"repeats": 3},
    "budget": {"experts": 2, "expert_epochs": 6, "iterations": 5, "eval_epochs": 100},
    "model": {"name": "convnet2", "width": 16},
}


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Ddnl = Callable[..., Said]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished trial: DATM on digits, soft labels, a learnt step size. Not to be changed."""
    folder = tmp_path_factory.mktemp("cards")
    plan = make_plan(parse_sweep(SWEEP, "test"))
    run_one(plan, folder / "one", ExpertStore(folder / "store"), "cpu", Silent(), False)
    (trial,) = (folder / "one" / "trials").iterdir()
    return trial


@pytest.fixture
def card(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    folder = tmp_path / "card"
    shutil.copytree(finished, folder)
    return folder


@pytest.fixture
def ddnl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ddnl:
    """Run a command in this process."""

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
