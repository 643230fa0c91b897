from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.tuning import Axis, read_space, searches, value_text
from analysis.tuning.searches import mean_score

SPACE = {
    "tad.consistency_weight": {"log_uniform": [0.01, 1.0]},
    "datm.lr_img": {"uniform": [10, 30]},
    "tad.top_k": {"choice": [20, 50, 100]},
    "tad.rounds": {"int_uniform": [1, 3]},
    "sgr.other": {"uniform": [0, 1]},
}


def params(weight: float, lr: float, top_k: int, rounds: int) -> dict[str, Any]:
    searched = {"tad.consistency_weight": weight, "lr_img": lr, "tad.top_k": top_k, "tad.rounds": rounds}
    return {**searched, "iterations": 60}


def test_a_search_has_the_axes_of_its_space_and_its_trials_their_scores(make_cells: Callable[..., Any]) -> None:
    one = [(params(0.1, 10, 20, 1), 0.5, 0.6), (params(0.2, 20, 50, 1), 0.7, 0.5), (params(1.0, 30, 50, 1), None, None)]
    two = [(params(0.3, 12, 20, 1), 0.2, 0.2), (params(0.4, 12, 20, 1), 0.4, 0.3)]
    (search,) = searches(make_cells([one, two]), SPACE, "val_noisy")
    assert search.axes == (
        Axis("tad.consistency_weight", 0.01, 1.0, is_log=True),
        Axis("lr_img", 10, 30),
        Axis("tad.top_k", choices=("20", "50", "100")),
    )
    assert search.constant == {"tad.rounds": 1}
    assert (search.num_cells, search.is_pooled, len(search.trials), len(search.scored)) == (2, True, 5, 4)
    assert [trial.score for trial in search.trials] == [0.5, 0.7, None, 0.2, 0.4]
    assert [trial.accuracy for trial in search.trials] == [0.6, 0.5, None, 0.2, 0.3]
    assert [trial.relative for trial in search.scored] == pytest.approx([-0.1, 0.1, -0.1, 0.1])
    assert [trial.is_best for trial in search.trials] == [False, True, False, False, True]


def test_without_a_space_what_differs_was_searched(make_cells: Callable[..., Any]) -> None:
    own = [({"a": i / 10, "b": "xy"[i % 2], "c": None if i else 1, "d": 7}, 0.1 * i, 0.1) for i in range(6)]
    (search,) = searches(make_cells([own]), {}, "val_noisy")
    assert {axis.name: axis.choices for axis in search.axes} == {"a": (), "b": ("x", "y"), "c": ("1", "null")}
    assert search.constant == {}
    assert not search.is_pooled


def test_cells_of_one_trial_and_equal_trials_are_no_search(make_cells: Callable[..., Any]) -> None:
    assert searches(make_cells([[({"a": 1}, 0.5, 0.5)]]), {}, "val_noisy") == []
    assert searches(make_cells([[({"a": 1}, 0.5, 0.5), ({"a": 1}, 0.4, 0.5)]]), {}, "val_noisy") == []
    assert searches([], SPACE, "val_noisy") == []


def test_a_value_outside_the_range_widens_the_axis(make_cells: Callable[..., Any]) -> None:
    own = [({"a": value}, 0.5, 0.5) for value in (0.001, 0.5)]
    (search,) = searches(make_cells([own]), {"a": {"log_uniform": [0.01, 0.1]}}, "val_noisy")
    assert search.axes == (Axis("a", 0.001, 0.5, is_log=True),)


def test_the_score_is_that_of_the_chosen_iteration_over_all_networks() -> None:
    base = {"split": "val_noisy", "outcome": "ok", "is_final": False, "eval_seed": 0}
    look = base | {"eval_seed": None, "accuracy": 0.9}
    final = base | {"is_final": True, "accuracy": 0.1}
    chosen = [base | {"accuracy": 0.4}, base | {"accuracy": 0.6, "eval_seed": 1}]
    assert mean_score([look, final], "val_noisy") == 0.1
    assert mean_score([look, final, *chosen], "val_noisy") == pytest.approx(0.5)
    assert mean_score([look], "val_noisy") is None
    assert mean_score([final], "test") is None


@pytest.mark.parametrize(
    ("axis", "value", "place", "ticks"),
    [
        (Axis("a", 0.01, 1.0, is_log=True), 0.1, 0.5, ["0.01", "0.1", "1"]),
        (Axis("a", 0.02, 50.0, is_log=True), 0.02, 0.0, ["0.02", "0.1", "1", "10", "50"]),
        (Axis("a", 0.0, 2.0), 0.5, 0.25, ["0", "1", "2"]),
        (Axis("a", 1, 3, is_int=True), 2, 0.5, ["1", "2", "3"]),
        (Axis("a", 0, 100, is_int=True), 50, 0.5, ["0", "50", "100"]),
        (Axis("a", choices=("x", "y")), "y", 0.75, ["x", "y"]),
    ],
)
def test_places_on_an_axis(axis: Axis, value: Any, place: float, ticks: list[str]) -> None:
    assert axis.place(value) == pytest.approx(place)
    assert [text for _, text in axis.ticks] == ticks
    heights = [height for height, _ in axis.ticks]
    assert heights == sorted(heights)
    assert 0 <= heights[0] <= heights[-1] <= 1


def test_values_as_text() -> None:
    assert [value_text(value) for value in (0.123456, 3, "x", True, None)] == ["0.1235", "3", "x", "true", "null"]


@pytest.mark.parametrize("text", [None, "name: x\n", "search: null\n", "search: {space: null}\n", "a: [", "- 1\n"])
def test_a_sweep_file_that_names_no_space_gives_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "sweep.yaml").write_text(text)
    assert read_space(tmp_path) == {}


def test_the_space_of_a_sweep_file(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("search: {space: {a: {choice: [1, 2]}}}\n")
    assert read_space(tmp_path) == {"a": {"choice": [1, 2]}}
