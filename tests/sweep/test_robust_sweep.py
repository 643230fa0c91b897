"""Sweeps of robust methods: on Ray they give, bit for bit, what one process gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from ddnl_ray.cli import cli
from ddnl_ray.experts import ExpertStore
from ddnl_ray.files import read_json
from ddnl_ray.results import read_rows

pytestmark = pytest.mark.ray

PARAMS = {
    "datm+tad": "datm.max_start_epoch: 2, datm.current_max_start_epoch: 1, datm.expert_epochs: 1, datm.syn_steps: 2, "
    "tad.rounds: 1, tad.probes: 1, tad.probe_epochs: 4, tad.anchors_per_class: 2, tad.anchor_iterations: 2, "
    "tad.minimum_trusted: 2",
    "mtt+sgr+tiat": "mtt.max_start_epoch: 2, mtt.expert_epochs: 1, mtt.syn_steps: 2, sgr.forgetting_networks: 1, "
    "sgr.forgetting_first_epochs: 2, sgr.forgetting_second_epochs: 2, tiat.beta: 0.5",
    "ftd+rdc": "ftd.max_start_epoch: 2, ftd.expert_epochs: 1, ftd.syn_steps: 2, rdc.warm_up: 1, rdc.restarts: 1, "
    "rdc.labelled_batch: 16, rdc.unlabelled_batch: 16",
}
SWEEP = f"""
name: trust
data: {{name: digits, subset: 400, test_subset: 100}}
grid: {{noise: [{{kind: symmetric, rate: 0.4}}], method: [{", ".join(PARAMS)}], ipc: [1]}}
params: {{{", ".join(PARAMS.values())}}}
extractor: {{network: convnet1, width: 4, epochs: 1}}
evaluate: {{repeats: 2}}
budget: {{experts: 2, expert_epochs: 3, iterations: 3, eval_epochs: 5}}
model: {{name: convnet1, width: 4}}
resources: {{cpu: 1}}
"""
SHARED = ["split", "eval_seed", "is_final", "accuracy", "loss", "base_method", "variant", "params", "expert_key"]


def rows(run: Path) -> pd.DataFrame:
    found = read_rows(run / "results.parquet").sort_values(["base_method", "split", "eval_seed"])
    return found[SHARED].reset_index(drop=True)


def trusts(run: Path) -> dict[str, Any]:
    return {path.parent.name: read_json(path) for path in (run / "trials").glob("*/trust.json")}


def only(method: str, *without: str) -> list[str]:
    """Return the options that leave one method in the file, and its parameters but for some."""
    kept = ", ".join(each for each in PARAMS[method].split(", ") if not each.startswith(without or ("-",)))
    return ["--set", f"grid.method=[{method}]", "--set", "params={}", "--set", f"params={{{kept}}}"]


def test_ray_and_one_process_agree(shell: Any) -> None:
    folder = shell.folder
    (folder / "trust.yaml").write_text(SWEEP)
    said = shell.run("sweep", "trust.yaml", "--cpus", 2)
    assert said.code == 0, said.err
    assert "making curated, features, forgotten, golden, reliable" in said.err
    alone = []
    for method in PARAMS:
        base = method.partition("+")[0]
        distilled = shell.run("distill", "trust.yaml", *only(method), "--name", base, "--store", "own")
        assert distilled.code == 0, distilled.err
        alone.append(rows(folder / "runs" / base))
        (trust,) = trusts(folder / "runs" / base).values()
        assert trust in trusts(folder / "runs" / "trust").values()
    expected = pd.concat(alone).sort_values(["base_method", "split", "eval_seed"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(rows(folder / "runs" / "trust"), expected, check_exact=True)
    assert set(expected["variant"]) == {"tad", "sgr_tiat", "rdc"}
    assert len(ExpertStore(folder / "own").derived()) == 5
    listed = CliRunner().invoke(cli, ["experts", "ls", "--store", str(folder / "own")]).stdout
    assert " tad\n" in listed
    assert " tuned\n" in listed
    assert " rdc\n" in listed
    assert "5 derived" in listed


def test_a_study_over_what_experts_depend_on_makes_them_trial_by_trial(shell: Any) -> None:
    folder = shell.folder
    (folder / "trust.yaml").write_text(SWEEP)
    space = "{tad.consistency_weight: {choice: [0.1, 0.4]}, tad.rounds: {int_uniform: [1, 2]}}"
    changes = [*only("datm+tad", "tad.rounds"), "--set", f"search={{trials: 4, sampler: random, space: {space}}}"]
    command = ["sweep", "trust.yaml", "--name", "tune", *changes, "--cpus", 2, "--store", "tuned"]
    said = shell.run(*command)
    assert said.code == 0, said.err
    found = read_rows(folder / "runs" / "tune" / "results.parquet")
    assert set(found["outcome"]) == {"ok"}
    assert found["trial"].nunique() == 4
    assert found["expert_key"].nunique() == found["params"].nunique() > 1
    again = shell.run(*command)
    assert "4 of 4 trials done (4 were there before)" in again.out + again.err
