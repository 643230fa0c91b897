"""Sweeps of the matching family: planned, estimated, and on Ray what one process gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.results import read_rows
from ddnl_ray.sweep.estimate import estimate
from ddnl_ray.sweep.needs import needs
from ddnl_ray.sweep.plan import make_plan
from ddnl_ray.sweep.read import read_sweep

METHODS = ["dm", "idm+rdc", "dance"]
SWEEP = """
name: matching
data: {name: digits, subset: 400, test_subset: 100}
grid: {noise: [{kind: symmetric, rate: 0.4}], method: [dm, idm+rdc, dance], ipc: [1]}
params: {idm.factor: 2, rdc.warm_up: 1, rdc.steps_per_epoch: 2, rdc.labelled_batch: 8, rdc.unlabelled_batch: 8}
evaluate: {repeats: 2}
budget: {experts: 2, expert_epochs: 3, iterations: 4, eval_epochs: 5}
model: {name: convnet1, width: 4}
resources: {cpu: 1}
"""
SHARED = ["split", "eval_seed", "is_final", "accuracy", "loss", "base_method", "variant", "params"]


def write(folder: Path) -> Path:
    path = folder / "matching.yaml"
    path.write_text(SWEEP)
    return path


def test_experts_are_read_before_and_after_training_alone(tmp_path: Path) -> None:
    plan = make_plan(read_sweep(write(tmp_path), None, ("grid.method=[dance]", "params={}")))
    (need,) = needs(plan, plan.cells).values()
    assert need.epochs == (0, 3)
    recipe = plan.cells[0].config.experts
    assert recipe is not None
    assert (recipe.epochs, recipe.schedule_epochs) == (3, 3)


def test_a_shorter_training_shortens_its_schedule_with_the_same_rest(tmp_path: Path) -> None:
    overrides = ("grid.method=[accdd]", "params={}", "params={accdd.start_epoch: 1}")
    recipe = make_plan(read_sweep(write(tmp_path), None, overrides)).cells[0].config.experts
    assert recipe is not None
    assert (recipe.epochs, recipe.schedule_epochs) == (3, 4)  # of 2 epochs in a schedule of 3
    said = (*overrides, "experts.schedule_epochs=9")
    recipe = make_plan(read_sweep(write(tmp_path), None, said)).cells[0].config.experts
    assert recipe is not None
    assert recipe.schedule_epochs == 9


def test_methods_that_keep_pixels_are_not_whitened(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path), None, ("data.zca=true",))
    with pytest.raises(RequestError, match=r"^dance keeps pixels, .* data\.zca is true"):
        make_plan(sweep)


def test_the_estimate_times_a_step_of_each_method(tmp_path: Path) -> None:
    found = estimate(make_plan(read_sweep(write(tmp_path), None, ())), tmp_path / "run", ExpertStore(tmp_path / "s"))
    assert {name: seconds > 0 for name, seconds in found["trial_seconds"].items()} == {
        f"{method} ipc 1": True for method in METHODS
    }


def rows(run: Path) -> pd.DataFrame:
    found = read_rows(run / "results.parquet").sort_values(["base_method", "split", "eval_seed"])
    return found[SHARED].reset_index(drop=True)


@pytest.mark.ray
def test_ray_and_one_process_agree(shell: Any) -> None:
    folder = shell.folder
    write(folder)
    said = shell.run("sweep", "matching.yaml", "--cpus", 2)
    assert said.code == 0, said.err
    alone = []
    for method in METHODS:
        name = method.partition("+")[0]
        only = ["--set", f"grid.method=[{method}]"]
        if method != "idm+rdc":
            only += ["--set", "params={}"]
        distilled = shell.run("distill", "matching.yaml", *only, "--name", name, "--store", "own")
        assert distilled.code == 0, distilled.err
        alone.append(rows(folder / "runs" / name))
    expected = pd.concat(alone, ignore_index=True).sort_values(["base_method", "split", "eval_seed"])
    pd.testing.assert_frame_equal(rows(folder / "runs" / "matching"), expected.reset_index(drop=True), check_exact=True)
