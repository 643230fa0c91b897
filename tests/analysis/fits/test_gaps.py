from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.fits.gaps import accuracy_gaps, gap_correlations, rank_correlation

CurveFrame = Callable[..., pd.DataFrame]


def test_a_perfect_order_of_five_has_two_chances_in_120() -> None:
    found = rank_correlation([1, 2, 3, 4, 5], [0.1, 0.2, 0.5, 0.6, 0.9])
    assert (found.rho, found.n) == (pytest.approx(1), 5)
    assert found.p_value == pytest.approx(2 / 120)
    assert rank_correlation([1, 2, 3], [3, 2, 1]).rho == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    found = rank_correlation(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found.rho is None
    else:
        assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
        assert found.p_value is not None
        assert 0 <= found.p_value <= 1


def test_an_undefined_correlation_is_a_sentence() -> None:
    few, flat = rank_correlation([1, 2], [1, 2]), rank_correlation([1, 1, 1], [1, 2, 3])
    assert (few.rho, few.p_value, few.n) == (None, None, 2)
    assert few.reason == "A rank correlation needs at least three pairs, but there are 2."
    assert flat.reason == "One side is constant, so there is no order to compare."


def test_gaps_are_paired_and_correlated_by_ipc(curve_frame: CurveFrame) -> None:
    curves = {rate: {1: 0.3, 10: 0.6 - rate / 10} for rate in (0.2, 0.4, 0.6)}
    full = {0.2: 0.8, 0.4: 0.6, 0.6: 0.4}
    gaps = accuracy_gaps(curve_frame(curves, full, shifts=(0.0, 0.1)))
    means = {(gap.rate, gap.setting.ipc): gap.gap.mean for gap in gaps}
    assert means[0.2, 1] == pytest.approx(-0.5)
    assert means[0.6, 10] == pytest.approx(0.14)
    found = gap_correlations(gaps)
    assert [(item.setting.ipc, item.setting.noise_rate) for item in found] == [(1, None), (10, None)]
    assert [item.correlation.rho for item in found] == pytest.approx([1, 1])
    (against, _) = gap_correlations(gaps, lambda gap: -(gap.rate or 0))
    assert against.correlation.rho == pytest.approx(-1)
    (fewer, _) = gap_correlations(gaps, lambda gap: gap.rate if gap.rate != 0.4 else None)
    assert (fewer.correlation.rho, fewer.correlation.n) == (None, 2)


def test_sweeps_without_a_baseline_are_a_sentence(sweep: pd.DataFrame) -> None:
    gaps = accuracy_gaps(sweep[sweep["base_method"] != "full"])
    assert gaps.reason == "No series has a full-data baseline with the same data, noise and evaluation network."
    assert gap_correlations(gaps).reason == "There is no accuracy gap to correlate."
    assert accuracy_gaps(sweep.iloc[:0]).reason.startswith("The result table is empty")
    (*_, one_rate) = gap_correlations(accuracy_gaps(sweep[sweep["noise_rate"] == 0.3]))
    assert one_rate.correlation.reason.startswith("A rank correlation needs at least three pairs")
