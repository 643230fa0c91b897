from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics import Sample, interval, nested, paired
from ddnl_ray.errors import RequestError

FLOATS = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def test_interval_is_students_t_at_hand_worked_points() -> None:
    # mean 2, s = 1, t(0.975, 2) = 4.302652729911275, half width t / sqrt(3)
    three = interval([1.0, 2.0, 3.0])
    assert (three.n, three.mean, three.within) == (3, 2.0, False)
    assert three.half == pytest.approx(2.4841377118, abs=1e-9)
    assert (three.low + three.high) / 2 == pytest.approx(2.0)
    # two values 0 and 1: s / sqrt(2) = 1/2, t(0.975, 1) = tan(0.475 pi)
    assert interval([0.0, 1.0]).half == pytest.approx(math.tan(0.475 * math.pi) / 2)
    # at 50 % confidence and one degree of freedom t = tan(pi / 4) = 1
    assert interval([0.0, 1.0], confidence=0.5).half == pytest.approx(0.5)


def test_interval_of_equal_values_has_no_width() -> None:
    equal = interval([0.25, 0.25, 0.25])
    assert (equal.low, equal.high) == (0.25, 0.25)


def test_interval_of_one_value_and_of_none() -> None:
    one, none = interval([0.7]), interval([])
    assert (one.n, one.mean) == (1, 0.7)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert none.n == 0
    assert math.isnan(none.mean)
    assert not one.is_bounded
    assert not none.is_bounded


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95])
def test_confidence_outside_its_range_is_named(confidence: float) -> None:
    with pytest.raises(RequestError, match=f"confidence must lie between 0 and 1 but got {confidence}"):
        interval([0.1, 0.2], confidence)
    with pytest.raises(RequestError, match="confidence must lie between 0 and 1"):
        paired({(0, 0): [0.1]}, {(0, 0): [0.2]}, confidence)


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finite values but got \[0\.1, nan\]"):
        interval([0.1, math.nan])


@given(FLOATS, st.floats(-3, 3), st.floats(0.1, 5))
def test_interval_moves_with_shift_and_scale(values: list[float], shift: float, scale: float) -> None:
    plain, moved = interval(values), interval([shift + scale * value for value in values])
    assert moved.mean == pytest.approx(shift + scale * plain.mean, abs=1e-9)
    assert moved.half == pytest.approx(scale * plain.half, abs=1e-7)


def test_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(11)
    samples = rng.normal(0.5, 0.1, (1500, 4))
    covered = np.mean([found.low <= 0.5 <= found.high for found in map(interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_nested_counts_replicates_and_not_repeats() -> None:
    sample: Sample = {(0, 0): [0.1, 0.3], (1, 0): [0.4], (2, 0): [0.5, 0.6, 0.7]}
    assert nested(sample) == interval([0.2, 0.4, 0.6])


def test_nested_of_one_replicate_says_that_it_covers_retraining_only() -> None:
    repeats = [0.5, 0.6, 0.7]
    found, plain = nested({(0, 0): repeats}), interval(repeats)
    assert found.within
    assert (found.n, found.mean, found.low, found.high) == (3, plain.mean, plain.low, plain.high)
    assert not nested({(0, 0): [0.5]}).within


def test_paired_matches_replicates_and_ignores_the_rest() -> None:
    a: Sample = {(0, 0): [0.5, 0.7], (1, 0): [0.8], (1, 1): [0.4], (0, 1): [0.1]}
    b: Sample = {(1, 1): [0.1], (1, 0): [0.6], (0, 0): [0.5], (7, 7): [0.9]}
    assert paired(a, b) == interval([0.6 - 0.5, 0.8 - 0.6, 0.4 - 0.1])


def test_pairing_removes_what_replicates_share() -> None:
    draws = [0.1, 0.5, 0.9]
    a: Sample = {(i, 0): [draw + 0.05 + 0.001 * i] for i, draw in enumerate(draws)}
    b: Sample = {(i, 0): [draw] for i, draw in enumerate(draws)}
    found = paired(a, b)
    assert found.mean == pytest.approx(0.051)
    assert found.half < 0.01


def test_paired_falls_back_to_noise_draws_where_one_side_ran_once_per_draw() -> None:
    a: Sample = {(0, 0): [0.5], (0, 1): [0.7], (1, 0): [0.4], (1, 1): [0.4]}
    b: Sample = {(0, 5): [0.5], (1, 5): [0.1]}
    assert paired(a, b) == interval([0.6 - 0.5, 0.4 - 0.1])


def test_paired_without_a_match_has_n_zero() -> None:
    found = paired({(0, 0): [0.5]}, {(1, 0): [0.5]})
    assert found.n == 0
    assert math.isnan(found.mean)


def test_paired_single_replicates_give_welchs_interval() -> None:
    a, b = [0.51, 0.55, 0.50, 0.58], [0.40, 0.47, 0.41]
    found = paired({(0, 0): a}, {(0, 0): b})
    oracle = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert (found.n, found.within) == (3, True)


def test_paired_single_replicates_without_repeats_have_no_interval() -> None:
    found = paired({(0, 0): [0.6]}, {(0, 0): [0.5, 0.4]})
    assert (found.n, found.is_bounded, found.within) == (1, False, False)
    assert found.mean == pytest.approx(0.15)


def test_paired_single_replicates_without_spread_have_an_interval_of_no_width() -> None:
    found = paired({(0, 0): [0.5, 0.5]}, {(0, 0): [0.25, 0.25]})
    assert (found.low, found.high) == (0.25, 0.25)


def test_one_matched_draw_of_several_seeds_has_no_interval() -> None:
    found = paired({(0, 0): [0.6], (0, 1): [0.8]}, {(0, 0): [0.5]})
    assert (found.n, found.is_bounded) == (1, False)
    assert found.mean == pytest.approx(0.2)


@given(FLOATS, FLOATS)
def test_paired_is_antisymmetric(left: list[float], right: list[float]) -> None:
    a: Sample = {(i, 0): [value] for i, value in enumerate(left)}
    b: Sample = {(i, 0): [value] for i, value in enumerate(right)}
    forth, back = paired(a, b), paired(b, a)
    assert forth.mean == pytest.approx(-back.mean, abs=1e-12)
    assert forth.low == pytest.approx(-back.high, abs=1e-9)
