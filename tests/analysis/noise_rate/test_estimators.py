from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.noise_rate.estimators import confident, corollary, knn, knn_vote, lossmix, symmetric_rate
from analysis.theory.estimate import Resampling
from ddnl_ray.errors import RequestError

FEW = Resampling(draws=60)
C = 5


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noisy(rate: float, num: int = 4000, is_pairflip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """True classes, and labels of which a share was flipped: to any other class, or to the next."""
    draw = np.random.default_rng(1)
    true = np.arange(num) % C
    shift = np.ones(num, dtype=np.int64) if is_pairflip else draw.integers(1, C, num)
    return true, np.where(draw.random(num) < rate, (true + shift) % C, true)


def predicted(true: np.ndarray, rate: float) -> np.ndarray:
    probabilities = np.full((len(true), C), rate / (C - 1))
    probabilities[np.arange(len(true)), true] = 1 - rate
    return probabilities


def neighbours(true: np.ndarray, k: int) -> np.ndarray:
    """Random other samples of the same true class."""
    draw, num = np.random.default_rng(2), len(true)
    step = C * draw.integers(1, num // C, (num, k))
    return (np.arange(num)[:, None] + step) % num


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_confident_learning_finds_the_realised_rate_exactly(rate: float) -> None:
    true, labels = noisy(rate)
    found = confident(labels, predicted(true, rate), rng(), FEW)
    realised = float((labels != true).mean())
    assert found.rate == pytest.approx(realised, abs=1e-12)
    assert found.low <= realised <= found.high
    width = 2 * 1.96 * np.sqrt(realised * (1 - realised) / len(true))
    assert found.high - found.low == pytest.approx(width, rel=0.5, abs=4 / len(true))


def test_the_mixture_finds_the_share_of_high_losses() -> None:
    true, labels = noisy(0.3)
    draw = np.random.default_rng(3)
    wrong = labels != true
    losses = np.where(wrong, draw.normal(4, 0.4, len(true)), draw.normal(1, 0.3, len(true))).clip(0.01)
    probabilities = np.zeros((len(true), C))
    probabilities[np.arange(len(true)), labels] = np.exp(-losses)
    found = lossmix(labels, probabilities, rng(), FEW)
    assert found.rate == pytest.approx(float(wrong.mean()), abs=0.005)
    assert found.low < wrong.mean() < found.high


def test_equal_losses_are_of_one_kind() -> None:
    true = np.arange(50) % C
    found = lossmix(true, predicted(true, 0.1), rng(), FEW)
    assert (found.rate, found.low) == (0, 0)
    assert found.high == pytest.approx(3.69 / 50, rel=0.05)  # log 40 / n


def test_no_wrong_label_among_few_is_no_certainty() -> None:
    true = np.arange(100) % C
    found = confident(true, predicted(true, 0.1), rng(), FEW)
    assert (found.rate, found.low) == (0, 0)
    assert (1 - found.high) ** 100 == pytest.approx(0.025)


@given(rate=st.floats(0, 0.74), num_classes=st.integers(4, 100))
def test_the_correction_inverts_symmetric_confusion(rate: float, num_classes: int) -> None:
    agreement = (1 - rate) ** 2 + rate**2 / (num_classes - 1)
    assert symmetric_rate(agreement, num_classes) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize(("agreement", "rate"), [(1.0, 0.0), (0.1, 0.9), (0.0, 0.9)])
def test_the_correction_ends_where_labels_say_nothing(agreement: float, rate: float) -> None:
    assert symmetric_rate(agreement, 10) == pytest.approx(rate)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_neighbours_find_symmetric_noise(rate: float) -> None:
    true, labels = noisy(rate)
    realised = float((labels != true).mean())
    near = neighbours(true, 10)
    pairs = knn(labels, near, C, rng(), FEW)
    assert pairs.rate == pytest.approx(realised, abs=0.01)
    assert pairs.low <= realised <= pairs.high
    vote = knn_vote(labels, near, C, rng(), FEW)
    assert realised - 0.01 <= vote.rate <= realised + 0.06


def test_the_correction_is_too_low_for_pairflip_and_the_vote_is_not() -> None:
    true, labels = noisy(0.3, is_pairflip=True)
    near = neighbours(true, 31)
    most = (C - 1) / C
    expected = most * (1 - np.sqrt(1 - (1 - 0.7**2 - 0.3**2) / most))
    assert knn(labels, near, C, rng(), FEW).rate == pytest.approx(expected, abs=0.015)
    assert knn_vote(labels, near, C, rng(), FEW).rate == pytest.approx(0.3, abs=0.025)


def test_a_tie_outvotes_no_label() -> None:
    labels = np.array([0, 0, 1, 1])
    near = np.array([[1, 2], [2, 3], [0, 3], [0, 1]])
    # Votes: 1 and 1; 0 and 2 against label 0; a tie; 2 and 0 against label 1.
    assert knn_vote(labels, near, 2, rng(), FEW).rate == 0.5


def test_the_same_generator_gives_the_same_interval() -> None:
    true, labels = noisy(0.2, 500)
    near = neighbours(true, 3)
    assert knn(labels, near, C, rng(), FEW) == knn(labels, near, C, rng(), FEW)


def test_both_forms_of_the_corollary_by_hand() -> None:
    gap = 0.07
    published, derived = corollary(10_000, 10, alpha=10, ipc=50, gap=gap)
    assert (published.estimator, derived.estimator) == ("pac_bayes_published", "pac_bayes_derived")
    assert (published.rate, published.low, published.high) == pytest.approx((0.5, 0.5, 0.5 + gap))
    assert (derived.rate, derived.low, derived.high) == pytest.approx((0.5, 0, 0.5 + gap))
    assert not published.vacuous


def test_a_derived_interval_of_few_images_is_vacuous() -> None:
    published, derived = corollary(50_000, 10, alpha=1, ipc=10, gap=0.1)
    assert derived.vacuous
    assert not published.vacuous
    assert published.low == pytest.approx(0.998)


@pytest.mark.parametrize(
    ("alpha", "ipc", "message"),
    [
        (100, 50, "hold the clean content of 50000 samples, but there are 1000"),
        (0, 50, "alpha must be finite and > 0 but got 0.0"),
        (1, 0.01, "m must be finite and >= 1"),
        (1, float("nan"), "m must be finite"),
    ],
)
def test_impossible_crossovers_are_refused(alpha: float, ipc: float, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        corollary(1000, 10, alpha, ipc, gap=0.1)


def test_an_interval_of_alpha_widens_both_ends() -> None:
    """m = 500 of 10 000: alpha 10 is a rate of 0.5, its ends 8 and 12 are 0.6 and 0.4."""
    published, derived = corollary(10_000, 10, alpha=10, ipc=50, gap=0.05, alpha_ends=(8, 12))
    assert (published.rate, published.low, published.high) == pytest.approx((0.5, 0.4, 0.65))
    assert (derived.rate, derived.low, derived.high) == pytest.approx((0.5, 0.0, 0.65))
