from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.tuning import choosing

MakeCells = Callable[..., Any]


def test_the_gain_is_the_best_tested_minus_the_tested_of_the_chosen(make_cells: MakeCells) -> None:
    one = [({"a": 1}, 0.5, 0.60), ({"a": 2}, 0.4, 0.70), ({"a": 3}, None, None)]
    two = [({"a": 1}, 0.5, 0.80), ({"a": 2}, 0.4, 0.70), ({"a": 3}, 0.3, 0.1)]
    found = choosing(make_cells([one, two]), "val_noisy")
    assert found is not None
    assert (found.num_cells, found.trials, found.gain.n, found.chosen_on) == (2, (2, 3), 2, "val_noisy")
    assert found.gain.mean == pytest.approx(0.05)
    assert "had the best of the 2 to 3 trials of each cell been picked on test and not on val_noisy" in found.sentence
    assert "5.0 points higher (95 % interval 0.0 to 68.5, n = 2 replicates, 2 cells)" in found.sentence


def test_one_replicate_has_no_interval(make_cells: MakeCells) -> None:
    found = choosing(make_cells([[({"a": 1}, 0.5, 0.60), ({"a": 2}, 0.4, 0.70)]]), "val_noisy")
    assert found is not None
    assert "10.0 points higher (1 cell of one replicate, no interval)" in found.sentence


def test_a_run_that_chose_on_the_test_set_is_measured_against_held_out_data(make_cells: MakeCells) -> None:
    found = choosing(make_cells([[({"a": 1}, 0.5, 0.60), ({"a": 2}, 0.4, 0.70)]]), "test")
    assert found is not None
    assert (found.chosen_on, found.gain.mean) == ("val_noisy", pytest.approx(0.1))


def test_cells_without_two_trials_on_both_splits_say_nothing(make_cells: MakeCells) -> None:
    single = [[({"a": 1}, 0.5, 0.6)], [({"a": 1}, 0.5, 0.6), ({"a": 2}, 0.5, None)]]
    assert choosing(make_cells(single), "val_noisy") is None
    assert choosing([], "val_noisy") is None
