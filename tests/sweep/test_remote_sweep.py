"""A sweep on Ray whose run folder and experts are in an object store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddnl_ray.results import read_rows
from ddnl_ray.storage import open_folder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

VOLATILE = ["wall_s", "peak_memory_bytes", "finished_at"]
SMALL = [
    "--set",
    "grid.noise=[{kind: symmetric, rate: 0.4}]",
    "--set",
    "grid.method=[datm, random]",
    "--set",
    "search.trials=2",
    "--set",
    "budget.iterations=15",
    "--set",
    "budget.checkpoint_seconds=0.05",
]


def test_a_killed_sweep_goes_on_and_ends_as_on_a_disk(
    shell: Any, local_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDNL_CACHE", str(tmp_path / "cache"))
    common = ["sweep", "tiny.yaml", *SMALL, "--cpus", "2", "--json"]
    remote = [*common, "--out", f"{local_s3}/runs", "--store", f"{local_s3}/experts"]
    driver = shell.start(*remote)
    run = open_folder(f"{local_s3}/runs/tiny", "read")
    shell.wait(driver, lambda: any(e.name.endswith("checkpoint.safetensors") for e in run.entries("trials")))
    shell.kill(driver)
    said = shell.run("status", f"{local_s3}/runs/tiny", "--json")
    assert json.loads(said.out)["state"].startswith("interrupted")
    said = shell.run(*remote)
    assert said.code == 0, said.err
    assert json.loads(said.out)["results"] == f"{local_s3}/runs/tiny/results.parquet"
    said = shell.run(*common, "--out", tmp_path / "runs", "--store", tmp_path / "experts")
    assert said.code == 0, said.err
    one, other = (read_rows(path) for path in (run.fetch("results.parquet"), tmp_path / "runs/tiny/results.parquet"))
    pd.testing.assert_frame_equal(one.drop(columns=VOLATILE), other.drop(columns=VOLATILE), check_exact=True)
    names = {entry.name for entry in run.entries() if not entry.name.endswith("progress.json")}
    local = {path.relative_to(tmp_path / "runs/tiny").as_posix() for path in (tmp_path / "runs/tiny").rglob("*.*")}
    kept = {name for name in local if not name.startswith((".", "logs/")) and not name.endswith("progress.json")}
    assert names == {name for name in kept if (tmp_path / "runs/tiny" / name).is_file()}
