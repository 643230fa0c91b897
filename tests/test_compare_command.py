"""``ddnl compare`` end to end on a tiny run folder that is made by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddnl_ray.cli import main
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES
from ddnl_ray.results import write_rows

Said = tuple[int, str, str]
PARAMS = json.dumps(dict(RECIPES["datm"]("cifar10", 10, NoiseConfig("symmetric", 0.4)).params))


@pytest.fixture
def ddnl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ddnl", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes the run folder of three noise draws of DATM."""

    def make(name: str, **sections: Any) -> Path:
        run = tmp_path / name
        row = {
            **{"run": name, "dataset": "cifar10", "noise": "symmetric", "noise_rate": 0.4, "base_method": "datm"},
            **{"variant": "none", "ipc": 10, "backbone": "convnet3", "eval_backbone": "convnet3", "seed": 0},
            **{"eval_seed": 0, "iteration": 10000, "split": "test", "is_final": True, "is_selected": True},
            **{"params": PARAMS, "outcome": "ok", "format_version": 1},
        }
        rows = [
            row | {"cell": f"c{i}", "trial": f"c{i}-0000", "noise_seed": i, "accuracy": accuracy}
            for i, accuracy in enumerate((0.57, 0.58, 0.59))
        ]
        for i, own in enumerate(rows):
            write_rows(run / "parts" / f"c{i}-0000.parquet", [own], "test")
        document = {
            "name": name,
            "data": {"name": "cifar10", "val_fraction": 0.0},
            "grid": {"noise": [{"kind": "symmetric", "rate": 0.4}], "method": ["datm"], "noise_seed": [0, 1, 2]},
            "search": {"select_on": "test"},
        }
        (run / "sweep.yaml").write_text(yaml.safe_dump(document | sections))
        return run

    return make


def test_a_comparable_run_gets_its_z(ddnl: Callable[..., Said], make_run: Callable[..., Path]) -> None:
    code, out, _ = ddnl("compare", make_run("whole"), "--paper", "tad", "--json")
    said = json.loads(out)
    (line,) = said["lines"]
    assert (code, line["comparable"], line["reasons"], line["ours"]["n"]) == (0, True, [], 3)
    assert line["difference"] == pytest.approx(0.58 - 0.582)
    assert line["z"] == pytest.approx((0.58 - 0.582) / (0.01 / 3**0.5))
    assert (said["without_counterpart"], said["reached"]) == ([], 1)


def test_a_small_run_is_marked_and_has_z_only_on_request(
    ddnl: Callable[..., Said], make_run: Callable[..., Path]
) -> None:
    small = make_run("small", budget={"experts": 5}, model={"width": 32}, search={"select_on": "val_noisy"})
    whole = make_run("whole")
    _, out, _ = ddnl("compare", small, whole, "--paper", "tad", "--json")
    marked, plain = json.loads(out)["lines"]
    assert [reason["kind"] for reason in marked["reasons"]] == ["width", "budget", "selection"]
    assert (marked["run"], marked["z"], plain["run"], plain["comparable"]) == (str(small), None, str(whole), True)
    _, out, _ = ddnl("compare", small, "--paper", "tad", "--json", "--all")
    assert json.loads(out)["lines"][0]["z"] == pytest.approx(plain["z"])


@pytest.mark.parametrize(("style", "mark"), [([], "(−0.2)"), (["--md"], "| (−0.2) |"), (["--latex"], "($-$0.2)")])
def test_styles(ddnl: Callable[..., Said], make_run: Callable[..., Path], style: list[str], mark: str) -> None:
    code, out, _ = ddnl("compare", make_run("small", budget={"experts": 5}), "--paper", "tad", *style)
    assert code == 0
    assert mark in out
    assert "budget.experts 5 instead of 100" in out


def test_wrong_requests_end_with_2(ddnl: Callable[..., Said], make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("whole")
    code, _, error = ddnl("compare", run, "--paper", "sgr")
    assert code == 2
    assert "unknown paper 'sgr': did you mean 'sgr_tiat'? Known: rdc, sgr_tiat, tad" in error
    code, _, error = ddnl("compare", tmp_path / "nowhere", "--paper", "tad")
    assert (code, "is not a run folder" in error) == (2, True)
    for part in (run / "parts").iterdir():
        part.unlink()
    (run / "results.parquet").unlink(missing_ok=True)
    code, _, error = ddnl("compare", run, "--paper", "tad")
    assert (code, "has no results yet" in error) == (2, True)
    assert ddnl("compare", run)[0] == ddnl("compare", "--paper", "tad")[0] == 2
