"""The golden set on losses whose kind is known, at its thresholds, and where there is nothing to split."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.robust.golden import Golden, golden_set, pools, split

CLASSES = 4


def two_kinds(num_clean: int = 1200, num_wrong: int = 800) -> tuple[Tensor, Tensor]:
    """Accumulated losses of two log-normals, and which are of the first, in random order."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.arange(num_clean + num_wrong) < num_clean
    spread = torch.randn(len(clean), generator=generator, dtype=torch.float64)
    logs = torch.where(clean, -1 + 0.5 * spread, 2 + 0.4 * spread)
    order = torch.randperm(len(clean), generator=generator)
    return logs[order].exp(), clean[order]


def bayes(model: GaussianMixture, x: float) -> float:
    """The posterior of the component with the smaller mean, from the two densities."""
    parts = [
        share * math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(variance)
        for mean, share, variance in sorted(
            zip(model.means_.ravel(), model.weights_, model.covariances_.ravel(), strict=True)
        )
    ]
    return parts[0] / sum(parts)


def test_two_log_normals_are_told_apart() -> None:
    losses, clean = two_kinds()
    posterior = split(losses)
    assert posterior is not None
    assert posterior.dtype == torch.float64
    assert float(((posterior > 0.5) == clean).double().mean()) > 0.99


@pytest.mark.parametrize("restarts", [1, 5])
def test_the_posterior_is_that_of_the_fitted_densities_of_the_logarithm(restarts: int) -> None:
    losses, _ = two_kinds(300, 200)
    logs = np.log(losses.numpy() + 1e-8)
    model = GaussianMixture(n_components=2, n_init=restarts, random_state=42).fit(logs.reshape(-1, 1))
    expected = torch.tensor([bayes(model, x) for x in logs], dtype=torch.float64)
    found = split(losses, restarts)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_broad_second_component_also_claims_the_smallest_losses() -> None:
    """Unlike the mixture of TAD the posterior is not made monotone."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(2000, generator=generator, dtype=torch.float64)
    logs = torch.cat([0.05 * spread[:1000], 1 + 2 * spread[1000:]])
    posterior = split(logs.exp())
    assert posterior is not None
    assert posterior[logs.argmin()] < 0.1 < 0.9 < posterior[logs.abs().argmin()]


def test_a_refresh_from_the_same_losses_gives_the_same_set(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    losses, _ = two_kinds(300, 200)
    observed = torch.arange(500) % CLASSES
    probabilities = torch.rand(500, CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = observed.clone()
    found = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            posterior = split(losses)
        assert posterior is not None
        found.append(golden_set(posterior, observed, probabilities.mul(9).softmax(1)))
    assert found[0].relabelled.sum() > 20
    assert (found[0].labels != observed).sum() > 10
    assert torch.equal(observed, before)
    for name in ("labels", "member", "relabelled", "weight"):
        assert torch.equal(*(getattr(each, name) for each in found))


def mixture_of(gap: float, share: float, deviations: tuple[float, float] = (1.0, 1.0)) -> Callable[..., object]:
    """Make fits end in a mixture with these means, shares and deviations."""

    class Fitted(GaussianMixture):
        def fit(self, x: object, y: object = None) -> object:
            self.means_ = np.array([[gap], [0.0]])
            self.weights_ = np.array([1 - share, share])
            self.covariances_ = np.square(deviations).reshape(2, 1, 1)
            self.precisions_cholesky_ = 1 / np.sqrt(self.covariances_)
            return self

    return Fitted


def test_the_mixture_starts_as_often_as_asked_for_from_a_fixed_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Noted(GaussianMixture):
        def fit(self, x: object, y: object = None) -> object:
            asked.append((self.n_components, self.n_init, self.random_state, self.max_iter, self.tol, self.reg_covar))
            return super().fit(x, y)

    monkeypatch.setattr("sklearn.mixture.GaussianMixture", Noted)
    for restarts in (1, 3):
        split(two_kinds(30, 20)[0], restarts)
    assert asked == [(2, 1, 42, 100, 1e-3, 1e-6), (2, 3, 42, 100, 1e-3, 1e-6)]


@pytest.mark.parametrize(
    ("gap", "share", "deviations", "splits"),
    [
        (0.49, 0.5, (1.0, 1.0), False),
        (0.51, 0.5, (1.0, 1.0), True),
        # The pooled deviation is sqrt(0.75 * 1 + 0.25 * 9) = sqrt(3), half of which is 0.866.
        (0.86, 0.25, (1.0, 3.0), False),
        (0.87, 0.25, (1.0, 3.0), True),
        (9.0, 0.009, (1.0, 1.0), False),
        (9.0, 0.011, (1.0, 1.0), True),
        (9.0, 0.991, (1.0, 1.0), False),
    ],
)
def test_components_that_agree_or_are_all_but_empty_are_no_split(
    monkeypatch: pytest.MonkeyPatch, gap: float, share: float, deviations: tuple[float, float], splits: bool
) -> None:
    monkeypatch.setattr("sklearn.mixture.GaussianMixture", mixture_of(gap, share, deviations))
    posterior = split(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert (posterior is not None) == splits


@pytest.mark.parametrize("losses", [torch.full((5,), 1.3), torch.zeros(40), torch.ones(1), torch.zeros(0)])
def test_equal_losses_and_too_few_are_no_split(losses: Tensor) -> None:
    assert split(losses.double()) is None


def test_one_outlier_is_no_split() -> None:
    losses, _ = two_kinds(200, 0)
    assert split(torch.cat([losses, losses.new_tensor([1e9])])) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(RequestError, match=r"loss is not finite.*lower the learning rate"):
        split(torch.tensor([0.1, bad, 0.3], dtype=torch.float64))


POSTERIOR = torch.tensor([0.9, 0.5, 0.2, 0.1, 0.500001, 0.3], dtype=torch.float64)
OBSERVED = torch.tensor([0, 0, 1, 1, 2, 2])
PROBABILITIES = torch.tensor(
    [
        [0.00, 0.00, 1.00],  # clean: the confident prediction is not taken
        [0.03, 0.96, 0.01],  # a posterior of one half is not clean
        [0.95, 0.03, 0.02],  # not above the threshold
        [0.01, 0.97, 0.02],  # the observed class, with confidence
        [0.40, 0.30, 0.30],
        [0.50, 0.30, 0.20],
    ],
    dtype=torch.float64,
)


def by_hand() -> Golden:
    return golden_set(POSTERIOR, OBSERVED, PROBABILITIES, 0.95)


def test_the_set_by_hand() -> None:
    golden = by_hand()
    assert golden.member.tolist() == [True, True, False, True, True, False]
    assert golden.relabelled.tolist() == [False, True, False, True, False, False]
    assert golden.labels.tolist() == [0, 1, 1, 1, 2, 2]
    torch.testing.assert_close(golden.weight, torch.tensor([0.9, 1, 0, 1, 0.500001, 0]))
    assert golden.labels.dtype == torch.int64
    assert OBSERVED.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_confidence_just_below_the_threshold_labels_anew() -> None:
    golden = golden_set(POSTERIOR, OBSERVED, PROBABILITIES, 0.9499)
    assert golden.relabelled.tolist() == [False, True, True, True, False, False]
    assert golden.labels.tolist() == [0, 1, 0, 1, 2, 2]


def test_pools_hold_golden_classes_and_fall_back_to_observed_ones() -> None:
    golden = by_hand()
    assert [rows.tolist() for rows in pools(golden, OBSERVED, 4, 0)] == [[0], [1, 3], [4], []]
    assert [rows.tolist() for rows in pools(golden, OBSERVED, 4, 2)] == [[0, 1], [1, 3], [4, 5], []]
    assert [rows.tolist() for rows in pools(golden, OBSERVED, 4, 3)] == [[0, 1], [2, 3], [4, 5], []]
