from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.fits.crossover import Censored, Crossover
from analysis.fits.rates import leave_one_rate_out
from ddnl_ray.errors import RequestError


def at(value: float, censored: Censored = "none") -> Crossover:
    return Crossover(value, math.nan, math.nan, censored, 3)


def test_leave_one_out_by_hand() -> None:
    # n = 1000 and C = 10, so alpha = 100 (1 - tau) / IPC*: 10, 20 and 5.
    found = leave_one_rate_out([0.0, 0.2, 0.5], [at(10), at(4), at(10)], 1000, 10)
    # Geometric means of the others: 10, sqrt(50) and sqrt(200).
    alphas = [math.sqrt(20 * 5), math.sqrt(10 * 5), math.sqrt(10 * 20)]
    expected = [max(0.0, 1 - alpha * ipc / 100) for alpha, ipc in zip(alphas, (10, 4, 10), strict=True)]
    assert [it.estimate for it in found.estimates] == pytest.approx(expected)
    errors = [abs(value - rate) for value, rate in zip(expected, (0.0, 0.2, 0.5), strict=True)]
    assert [it.error for it in found.estimates] == pytest.approx(errors)
    assert found.mean_error == pytest.approx(np.mean(errors))
    assert found.guess_error == pytest.approx(np.mean([0.35, 0.05, 0.4]))
    assert found.alpha.value == pytest.approx(10)
    assert (found.num_errors, found.reason) == (3, "")
    # One more value after two with standard deviation s: t(0.975, 1) s sqrt(1 + 1 / 2).
    spread = np.std(np.log([20, 5]), ddof=1) * stats.t.ppf(0.975, 1) * math.sqrt(1.5)
    assert found.estimates[0].high == pytest.approx(1 - math.exp(-spread))
    assert found.estimates[0].low == 0


def test_a_constant_alpha_gives_every_rate_exactly() -> None:
    rates = [0.0, 0.2, 0.4, 0.8]
    found = leave_one_rate_out(rates, [at(20 * (1 - rate)) for rate in rates], 5000, 10)
    assert [it.estimate for it in found.estimates] == pytest.approx(rates)
    assert found.mean_error == pytest.approx(0, abs=1e-12)
    assert found.alpha.value == pytest.approx(25)
    assert not found.estimates[2].is_vacuous


def test_samples_and_classes_cancel_in_the_estimates() -> None:
    args = ([0.0, 0.2, 0.5], [at(10), at(4), at(10)])
    left, right = leave_one_rate_out(*args, 1000, 10), leave_one_rate_out(*args, 50_000, 100)
    assert [it.estimate for it in left.estimates] == pytest.approx([it.estimate for it in right.estimates])
    assert right.alpha.value == pytest.approx(5 * left.alpha.value)


def test_all_crossovers_of_a_rate_are_left_out_together() -> None:
    found = leave_one_rate_out([0.2, 0.2, 0.5], [at(8), at(4), at(10)], 1000, 10)
    # Both estimates of 20 % use alpha = 5 from the rate of 50 %.
    assert [it.estimate for it in found.estimates[:2]] == pytest.approx([0.6, 0.8])


def test_the_prediction_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(8)
    rates = [0.1, 0.3, 0.5, 0.7]
    inside = []
    for _ in range(150):
        noise = rng.normal(0, 0.15, len(rates))
        points = [at(20 * (1 - rate) * math.exp(e)) for rate, e in zip(rates, noise, strict=True)]
        found = leave_one_rate_out(rates, points, 5000, 10)
        inside += [it.low <= it.rate <= it.high for it in found.estimates]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_censored_crossovers_bound_their_rate_and_calibrate_nothing() -> None:
    points = [at(8), at(6), at(1, "left"), at(50, "right")]
    found = leave_one_rate_out([0.2, 0.4, 0.8, 0.1], points, 1000, 10)
    left, right = found.estimates[2:]
    assert (left.low, left.high) == pytest.approx((0.9, 1.0))
    assert (right.low, right.high, right.censored) == (0.0, 0.0, "right")
    assert math.isnan(left.estimate)
    assert found.num_errors == 2
    assert found.reason == (
        "2 of 4 crossovers are censored: they bound their rate and calibrate nothing. "
        "Two rates only: no prediction interval."
    )


def test_one_rate_or_none_is_a_sentence() -> None:
    one = leave_one_rate_out([0.2, 0.2], [at(8), at(9)], 1000, 10)
    assert math.isnan(one.mean_error)
    assert math.isnan(one.guess_error)
    assert one.reason == "Leaving a rate out needs measured crossovers at two rates or more, but there are 1."
    missing = leave_one_rate_out([0.2], [at(math.nan)], 1000, 10)
    assert missing.reason.startswith("1 of 1 have no crossover. Leaving a rate out")
    assert leave_one_rate_out([], [], 1000, 10).reason.endswith("there are 0.")


def test_requests_out_of_range_are_named() -> None:
    with pytest.raises(RequestError, match=r"noise rates must lie in \[0, 1\) but got \[1\.0\]"):
        leave_one_rate_out([1.0], [at(1)], 10, 2)
    with pytest.raises(RequestError, match="2 rates do not match 1 crossovers"):
        leave_one_rate_out([0.1, 0.2], [at(1)], 10, 2)
    with pytest.raises(RequestError, match="at least 1 sample and 2 classes, but got 10 and 1"):
        leave_one_rate_out([0.1], [at(1)], 10, 1)
