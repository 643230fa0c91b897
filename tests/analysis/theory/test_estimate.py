from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.theory.estimate import Estimate, Resampling, basic_interval, resampled_counts, resampled_means
from ddnl_ray.errors import RequestError


def test_an_estimate_keeps_a_copy_of_its_inputs() -> None:
    inputs: dict[str, float | int | str] = {"ipc": 3}
    estimate = Estimate(0.5, 0.4, 0.6, "nats", 10, inputs)
    inputs["ipc"] = 4
    assert estimate.inputs == {"ipc": 3}


@pytest.mark.parametrize("ends", [(0.6, 0.7), (0.1, 0.4), (math.nan, 0.7), (-math.inf, 0.7), (0.1, math.inf)])
def test_an_estimate_outside_a_finite_interval_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"lies in its finite interval but got 0\.5"):
        Estimate(0.5, *ends, "nats", 10, {})


@pytest.mark.parametrize(("draws", "confidence"), [(19, 0.95), (100, 0.0), (100, 95)])
def test_resampling_out_of_range_is_named(draws: int, confidence: float) -> None:
    with pytest.raises(RequestError, match=str(draws if draws < 20 else confidence)):
        Resampling(draws=draws, confidence=confidence)


def test_the_basic_interval_reflects_the_quantiles_about_the_value() -> None:
    draws = np.linspace(0.0, 1.0, 101)
    assert basic_interval(0.4, draws, 0.8) == pytest.approx((2 * 0.4 - 0.9, 2 * 0.4 - 0.1))
    # a bias correction of 0.1: the resamples aim at 0.5
    assert basic_interval(0.4, draws, 0.8, centre=0.5) == pytest.approx((0.4 - (0.9 - 0.5), 0.4 - (0.1 - 0.5)))


def test_the_basic_interval_is_clipped_and_holds_the_value() -> None:
    draws = np.linspace(0.0, 1.0, 101)
    assert basic_interval(0.4, draws, 0.8, domain=(0.0, 0.6)) == pytest.approx((0.0, 0.6))
    assert basic_interval(0.0, draws + 1, 0.8, domain=(0.0, 1.0)) == (0.0, 0.0)


def test_resamples_draw_n_of_n_with_replacement() -> None:
    rng = np.random.default_rng(0)
    counts = np.stack([resampled_counts(10, rng) for _ in range(2000)])
    assert (counts.sum(axis=1) == 10).all()
    # binomial(10, 1/10): mean 1, variance 0.9
    assert counts.mean(axis=0) == pytest.approx(np.ones(10), abs=0.1)
    assert counts.var() == pytest.approx(0.9, abs=0.03)


def test_resampled_means_spread_like_the_mean() -> None:
    rng = np.random.default_rng(1)
    terms = rng.normal(size=(50, 2)) * [1.0, 3.0] + [0.0, 5.0]
    means = resampled_means(terms, rng, 4000)
    assert means.mean(axis=0) == pytest.approx(terms.mean(axis=0), abs=0.03)
    assert means.std(axis=0) == pytest.approx(terms.std(axis=0) / math.sqrt(50), rel=0.05)
