from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.fits.families import adjusted, p_value
from analysis.statistics import Interval, holm, interval
from ddnl_ray.errors import RequestError


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and then never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx((0.06, 0.04, 0.06, 0.06))
    assert holm([0.9, 0.6]) == pytest.approx((1.0, 1.0))
    assert holm([]) == ()


def test_what_was_not_compared_does_not_count() -> None:
    found = holm([0.02, math.nan, 0.03])
    assert (found[0], found[2]) == pytest.approx((0.04, 0.04))
    assert math.isnan(found[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(values: list[float]) -> None:
    found = holm(values)
    for plain, new in zip(values, found, strict=True):
        assert plain <= new <= min(1.0, len(values) * plain) + 1e-12
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [found[i] for i in order] == sorted(found)


def test_a_p_value_out_of_range_is_named() -> None:
    with pytest.raises(RequestError, match=r"p-values must lie in \[0, 1\] but got \[1\.5\]"):
        holm([1.5])


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_p_values_are_students(confidence: float) -> None:
    values = [0.05, 0.02, -0.01, 0.04]
    found = p_value(interval(values, confidence), confidence)
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_p_values_without_replicates_do_not_exist() -> None:
    assert math.isnan(p_value(interval([0.1])))
    assert math.isnan(p_value(Interval(3, 0.1, 0.05, 0.15, within=True)))
    assert p_value(interval([0.5, 0.5])) == 0
    assert p_value(interval([0.0, 0.0])) == 1
    single, *_ = adjusted([interval([0.05, 0.02, 0.04]), interval([0.1])])
    assert single == pytest.approx(stats.ttest_1samp([0.05, 0.02, 0.04], 0).pvalue)
