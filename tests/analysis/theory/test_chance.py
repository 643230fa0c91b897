from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.theory.chance import first_above_chance, holm
from ddnl_ray.errors import RequestError


def test_holm_at_hand_worked_points() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5 become 0.04, 0.06, 0.06, 0.5
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # 0.4 * 2 = 0.8, then max(0.8, 0.45)
    assert holm([0.45, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_lies_between_the_plain_value_and_bonferronis(p_values: list[float]) -> None:
    plain, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= plain).all()
    assert (adjusted <= np.minimum(1, len(plain) * plain) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(plain, kind="stable")]) >= 0).all()


def test_holm_keeps_the_level_over_all_tests() -> None:
    draws = np.random.default_rng(0).uniform(size=(4000, 5))
    rejections = np.mean([holm(row).min() <= 0.05 for row in draws])
    assert rejections == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("p_values", [[0.1, 1.2], [-0.1], [np.nan]])
def test_holm_of_what_are_no_p_values_is_refused(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="p-values in"):
        holm(p_values)


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
