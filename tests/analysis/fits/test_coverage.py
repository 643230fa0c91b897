from __future__ import annotations

import math

import pytest
from scipy import stats

from analysis.fits.coverage import coverage
from analysis.fits.crossover import Censored, Crossover
from ddnl_ray.errors import RequestError


def at(value: float, censored: Censored = "none") -> Crossover:
    return Crossover(value, math.nan, math.nan, censored, 3)


def test_measured_points_are_counted_by_place() -> None:
    points = [at(5), at(1), at(50), at(2), at(10)]
    found = coverage(points, [2, 2, 2, 2, 0], [10, 10, 10, 10, math.inf])
    assert (found.num_inside, found.num_below, found.num_above) == (3, 1, 1)
    assert found.share.value == pytest.approx(0.6)
    # Clopper-Pearson ends are quantiles of beta distributions.
    assert found.share.low == pytest.approx(stats.beta.ppf(0.025, 3, 3))
    assert found.share.high == pytest.approx(stats.beta.ppf(0.975, 4, 2))
    assert found.reason == ""


def test_censored_points_are_outside_only_where_that_is_certain() -> None:
    points = [at(1, "left"), at(1, "left"), at(50, "right"), at(50, "right")]
    found = coverage(points, [2, 0.5, 2, 2], [10, 10, 40, 80])
    assert (found.num_censored_outside, found.num_censored_undecided) == (2, 2)
    assert math.isnan(found.share.value)
    assert found.reason == "No crossover is measured, so there is no share."


def test_bounds_that_cross_hold_nothing_and_are_counted() -> None:
    found = coverage([at(5), at(20), at(1, "left")], [10, 10, 10], [6, 6, 6])
    assert (found.num_empty, found.num_inside, found.num_below, found.num_above) == (3, 0, 1, 1)
    assert found.num_censored_outside == 1


def test_unknown_points_and_bounds_are_left_out() -> None:
    found = coverage([at(5), at(math.nan), at(5)], [1, 1, math.nan], [9, 9, 9])
    assert found.num_inside == 1
    assert found.reason == "2 of 3 have no crossover or no bound and are left out."
    assert coverage([], [], []).reason == "No crossover is measured, so there is no share."


def test_lengths_must_match() -> None:
    with pytest.raises(RequestError, match="1 crossovers, 0 lower and 1 upper bounds"):
        coverage([at(1)], [], [2])
