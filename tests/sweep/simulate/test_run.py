"""Whole sweeps in simulated time: the real plan, studies, search and ledger on modelled machines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddnl_ray.cli import cli
from ddnl_ray.errors import RequestError
from ddnl_ray.results import read_rows, read_run
from ddnl_ray.sweep.ledger import Ledger, trial_name
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.simulate.cluster import read_cluster
from ddnl_ray.sweep.simulate.run import _Trials

SweepOf = Callable[..., Plan]
Simulated = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("cells", "gpu", "turns"), [(4, 1, 1), (5, 1, 2), (9, 1, 3), (9, 0.5, 2)])
def test_equal_trials_take_as_many_turns_as_they_need(
    sweep_of: SweepOf, simulated: Simulated, cells: int, gpu: float, turns: int
) -> None:
    found = simulated(sweep_of(cells, resources={"cpu": 1, "gpu": gpu}))
    assert found["hours"] == pytest.approx(turns * 100 / 3600)
    assert found["busy"] == pytest.approx(cells * gpu * 100 / 3600)
    assert found["busy"] + found["idle"] == pytest.approx(found["unit_hours"]) == pytest.approx(4 * found["hours"])
    assert found["outcomes"] == {"ok": cells}


def test_the_ledger_is_that_of_a_sweep_and_says_that_it_is_simulated(sweep_of: SweepOf, simulated: Simulated) -> None:
    plan = sweep_of(3, trials=4)
    found = simulated(plan)
    ledger = Ledger(found["run"])
    names = {trial_name(cell.name, number) for cell in plan.cells for number in range(4)}
    assert set(ledger.finished()) == names
    frame = read_rows(found["run"] / "results.parquet")
    assert set(frame["device"]) == {"simulated"}
    assert frame[frame["is_selected"]].groupby("cell")["trial"].nunique().tolist() == [1, 1, 1]
    with pytest.raises(RequestError, match=rf"^{found['run']} holds a simulation and no results"):
        read_run(found["run"])
    with pytest.raises(RequestError, match=rf"^{found['run']} holds a simulation; choose another"):
        ledger.open(plan.sweep)


def test_a_folder_that_holds_something_is_refused(sweep_of: SweepOf, tmp_path: Path) -> None:
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text("name: tiny\ndata: {subset: 400, test_subset: 100}\ngrid: {method: [random], ipc: [1]}\n")
    run = tmp_path / "runs" / "tiny"
    Ledger(run).open(sweep_of().sweep)
    before = (run / "sweep.yaml").read_bytes()
    arguments = ["simulate", str(sweep), "--cluster", "gpus=1,trial_s=10", "--out", str(run)]
    said = CliRunner().invoke(cli, arguments)
    assert isinstance(said.exception, RequestError)
    assert str(said.exception).startswith(f"{run} is not empty")
    assert [path.name for path in run.iterdir()] == ["sweep.yaml"]
    assert (run / "sweep.yaml").read_bytes() == before


def test_the_command_answers_in_text_and_json(tmp_path: Path) -> None:
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(
        "name: tiny\ndata: {subset: 400, test_subset: 100}\nresources: {gpu: 1}\n"
        "grid: {method: [random], ipc: [1], seed: [0, 1, 2]}\n"
    )
    arguments = ["simulate", str(sweep), "--cluster", "gpus=2,trial_s=3600,trial_sigma=0,price=2.5"]
    said = CliRunner().invoke(cli, arguments)
    assert said.output.splitlines()[0] == (
        "simulated, nothing was run: 2.00 hours, 4.0 GPU hours, 10.00 at the given price"
    )
    assert "75.0% work, 25.0% idle, 0.0% lost to 0 preemptions" in said.output
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert (found["hours"], found["cost"], found["simulated"]) == (2.0, 10.0, True)
    assert not (Path.cwd() / "runs" / "tiny").exists()


@given(
    cells=st.integers(1, 4),
    trials=st.integers(1, 4),
    gpu=st.sampled_from([0.25, 0.5, 1]),
    rate=st.sampled_from([0.0, 5.0, 30.0]),
    diverge=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 9),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_trial_ends_once_whatever_happens_to_the_machines(
    sweep_of: SweepOf,
    simulated: Simulated,
    cells: int,
    trials: int,
    gpu: float,
    rate: float,
    diverge: float,
    seed: int,
) -> None:
    plan = sweep_of(cells, trials, resources={"cpu": 1, "gpu": gpu}, budget={"checkpoint_seconds": 20})
    about = {"preempt_per_hour": rate, "return_s": 30, "trial_sigma": 0.5, "diverge": diverge, "oom": 0.1, "seed": seed}
    found, again = simulated(plan, **about), simulated(plan, **about)
    varying = {"run", "driver_ms_per_trial", "peak_rss_mb"}
    assert {k: v for k, v in found.items() if k not in varying} == {k: v for k, v in again.items() if k not in varying}
    ended = Ledger(found["run"]).finished()
    assert len(ended) == plan.num_trials == sum(found["outcomes"].values())
    assert found["most_running"] <= found["places"]
    assert found["busy"] == pytest.approx(gpu * sum(result.wall_s for result in ended.values()) / 3600)
    assert found["busy"] + found["idle"] + found["lost"] == pytest.approx(found["unit_hours"])
    assert found["lost"] <= found["preemptions"] * 2 / gpu * gpu * 20 / 3600 + 1e-9


def test_a_machine_holds_no_more_trials_than_the_file_says(sweep_of: SweepOf, simulated: Simulated) -> None:
    found = simulated(sweep_of(9, resources={"cpu": 1, "gpu": 0.5, "max_concurrent": 3}))
    assert (found["places"], found["most_running"]) == (8, 3)
    assert found["hours"] == pytest.approx(3 * 100 / 3600)


@pytest.mark.parametrize("gpu", [0.25, 1])
def test_all_cells_advance_together(
    sweep_of: SweepOf, simulated: Simulated, monkeypatch: pytest.MonkeyPatch, gpu: float
) -> None:
    """With places for all: trial k of the last cell starts before trial k + 2 of the first."""
    started: list[tuple[str, int]] = []
    publish = _Trials._publish

    def note(self: _Trials, task: Any, outcome: Any, wall_s: float) -> None:
        cell, _, number = task.name.rpartition("-")
        started.append((cell, int(number)))
        publish(self, task, outcome, wall_s)

    monkeypatch.setattr(_Trials, "_publish", note)
    simulated(sweep_of(6, 4, resources={"cpu": 1, "gpu": gpu}))
    done: dict[str, int] = {}
    spread = []
    for cell, _ in started:
        done[cell] = done.get(cell, 0) + 1
        if len(done) == 6:
            spread.append(max(done.values()) - min(done.values()))
    assert max(spread) <= math.ceil(4 / gpu / 6) + 1


def test_nothing_waits_for_a_straggling_study(sweep_of: SweepOf, simulated: Simulated) -> None:
    """A trial of 'dm ipc 2' takes as long as all others together: they end as if it were not there."""
    grid = {"method": ["random", "dm"], "ipc": [1], "seed": list(range(6))}
    durations = {"default": 100, "dm": 10_000}
    alone = simulated(sweep_of(grid={**grid, "method": ["random"]}), gpus=8)
    both = simulated(sweep_of(grid=grid), gpus=8, trial_s=durations)
    assert alone["hours"] == pytest.approx(100 / 3600)
    ends = sorted(result.wall_s for result in Ledger(both["run"]).finished().values())
    assert ends == [100] * 6 + [10_000] * 6
    assert both["hours"] == pytest.approx(10_100 / 3600)
    assert both["last_start_hours"] == pytest.approx(100 / 3600)
    assert both["tail_trials"] == 0


def test_a_sweep_out_of_time_starts_nothing_and_says_what_is_not_done(sweep_of: SweepOf, simulated: Simulated) -> None:
    """Four at once, 100 s each, 150 s in all: four end, four are cut at 50 s, one never starts."""
    plan = sweep_of(9, budget={"sweep_seconds": 150, "checkpoint_seconds": 7})
    found = simulated(plan)
    assert found["outcomes"] == {"ok": 4, "timeout": 4}
    assert found["hours"] == pytest.approx(150 / 3600)
    ended = Ledger(found["run"]).finished()
    assert found["not_done"] == [cell.name for cell in plan.cells if trial_name(cell.name, 0) not in ended]
    assert len(found["not_done"]) == 1
    assert sorted(result.wall_s for result in ended.values()) == [50.0] * 4 + [100.0] * 4
    assert "out of time" in json.loads((found["run"] / "summary.json").read_text())["state"]


def test_trials_end_with_their_budget_and_cells_with_theirs(sweep_of: SweepOf, simulated: Simulated) -> None:
    found = simulated(sweep_of(2, budget={"trial_seconds": 30}))
    assert found["outcomes"] == {"timeout": 2}
    search = {"trials": 6, "parallel": 1, "space": {"dm.lr_img": {"log_uniform": [0.1, 10]}}}
    plan = sweep_of(2, 6, search=search, budget={"cell_seconds": 250})
    found = simulated(plan)
    assert found["outcomes"] == {"ok": 4, "timeout": 2}
    assert found["not_done"] == [cell.name for cell in plan.cells]
    ended = Ledger(found["run"]).finished()
    assert sorted(result.wall_s for result in ended.values()) == [50.0] * 2 + [100.0] * 4


def test_experts_come_before_the_trials_and_are_counted(sweep_of: SweepOf, simulated: Simulated) -> None:
    """Six experts in groups of two, ten epochs of 5 s each, on 4 GPUs: one turn of 50 s before the trial."""
    sections = {
        "grid": {"method": ["mtt"], "ipc": [1]},
        "params": {"mtt.max_start_epoch": 9, "mtt.expert_epochs": 2},
        "budget": {"experts": 6, "expert_epochs": 12},
        "experts": {"at_once": 2},
    }
    found = simulated(sweep_of(**sections), expert_epoch_s=5)
    assert found["making_hours"] == pytest.approx(50 / 3600)
    assert found["hours"] == pytest.approx(150 / 3600)
    assert found["busy"] == pytest.approx((3 * 50 + 100) / 3600)
    with pytest.raises(RequestError, match=r"^experts have to be trained before the trials: .* expert_epoch_s"):
        simulated(sweep_of(**sections))


def test_a_duration_that_nobody_gave_is_asked_for(sweep_of: SweepOf, simulated: Simulated) -> None:
    with pytest.raises(RequestError, match=r"^how long does a trial of random ipc 1 take\? Give trial_s in seconds"):
        simulated(sweep_of(), trial_s=None)
    with pytest.raises(
        RequestError, match=r"^cluster: trial_s\.datm: no cell has it; known: default, random, random ip"
    ):
        simulated(sweep_of(), trial_s={"datm": 5, "default": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu=4", "cluster: unknown key 'gpu': did you mean 'gpus'?"),
        ("gpus=-1", "cluster: gpus: Input should be greater than or equal to 0, but got -1"),
        ("gpus=12,gpus_per_node=8", "cluster: gpus must be a multiple of gpus_per_node (8), but got 12"),
        ("diverge=0.7,oom=0.5", "cluster: diverge and oom are shares of the same trials, but sum to 1.2"),
        ("trial_s=-3", "cluster: trial_s must be above 0, but got -3"),
        ("preempt_per_hour=often", "cluster: preempt_per_hour: Input should be a valid number"),
        ("nowhere.yaml", "--cluster: nowhere.yaml is no file"),
    ],
)
def test_a_wrong_cluster_is_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        read_cluster(text)


def test_a_cluster_is_read_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("gpus: 16\ntrial_s: {datm: 600, random: 20}\nautoscale: true\n")
    found = read_cluster(str(path))
    assert (found.gpus, found.num_nodes, found.autoscale) == (16, 2, True)
    assert found.trial_s == {"datm": 600, "random": 20}
