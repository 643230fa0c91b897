"""Suggestions and early stopping as pure functions of what earlier trials of the cell have shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.sweep.schema import SearchSection, StopperSection
from ddnl_ray.sweep.search import Shown, rungs, suggest

TPE, RANDOM = SearchSection(), SearchSection(sampler="random")
MakePlan = Callable[..., Plan]

SPACE = (
    "search.space={datm.lr_img: {log_uniform: [3, 100]}, datm.lr_y: {uniform: [1, 9]}, "
    "datm.batch_syn: {int_uniform: [2, 6]}, datm.pix_init: {choice: [real, samples_predicted_correctly]}}"
)

FRESH = """
from pathlib import Path
from ddnl_ray.sweep.plan import make_plan
from ddnl_ray.sweep.read import read_sweep
from ddnl_ray.sweep.search import Shown, suggest

def result():
    plan = make_plan(read_sweep(Path({path!r}), None, ("search.space={{}}", {space!r})))
    cell = [cell for cell in plan.cells if cell.config.method == "datm"][0]
    shown = [Shown(params, value, {{}}) for params, value in {shown!r}]
    suggested = [suggest(cell, number, shown, [shown[0].params], plan.sweep.search) for number in (3, 8)]
    return [[cell.name for cell in plan.cells], suggested]
"""


@pytest.fixture
def cell(plan: MakePlan) -> Callable[..., Cell]:
    """The cell of a method, with ``key=value`` overrides."""

    def make(*overrides: str, method: str = "datm") -> Cell:
        return next(cell for cell in plan(*overrides).cells if cell.config.method == method)

    return make


@pytest.fixture
def wide(cell: Callable[..., Cell]) -> Cell:
    """A cell that searches one parameter of every kind."""
    return cell("search.space={}", SPACE)


def history(count: int) -> list[Shown]:
    """Trials that are better the nearer lr_img is to 30."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        params: dict[str, Any] = {
            "lr_img": float(np.exp(generator.uniform(np.log(3), np.log(100)))),
            "lr_y": float(generator.uniform(1, 9)),
            "batch_syn": int(generator.integers(2, 7)),
            "pix_init": "real",
        }
        made.append(Shown(params, -abs(np.log(params["lr_img"] / 30)), {}))
    return made


PENDING = [trial.params for trial in history(17)[15:]]


def test_the_first_trial_is_the_recipes_own(cell: Callable[..., Cell]) -> None:
    assert suggest(cell(), 0, [], [], TPE) == {"lr_img": 30}


def test_the_first_trial_takes_the_methods_default_where_the_recipe_is_silent(cell: Callable[..., Cell]) -> None:
    silent = cell("search.space={}", "search.space={datm.momentum_img: {uniform: [0.1, 0.9]}}")
    assert "momentum_img" not in silent.config.params
    assert suggest(silent, 0, [], [], TPE) == {"momentum_img": 0.5}


def test_the_first_trial_takes_a_fixed_parameter_over_the_recipes(cell: Callable[..., Cell]) -> None:
    fixed = cell("search.space={}", "search.space={datm.lr_y: {uniform: [1, 9]}}", "params.datm.lr_lr=0.5")
    assert fixed.config.params["lr_lr"] == 0.5
    assert suggest(fixed, 0, [], [], TPE) == {"lr_y": 5}


@pytest.mark.parametrize(
    "space",
    ["{log_uniform: [3, 29]}", "{uniform: [31, 100]}", "{choice: [3, 100]}"],
)
def test_the_first_trial_is_drawn_where_the_recipes_own_is_outside_the_space(
    cell: Callable[..., Cell], space: str
) -> None:
    outside = cell(f"search.space.datm.lr_img={space}")
    value = suggest(outside, 0, [], [], TPE)["lr_img"]
    assert value != 30
    low, high = next(bounds for bounds in outside.space["lr_img"].model_dump().values() if bounds)
    assert low <= value <= high


def test_a_cell_without_a_space_has_nothing_to_suggest(cell: Callable[..., Cell]) -> None:
    assert suggest(cell(method="random"), 0, [], [], TPE) == {}


@pytest.mark.parametrize("search", [TPE, RANDOM], ids=["tpe", "random"])
def test_suggestions_lie_in_the_space(wide: Cell, search: SearchSection) -> None:
    for number in range(1, 12):
        params = suggest(wide, number, history(number), PENDING, search)
        assert set(params) == set(wide.space)
        assert 3 <= params["lr_img"] <= 100
        assert 1 <= params["lr_y"] <= 9
        assert params["batch_syn"] in range(2, 7)
        assert isinstance(params["batch_syn"], int)
        assert params["pix_init"] in ("real", "samples_predicted_correctly")


@pytest.mark.parametrize("search", [TPE, RANDOM], ids=["tpe", "random"])
def test_suggestions_are_a_function_of_their_arguments(
    wide: Cell, search: SearchSection, global_random_untouched: Callable[..., Any]
) -> None:
    with global_random_untouched(1):
        first = suggest(wide, 8, history(6), PENDING, search)
    with global_random_untouched(2):
        again = suggest(wide, 8, history(6), PENDING, search)
    assert first == again
    assert suggest(wide, 9, history(6), PENDING, search) != first


def test_names_and_suggestions_are_the_same_in_other_processes(
    plan: MakePlan, sweep_file: Path, elsewhere: Callable[[str, int], Any]
) -> None:
    made = plan("search.space={}", SPACE)
    datm = next(cell for cell in made.cells if cell.config.method == "datm")
    shown = [(trial.params, float(trial.value or 0)) for trial in history(9)]
    trials = [Shown(params, value, {}) for params, value in shown]
    here = [suggest(datm, number, trials, [trials[0].params], made.sweep.search) for number in (3, 8)]
    there = elsewhere(FRESH.format(path=str(sweep_file), space=SPACE, shown=shown), 7)
    assert there == [[cell.name for cell in made.cells], here]


def test_cells_have_suggestions_of_their_own(plan: MakePlan) -> None:
    made = plan("grid.seed=[0, 1]", "grid.noise_seed=[0, 1]")
    cells = [cell for cell in made.cells if cell.config.method == "datm"]
    assert len(cells) == 8
    assert len({suggest(cell, 1, [], [], TPE)["lr_img"] for cell in cells}) == 8


def test_a_search_moves_to_where_the_values_are_high(cell: Callable[..., Cell]) -> None:
    """With a peak at 30, the later trials of TPE lie nearer to it than those of random search."""
    one = replace(cell(), name="a-name-of-its-own")

    def distance(search: SearchSection) -> float:
        shown: list[Shown] = []
        for number in range(1, 31):
            params = suggest(one, number, shown, [], search)
            shown.append(Shown(params, -abs(np.log(params["lr_img"] / 30)), {}))
        return -float(np.mean([trial.value for trial in shown[10:] if trial.value is not None]))

    assert distance(TPE) < 0.7 * distance(RANDOM)


def test_pending_trials_push_suggestions_away(wide: Cell) -> None:
    assert suggest(wide, 20, history(15), [], TPE) != suggest(wide, 20, history(15), PENDING, TPE)


def test_failed_trials_have_no_value(wide: Cell) -> None:
    """A failed trial teaches the sampler nothing; one with the value 0 would be the best of these negative ones."""
    failed = Shown(history(1)[0].params, None, {})
    worth_nothing = Shown(failed.params, 0.0, {})
    without = suggest(wide, 20, history(15), [], TPE)
    assert suggest(wide, 20, [*history(15), failed], [], TPE) == without
    assert suggest(wide, 20, [*history(15), worth_nothing], [], TPE) != without


def stopper(grace: int, factor: int) -> StopperSection:
    return StopperSection(kind="asha", grace=grace, reduction_factor=factor)


def test_rungs_by_hand() -> None:
    """Rungs at 2, 6 and 18 of 20; the best third of (0.1, 0.4, 0.7) begins two thirds of the way: 0.4 + 0.3 / 3."""
    shown = [
        Shown({}, 0.7, {2: 0.1, 6: 0.3}),
        Shown({}, 0.4, {2: 0.4, 6: 0.5}),
        Shown({}, 0.1, {2: 0.7}),
    ]
    floors = rungs(stopper(2, 3), 20, shown)
    assert list(floors) == [2, 6, 18]
    assert floors[2] == pytest.approx(0.5)
    assert floors[6] == pytest.approx(0.3 + 2 / 3 * 0.2)
    assert floors[18] == 0.0


def test_halving_by_hand() -> None:
    shown = [Shown({}, None, {1: value}) for value in (0.2, 0.6, 0.3, 0.5)]
    assert rungs(stopper(1, 2), 2, shown) == {1: pytest.approx(0.4)}


@pytest.mark.parametrize(
    ("grace", "factor", "iterations", "expected"),
    [(2, 3, 18, [2, 6]), (2, 3, 19, [2, 6, 18]), (5, 2, 5, []), (5, 2, 6, [5]), (7, 3, 3, []), (1, 2, 8, [1, 2, 4])],
)
def test_no_rung_lies_at_or_beyond_the_last_iteration(
    grace: int, factor: int, iterations: int, expected: list[int]
) -> None:
    assert list(rungs(stopper(grace, factor), iterations, [])) == expected


def test_no_stopper_no_rungs() -> None:
    assert rungs(None, 100, history(3)) == {}


@given(
    values=st.lists(st.integers(0, 100).map(lambda count: count / 100), min_size=1, max_size=20),
    factor=st.integers(2, 5),
)
@settings(max_examples=60, deadline=None)
def test_about_one_in_factor_of_the_earlier_trials_would_pass(values: list[float], factor: int) -> None:
    shown = [Shown({}, None, {3: value}) for value in values]
    floor = rungs(stopper(3, factor), 4, shown)[3]
    passing = sum(value >= floor for value in values)
    assert passing >= 1
    assert min(values) <= floor <= max(values)
    distinct = len(set(values)) == len(values)
    assert not distinct or passing <= (len(values) - 1) / factor + 1
