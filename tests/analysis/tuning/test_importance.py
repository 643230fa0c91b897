from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.tuning import Search, importance, searches

MakeCells = Callable[..., Any]
SPACE = {
    "a": {"uniform": [0.0, 1.0]},
    "b": {"choice": ["x", "y", "z"]},
    "c": {"int_uniform": [1, 5]},
    "d": {"log_uniform": [0.01, 1.0]},
}


def search(make_cells: MakeCells, num: int, effect: float, cells: int = 1) -> Search:
    """A search in which only ``b`` matters, by ``effect`` times the standard deviation of the noise."""
    rng = np.random.default_rng(3)
    searched = []
    for cell in range(cells):
        trials = []
        for _ in range(num):
            b = str(rng.choice(["x", "y", "z"]))
            params = {"a": rng.uniform(), "b": b, "c": int(rng.integers(1, 6)), "d": 10 ** rng.uniform(-2, 0)}
            score = 0.3 * cell + 0.2 + 0.01 * (effect * (b == "y") + rng.normal())
            trials.append((params, float(score), 0.5))
        searched.append(trials)
    (found,) = searches(make_cells(searched), SPACE, "val_noisy")
    return found


def test_what_matters_stands_out_and_noise_does_not(make_cells: MakeCells) -> None:
    found = importance(search(make_cells, 30, 8))
    assert (found.num_trials, found.reason) == (30, "")
    assert [share.name for share in found.shares if share.stands_out] == ["b"]
    assert found.shares[0].name == "b"
    assert found.shares[0].share > 0.7
    assert sum(share.share for share in found.shares) == pytest.approx(1)
    noise = importance(search(make_cells, 30, 0))
    assert sum(share.share for share in noise.shares) == pytest.approx(1)
    assert not any(share.stands_out for share in noise.shares)


def test_cells_that_differ_in_level_are_pooled_without_it(make_cells: MakeCells) -> None:
    found = importance(search(make_cells, 12, 8, cells=3))
    assert found.num_trials == 36
    assert [share.name for share in found.shares if share.stands_out] == ["b"]


def test_importance_is_the_same_for_the_same_trials(make_cells: MakeCells) -> None:
    same = search(make_cells, 12, 2)
    assert importance(same) == importance(same)


def test_few_trials_get_no_number(make_cells: MakeCells) -> None:
    found = importance(search(make_cells, 9, 8))
    assert found.shares == ()
    assert found.reason == "9 trials with a score say little about which parameter matters; it takes 10 or more."


def test_one_parameter_and_equal_scores_get_no_number(make_cells: MakeCells) -> None:
    one = [({"a": i / 20}, 0.1 * (i % 3), 0.5) for i in range(12)]
    (found,) = searches(make_cells([one]), {"a": SPACE["a"]}, "val_noisy")
    assert "Only a varied" in importance(found).reason
    flat = [({"a": i / 20, "b": "xy"[i % 2]}, 0.5, 0.5) for i in range(12)]
    (found,) = searches(make_cells([flat]), SPACE, "val_noisy")
    assert "All trials have the same score" in importance(found).reason


def test_failed_trials_do_not_count(make_cells: MakeCells) -> None:
    trials = [({"a": i / 20, "b": "xy"[i % 2]}, 0.1 * i if i < 8 else None, 0.5) for i in range(14)]
    (found,) = searches(make_cells([trials]), SPACE, "val_noisy")
    assert importance(found).reason.startswith("8 trials with a score")
