"""How trials end when they do not end well: always with rows that say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ddnl_ray.distill import Problem, StepInfo
from ddnl_ray.distill.mtt import Mtt
from ddnl_ray.distill.trajectory import TrajectoryState
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.results import Outcome, read_rows, write_rows
from ddnl_ray.seeds import SeedTree
from ddnl_ray.trial import TrialConfig, TrialInputs

Rows = list[dict[str, Any]]
Config = Callable[..., TrialConfig]
Run = Callable[..., Rows]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> int:
    """Give up after five refused updates."""
    monkeypatch.setattr("ddnl_ray.trial.run.PATIENCE", 5)
    return 5


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[StepInfo]:
    """What every step of MTT reported."""
    seen: list[StepInfo] = []
    real = Mtt.step

    def spy(self: Mtt, *args: Any) -> Any:
        state, info = real(self, *args)
        seen.append(info)
        return state, info

    monkeypatch.setattr(Mtt, "step", spy)
    return seen


def only(rows: Rows, tmp_path: Path) -> dict[str, Any]:
    """The single row, after a round trip through a part file."""
    write_rows(tmp_path / "part.parquet", rows, "val_noisy")
    assert len(read_rows(tmp_path / "part.parquet")) == 1
    (row,) = rows
    assert "accuracy" not in row
    assert not row["is_final"]
    assert not row["is_selected"]
    return row


@pytest.mark.parametrize("params", [{"lr_img": 1e30}, {"lr_teacher": 1e20, "lr_lr": 0.0}])
def test_a_loss_that_is_not_finite_ends_within_patience(
    config: Config, run: Run, tmp_path: Path, patience: int, steps: list[StepInfo], params: dict[str, Any]
) -> None:
    row = only(run(config("mtt", {"iterations": 100, **params})), tmp_path)
    assert row["outcome"] == Outcome.NONFINITE
    assert row["message"] == (
        "5 updates in a row were refused (matching loss nan); lower lr_img, lr_teacher or max_start_epoch"
    )
    assert [info.accepted for info in steps][-patience:] == [False] * patience
    assert len(steps) <= patience + 2


def test_a_loss_above_the_gate_ends_within_patience(config: Config, run: Run, tmp_path: Path, patience: int) -> None:
    row = only(run(config("datm", {"iterations": 100, "threshold": 1e-9})), tmp_path)
    assert row["outcome"] == Outcome.DIVERGED
    assert row["message"].startswith("5 updates in a row were refused (matching loss ")


@pytest.mark.parametrize(
    ("params", "outcome"),
    [({"max_loss": 1e-9}, Outcome.DIVERGED), ({"lr_teacher": 1e20, "lr_lr": 0.0}, Outcome.NONFINITE)],
)
def test_a_short_trial_without_an_accepted_update(
    config: Config, run: Run, tmp_path: Path, params: dict[str, Any], outcome: Outcome
) -> None:
    row = only(run(config("mtt", params)), tmp_path)
    assert (row["outcome"], row["message"]) == (outcome, outcome.sentence)


def test_refusals_that_stop_in_time_are_forgiven(
    config: Config, run: Run, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    real, calls = Mtt.step, iter(range(1000))

    def flaky(self: Mtt, state: Any, problem: Any, seed: Any) -> Any:
        if next(calls) % patience == 0:
            return real(self, state, problem, seed)
        return replace(state, iteration=state.iteration + 1), StepInfo(2.0, accepted=False)

    monkeypatch.setattr(Mtt, "step", flaky)
    rows = run(config("mtt", {"iterations": 14}))
    assert {row["outcome"] for row in rows} == {Outcome.OK}


def test_a_set_that_became_infinite_is_not_scored(
    config: Config, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Mtt.step

    def overflow(self: Mtt, *args: Any) -> Any:
        state, info = real(self, *args)
        return (replace(state, images=state.images * torch.inf) if state.iteration == 6 else state), info

    monkeypatch.setattr(Mtt, "step", overflow)
    row = only(run(config("mtt")), tmp_path)
    assert (row["outcome"], row["message"]) == (Outcome.NONFINITE, Outcome.NONFINITE.sentence)


def test_an_error_becomes_a_row_and_a_log(
    config: Config, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(Mtt, "step", fail)
    row = only(run(config("mtt")), tmp_path)
    log = tmp_path / "trials" / "trial" / "error.log"
    assert row["outcome"] == Outcome.FAILED
    assert row["message"] == f"ZeroDivisionError: nothing to divide by (see {log})"
    assert "Traceback" in log.read_text()
    assert "nothing to divide by" in log.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": 1000}, "RequestError: ipc is 1000, but class 0 has only "),
        ({"params": {"lr_img": -1.0}}, "RequestError: lr_img must be 0 or more, but got -1.0"),
        ({"select_on": "val_clean"}, "RequestError: unknown selection split 'val_clean'"),
    ],
)
def test_a_wrong_request_becomes_a_row(
    config: Config, run: Run, inputs: TrialInputs, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    truth_unknown = replace(inputs, labels=NoisyLabels(inputs.labels.labels, None, inputs.labels.config, 0, 10))
    row = only(run(config("mtt", **changes), inputs=truth_unknown), tmp_path)
    assert row["outcome"] == Outcome.FAILED
    assert row["message"].startswith(message)


def test_out_of_memory(config: Config, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    monkeypatch.setattr(Mtt, "step", fail)
    row = only(run(config("mtt")), tmp_path)
    assert row["outcome"] == Outcome.OOM
    assert row["message"] == (
        "The device ran out of memory. CUDA out of memory. Tried to allocate 2.00 GiB. "
        "Memory ran out 3 times: it went on without kept tapes, in parts of 1/64 of the size."
    )


def test_a_trial_that_runs_out_of_memory_goes_on_smaller(
    config: Config, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(config("mtt"), "undisturbed", graph_memory=2**30)
    real, seen = Mtt.step, []

    def fail_twice(self: Mtt, state: TrajectoryState, problem: Problem, seed: SeedTree) -> Any:
        seen.append((state.iteration, problem.smaller))
        if len(seen) in (3, 5):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, state, problem, seed)

    monkeypatch.setattr(Mtt, "step", fail_twice)
    rows = run(config("mtt"), "smaller", graph_memory=2**30, checkpoint_s=0.0)
    assert seen[:6] == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 1), (3, 2)]  # nothing is done twice
    assert {row["message"] for row in rows} == {
        "Memory ran out 2 times: it went on without kept tapes, in parts of 1/16 of the size."
    }
    assert {row["outcome"] for row in rows} == {Outcome.OK}
    for row, other in zip(rows, undisturbed, strict=True):
        assert row["split"] == other["split"]
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_stopped_at_a_rung(config: Config, run: Run) -> None:
    rows = run(config("mtt"), rungs={2: 0.0, 4: 1.1, 5: 0.0})
    assert [row["iteration"] for row in rows] == [2, 4]
    assert {(row["outcome"], row["message"]) for row in rows} == {(Outcome.STOPPED, Outcome.STOPPED.sentence)}
    assert all(row["split"] == "val_noisy" and 0 <= row["accuracy"] <= 1 for row in rows)


def test_timeout(config: Config, run: Run, tmp_path: Path, steps: list[StepInfo]) -> None:
    row = only(run(config("mtt"), limit_s=0.0), tmp_path)
    assert (row["outcome"], row["message"]) == (Outcome.TIMEOUT, Outcome.TIMEOUT.sentence)
    assert len(steps) == 1


def test_a_timeout_goes_on_when_the_limit_is_raised(config: Config, run: Run) -> None:
    expected = run(config("mtt"), "whole")
    run(config("mtt"), limit_s=0.0, checkpoint_s=0.0)
    rows = run(config("mtt"))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


def test_looks_before_the_end_are_kept(config: Config, run: Run, patience: int) -> None:
    rows = run(config("mtt", {"iterations": 100, "max_loss": 1e-9}, eval_every=2))
    assert [row["iteration"] for row in rows] == [2, 4]
    assert {row["outcome"] for row in rows} == {Outcome.DIVERGED}


def test_interrupts_are_raised(config: Config, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Mtt, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config("mtt"))
