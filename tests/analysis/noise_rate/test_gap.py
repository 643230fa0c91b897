"""The PAC-Bayes gap by hand, and its vacuity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.noise_rate import corollary, pac_bayes_gap


def test_a_gap_by_hand() -> None:
    """Training went a distance of 5; sigma 0.5 is the largest whose Gibbs error is within 5 points."""
    start, end = np.zeros(4), np.array([3.0, 4.0, 0.0, 0.0])
    found = pac_bayes_gap(start, end, (0.1, 0.5, 1.0), (0.2, 0.24, 0.6), 0.2, 1000, choices=20)
    kl = 25 / (2 * 0.25)
    assert (found.sigma, found.kl, found.gibbs) == (0.5, pytest.approx(kl), 0.24)
    assert found.eps == pytest.approx(math.sqrt((kl + math.log(2 * math.sqrt(1000) / (0.05 / 3))) / 2000))
    assert found.eps_held == pytest.approx(math.sqrt(math.log(2 * math.sqrt(1000) / (0.05 / 20)) / 2000))
    assert "widens an interval by 17 points" in found.sentence
    assert "sigma 0.5 (of 3 tried)" in found.sentence


def test_where_no_sigma_is_comparable_the_smallest_is_taken() -> None:
    found = pac_bayes_gap(np.zeros(2), np.ones(2), (0.1, 0.01), (0.9, 0.8), 0.1, 100)
    assert found.sigma == 0.01


def test_a_gap_of_one_leaves_nothing_of_the_derived_interval() -> None:
    found = pac_bayes_gap(np.zeros(2), np.full(2, 30.0), (0.1,), (0.1,), 0.1, 300)
    assert found.eps > 1
    assert "vacuous" in found.sentence
    published, derived = corollary(1000, 10, 10, 5, found.eps)
    assert derived.vacuous
    assert (published.low, published.high) == (0.5, 1.0)
