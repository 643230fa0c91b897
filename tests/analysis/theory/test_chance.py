from __future__ import annotations

import pytest
from scipy import stats

from analysis.statistics import holm
from analysis.theory.chance import first_above_chance
from ddnl_ray.errors import RequestError


def test_the_first_number_above_chance_is_found() -> None:
    accuracies = {10: [0.5, 0.52, 0.51], 1: [0.1, 0.12, 0.09], 5: [0.3, 0.33, 0.29]}
    found = first_above_chance(accuracies, 0.1)
    oracle = [stats.ttest_1samp(accuracies[ipc], 0.1, alternative="greater").pvalue for ipc in (1, 5, 10)]
    assert (found.ipc, found.is_censored) == (5, False)
    assert found.p_value == pytest.approx(holm(oracle)[1])


def test_a_threshold_at_the_smallest_number_is_censored() -> None:
    assert first_above_chance({1: [0.5, 0.5], 2: [0.6, 0.6]}, 0.1).is_censored


def test_equal_accuracies_are_above_chance_or_not() -> None:
    assert first_above_chance({1: [0.1, 0.1, 0.1], 2: [0.3, 0.3, 0.3]}, 0.1).ipc == 2


def test_correction_for_many_tests_can_move_the_threshold() -> None:
    borderline = [0.1, 0.13, 0.14]
    assert stats.ttest_1samp(borderline, 0.1, alternative="greater").pvalue < 0.1
    alone = first_above_chance({2: borderline}, 0.1, level=0.1)
    among = first_above_chance({2: borderline, 1: [0.09, 0.1, 0.1], 4: [0.5, 0.5, 0.5]}, 0.1, level=0.1)
    assert (alone.ipc, among.ipc) == (2, 4)


def test_refusals_name_the_accuracies_and_the_next_step() -> None:
    with pytest.raises(ValueError, match=r"of \[1, 2\] beats chance \(0.1\).*run more images per class"):
        first_above_chance({1: [0.1, 0.11], 2: [0.12, 0.08]}, 0.1)
    with pytest.raises(ValueError, match="2 accuracies but 3 images per class has shape"):
        first_above_chance({3: [0.5]}, 0.1)
    with pytest.raises(ValueError, match="pass fractions"):
        first_above_chance({3: [50.0, 51.0]}, 0.1)
    with pytest.raises(ValueError, match="got none"):
        first_above_chance({}, 0.1)
    with pytest.raises(RequestError, match="chance must lie between 0 and 1 but got 10"):
        first_above_chance({1: [0.5, 0.6]}, 10)
    with pytest.raises(RequestError, match="level must lie"):
        first_above_chance({1: [0.5, 0.6]}, 0.1, level=5)
