"""A trial that is taken away and started again ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.files import read_json, read_tensors
from ddnl_ray.trial import TrialConfig

VOLATILE = ("wall_s", "finished_at", "peak_memory_bytes")
Rows = list[dict[str, Any]]
Config = Callable[..., TrialConfig]
Run = Callable[..., Rows]
ITERATIONS = {"mtt": 6, "datm": 6, "random": 0}


def stable(rows: Rows) -> Rows:
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows]


class Interrupt:
    """Raises at one call, as Ctrl-C or a lost machine would."""

    def __init__(self, at_call: int) -> None:
        self.at_call, self.calls = at_call, 0

    def __call__(self, iteration: int) -> None:
        self.calls += 1
        if self.calls == self.at_call:
            raise KeyboardInterrupt


def settings(config: Config, method: str) -> TrialConfig:
    return config(method, {"lr_img": 50.0} if method != "random" else {}, eval_every=3)


@pytest.mark.parametrize("method", sorted(ITERATIONS))
def test_interrupted_at_every_checkpoint(config: Config, run: Run, tmp_path: Path, method: str) -> None:
    """Each start gets one checkpoint further, through distillation, looks and evaluations."""
    chosen = settings(config, method)
    whole = run(chosen, "whole")
    starts = 0
    while True:
        starts += 1
        try:
            pieces = run(chosen, "pieces", checkpoint_s=0.0, on_progress=Interrupt(1))
            break
        except KeyboardInterrupt:
            assert starts < 50
    evaluated = {(row["iteration"], row["eval_seed"]) for row in whole if row["is_final"] or row["is_selected"]}
    assert starts == ITERATIONS[method] + len(evaluated) + 1
    assert stable(pieces) == stable(whole)
    files = [tmp_path / "trials" / name / "distilled.safetensors" for name in ("whole", "pieces")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("at_call", [2, 3, 6, 7, 9])
def test_interrupted_once(config: Config, run: Run, tmp_path: Path, at_call: int) -> None:
    """Calls 3 and 7 are the looks at iterations 3 and 6, 9 is after the first evaluation, the rest are iterations."""
    chosen = settings(config, "datm")
    whole = run(chosen, "whole", checkpoint_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(chosen, "pieces", checkpoint_s=0.0, on_progress=Interrupt(at_call))
    assert stable(run(chosen, "pieces")) == stable(whole)
    cards = [read_json(tmp_path / "trials" / name / "card.json") for name in ("whole", "pieces")]
    assert cards[0] == cards[1]


def test_interrupted_before_the_first_checkpoint(config: Config, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(config, "mtt")
    whole = run(chosen, "whole")
    with monkeypatch.context() as patch:
        patch.setattr("ddnl_ray.trial.run.train_and_score", lambda *args: Interrupt(1)(0))
        with pytest.raises(KeyboardInterrupt):
            run(chosen, "pieces")
    assert stable(run(chosen, "pieces")) == stable(whole)


def test_a_finished_trial_gives_its_rows_again(config: Config, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(config, "mtt")
    first = run(chosen, checkpoint_s=0.0)
    monkeypatch.setattr("ddnl_ray.trial.run.train_and_score", None)
    assert stable(run(chosen)) == stable(first)


def test_the_checkpoint_of_another_configuration_is_not_used(config: Config, run: Run) -> None:
    expected = run(settings(config, "mtt"), "fresh")
    run(replace(settings(config, "mtt"), seed=1), "used", checkpoint_s=0.0)
    assert stable(run(settings(config, "mtt"), "used")) == stable(expected)


def test_wall_time_adds_up_over_starts(config: Config, run: Run, tmp_path: Path) -> None:
    chosen = settings(config, "mtt")
    with pytest.raises(KeyboardInterrupt):
        run(chosen, checkpoint_s=0.0, on_progress=Interrupt(4))
    _, meta = read_tensors(tmp_path / "trials" / "trial" / "checkpoint.safetensors")
    assert meta["progress"]["wall_s"] > 0
    assert all(row["wall_s"] > meta["progress"]["wall_s"] for row in run(chosen))


def test_progress_can_be_read_while_it_runs(config: Config, run: Run, tmp_path: Path) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []
    path = tmp_path / "trials" / "trial" / "progress.json"

    def watch(iteration: int) -> None:
        seen.append((iteration, read_json(path)))

    run(settings(config, "mtt"), checkpoint_s=0.0, on_progress=watch)
    assert [iteration for iteration, _ in seen][:4] == [1, 2, 3, 3]
    assert all(live["iteration"] == iteration and live["iterations"] == 6 for iteration, live in seen)
    assert [look["iteration"] for look in seen[-1][1]["looks"]] == [3, 6]


def test_a_loss_that_is_not_finite_survives_a_checkpoint(config: Config, run: Run) -> None:
    """Networks may diverge on a bad set: that is a score, and must not stop the trial from being saved."""
    chosen = config("mtt", {"lr_teacher": 0.05}, eval_every=3)
    broken = replace(chosen, evaluation=replace(chosen.evaluation, lr=1e30))
    rows = run(broken, checkpoint_s=0.0)
    assert {row["outcome"] for row in rows} == {"ok"}
    assert all(row["loss"] != row["loss"] for row in rows)
    with pytest.raises(KeyboardInterrupt):
        run(broken, "pieces", checkpoint_s=0.0, on_progress=Interrupt(8))
    resumed = run(broken, "pieces")
    assert [row["accuracy"] for row in resumed] == [row["accuracy"] for row in rows]
