"""The mixture on losses against its closed form, and thresholds worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.lnl import mixture
from ddnl_ray.lnl.mixture import (
    Mixture,
    class_thresholds,
    clean_posterior,
    fit_mixture,
    scale_losses,
    trusted_mask,
)


def two_groups(spread: float) -> Tensor:
    """600 losses from 0.5 upwards and, after them, 400 around 3."""
    generator = torch.Generator().manual_seed(0)
    low = 0.5 + spread * torch.randn(600, generator=generator).abs()
    high = 3 + spread * torch.randn(400, generator=generator)
    return torch.cat([low, high])


def bayes(shares: tuple[float, float], means: tuple[float, float], variances: tuple[float, float], x: float) -> float:
    """The posterior of the first component, from the two densities."""
    parts = [
        share * math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        for share, mean, variance in zip(shares, means, variances, strict=True)
    ]
    return parts[0] / sum(parts)


def test_between_the_means_the_posterior_is_that_of_the_fitted_densities() -> None:
    losses = two_groups(spread=0.9)
    scaled = scale_losses(losses)
    fitted = fit_mixture(scaled)
    found = clean_posterior(losses)
    between = (scaled > fitted.means[0]) & (scaled < fitted.means[1])
    assert between.sum() > 300
    expected = [bayes(fitted.shares, fitted.means, fitted.variances, x) for x in scaled[between].tolist()]
    torch.testing.assert_close(found[between], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert 0.2 < float(found[between].mean()) < 0.8


def test_groups_far_apart_are_found() -> None:
    losses = two_groups(spread=0.1)
    scaled = scale_losses(losses)
    fitted = fit_mixture(scaled)
    np.testing.assert_allclose(fitted.shares, [0.6, 0.4], atol=1e-3)
    np.testing.assert_allclose(fitted.means, [float(scaled[:600].mean()), float(scaled[600:].mean())], atol=1e-3)
    variances = [float(scaled[:600].var(correction=0)), float(scaled[600:].var(correction=0))]
    np.testing.assert_allclose(fitted.variances, np.array(variances) + mixture.ADDED_VARIANCE, rtol=0.05)
    posterior = clean_posterior(losses)
    assert posterior[:600].min() > 0.99
    assert posterior[600:].max() < 0.01


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 50), min_size=2, max_size=60))
def test_confidence_never_rises_with_the_loss(values: list[float]) -> None:
    losses = torch.tensor(values, dtype=torch.float64)
    posterior = clean_posterior(losses)[losses.argsort()]
    assert (posterior >= 0).all()
    assert (posterior <= 1).all()
    assert (posterior.diff() <= 1e-12).all()


def test_a_broad_first_component_does_not_claim_the_largest_losses() -> None:
    fitted = Mixture((0.6, 0.4), (0.2, 0.6), (0.04, 0.0025))
    raw = [bayes(fitted.shares, fitted.means, fitted.variances, x) for x in (0.6, 1.0)]
    assert raw[1] > 0.9 > raw[0]
    # The two exponents' slopes agree where (x - 0.2) / 0.04 = (x - 0.6) / 0.0025.
    turn = (0.6 / 0.0025 - 0.2 / 0.04) / (1 / 0.0025 - 1 / 0.04)
    lowest = bayes(fitted.shares, fitted.means, fitted.variances, turn)
    found = fitted.posterior(torch.tensor([0.6, turn, 0.8, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([raw[0], lowest, lowest, lowest], dtype=torch.float64))


def test_below_the_smaller_mean_confidence_is_whole() -> None:
    fitted = Mixture((0.5, 0.5), (0.3, 0.7), (0.0005, 0.2))
    assert bayes(fitted.shares, fitted.means, fitted.variances, 0.1) < 0.01
    assert fitted.posterior(torch.tensor([0.0, 0.1, 0.29], dtype=torch.float64)).tolist() == [1, 1, 1]


def test_confidence_does_not_depend_on_the_unit_of_the_losses() -> None:
    losses = two_groups(spread=0.9).double()
    torch.testing.assert_close(clean_posterior(7 * losses + 3), clean_posterior(losses), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("losses", [torch.full((5,), 1.3), torch.zeros(1)])
def test_equal_losses_are_all_trusted(losses: Tensor) -> None:
    assert clean_posterior(losses).tolist() == [1] * len(losses)


@pytest.mark.parametrize(("gap", "expected"), [(0.9e-3, 1.0), (1.1e-3, 0.5)])
def test_means_that_nearly_agree_are_one_component(
    monkeypatch: pytest.MonkeyPatch, gap: float, expected: float
) -> None:
    monkeypatch.setattr(mixture, "fit_mixture", lambda _: Mixture((0.5, 0.5), (0.5, 0.5 + gap), (0.01, 0.01)))
    assert float(clean_posterior(torch.tensor([0.0, 1.0]))[1]) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(RequestError, match=r"loss is not finite.*lower experts\.lr"):
        clean_posterior(torch.tensor([0.1, bad, 0.3]))


def test_the_same_losses_give_the_same_bits(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    found = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            found.append(clean_posterior(two_groups(spread=0.9)))
    assert torch.equal(*found)


POSTERIOR = torch.tensor([0.9, 0.5, 0.1, 1.0, 0.2], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 2, 2])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("class_mean", [0.5, 0.54, 0.6]), ("global_mean", [0.54, 0.54, 0.54]), ("fixed", [0.5, 0.5, 0.5])],
)
def test_thresholds_by_hand(rule: str, expected: list[float]) -> None:
    found = class_thresholds(POSTERIOR, LABELS, 3, rule)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(RequestError, match=r"unknown threshold rule 'class_median'.*class_mean"):
        class_thresholds(POSTERIOR, LABELS, 3, "class_median")


def test_a_sample_at_its_threshold_is_trusted() -> None:
    thresholds = class_thresholds(POSTERIOR, LABELS, 3)
    assert trusted_mask(POSTERIOR, thresholds, 1 - POSTERIOR, LABELS, 0).tolist() == [True, True, False, True, False]


def test_equal_confidences_are_all_trusted_whatever_the_rounding_of_their_mean() -> None:
    """The sum of three times 0.1 is rounded up."""
    posterior = torch.full((3,), 0.1, dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.int64)
    thresholds = class_thresholds(posterior, labels, 1)
    assert thresholds[0] > 0.1
    assert trusted_mask(posterior, thresholds, posterior, labels, 0).all()


def test_every_class_keeps_its_smallest_losses() -> None:
    """Confidences of 0 say nothing; the losses still order the samples."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    posterior = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    losses = torch.tensor([1, 2, 3, 4, 5, 6, 9, 7, 8, 5, 8, 6, 7]).double()
    thresholds = torch.full((3,), 0.5, dtype=torch.float64)

    def rows(minimum: int) -> list[int]:
        mask: Tensor = trusted_mask(posterior, thresholds, losses, labels, minimum)
        return mask.nonzero().flatten().tolist()

    assert rows(0) == [0, 1, 2, 3]
    assert rows(1) == [0, 1, 2, 3, 7, 9]
    assert rows(3) == [0, 1, 2, 3, 6, 7, 8, 9, 11, 12]
    assert rows(5) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
