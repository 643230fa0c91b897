from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.theory import (
    FORMS,
    Form,
    eps_m,
    estimate_rate,
    kl_gaussian,
    rate_interval,
)
from ddnl_ray.errors import RequestError

N = 50_000
RATES = st.floats(0, 0.95)
ALPHAS = st.floats(0.01, 1000)


def test_gap_by_hand() -> None:
    # log(2 * 10 / 0.05) = log 400; KL 4
    assert eps_m(kl=4, m=100, delta=0.05) == pytest.approx(math.sqrt((4 + math.log(400)) / 200), rel=1e-14)
    # a validation set of 5000 takes the place of m in both places
    by_validation = math.sqrt((4 + math.log(2 * math.sqrt(5000) / 0.05)) / 10_000)
    assert eps_m(kl=4, m=100, delta=0.05, n_val=5000) == pytest.approx(by_validation, rel=1e-14)


@given(kl=st.floats(0, 1e6), m=st.floats(1, 1e6), delta=st.floats(1e-9, 0.999), factor=st.floats(1, 100))
def test_gap_falls_with_samples_and_grows_with_divergence_and_confidence(
    kl: float, m: float, delta: float, factor: float
) -> None:
    gap = eps_m(kl=kl, m=m, delta=delta)
    slack = 1 + 1e-12
    assert gap > 0
    assert eps_m(kl=kl, m=m * factor, delta=delta) <= gap * slack
    assert eps_m(kl=kl * factor, m=m, delta=delta) >= gap
    assert eps_m(kl=kl, m=m, delta=delta / factor) >= gap


def test_interval_by_hand() -> None:
    published = rate_interval(n=1000, m=100, alpha=6, eps=0.1)
    assert (published.lower, published.upper) == (pytest.approx(0.4), pytest.approx(0.5))
    assert published.form == "published"
    derived = rate_interval(n=1000, m=100, alpha=6, eps=0.1, form="derived")
    assert (derived.lower, derived.upper) == (0, pytest.approx(0.5))
    assert derived.form == "derived"
    assert not published.vacuous
    assert not derived.vacuous
    np.testing.assert_array_equal(published.contains([0.39, 0.45, 0.51]), [False, True, False])
    np.testing.assert_array_equal(derived.contains([0.0, 0.45, 0.51]), [True, True, False])


def test_an_uncalibrated_alpha_says_nothing() -> None:
    sizes: dict[str, Any] = {"n": N, "m": 100, "alpha": 1, "eps": eps_m(kl=0, m=100, delta=0.05)}
    published, derived = rate_interval(**sizes), rate_interval(**sizes, form="derived")
    assert published.lower == pytest.approx(0.998, rel=1e-12)
    assert published.upper == 1
    assert not published.contains([0.0, 0.2, 0.4, 0.8]).any()
    assert derived.vacuous
    assert (derived.lower, derived.upper) == (0, 1)
    # as tight a gap as one likes leaves the upper end where it was
    tight = rate_interval(n=N, m=100, alpha=1, eps=0, form="derived")
    assert tight.upper == pytest.approx(0.998, rel=1e-12)
    assert not tight.vacuous


def test_vacuous_intervals_are_marked_one_by_one() -> None:
    # alpha m / n is 0.2, 0.2, 1 and 1.5
    alpha, eps = np.array([1.0, 1.0, 5.0, 7.5]), np.array([0.1, 0.2, 1.0, 1.6])
    derived = rate_interval(n=1000, m=200, alpha=alpha, eps=eps, form="derived")
    np.testing.assert_array_equal(derived.vacuous, [False, True, True, True])
    published = rate_interval(n=1000, m=200, alpha=alpha, eps=eps)
    np.testing.assert_array_equal(published.vacuous, [False, False, True, True])


@pytest.mark.parametrize("form", FORMS)
def test_an_interval_below_zero_is_empty_and_holds_no_rate(form: Form) -> None:
    # three times the clean content that there are samples
    found = rate_interval(n=1000, m=100, alpha=[30, 10.5], eps=0.1, form=form)
    np.testing.assert_array_equal(found.empty, [True, False])
    np.testing.assert_array_equal(found.contains(0.0), [False, True])
    np.testing.assert_array_equal(found.lower, [0, 0])
    assert found.upper == pytest.approx([0, 0.05])


@given(alpha=ALPHAS, m=st.floats(1, N), eps=st.floats(0, 3), form=st.sampled_from(FORMS))
def test_intervals_lie_in_the_unit_interval_and_the_derived_holds_the_published(
    alpha: float, m: float, eps: float, form: Form
) -> None:
    found = rate_interval(n=N, m=m, alpha=alpha, eps=eps, form=form)
    assert 0 <= found.lower <= found.upper <= 1
    assert found.lower <= estimate_rate(alpha, N, m) <= max(found.upper, 0)
    assert rate_interval(n=N, m=m, alpha=alpha, eps=eps, form="derived").lower <= found.lower


@given(alpha=ALPHAS, m=st.floats(1, 1000), factor=st.floats(1, 10))
def test_the_estimate_falls_with_alpha_and_the_crossover_and_grows_with_the_data(
    alpha: float, m: float, factor: float
) -> None:
    estimate = estimate_rate(alpha, N, m)
    assert 0 <= estimate < 1
    assert estimate_rate(alpha * factor, N, m) <= estimate
    assert estimate_rate(alpha, N, m * factor) <= estimate
    assert estimate_rate(alpha, math.ceil(N * factor), m) >= estimate


def test_arrays_give_what_a_loop_over_numbers_gives() -> None:
    ns, ms, alphas, gaps = [1000, N], [10.0, 99.5, 900.0], [0.5, 1.0, 40.0], [0.0, 0.3]
    points = list(itertools.product(ns, ms, alphas, gaps))
    n, m, alpha, eps = np.ix_(ns, ms, alphas, gaps)
    shape = (2, 3, 3, 2)
    for form in FORMS:
        found = rate_interval(n=n, m=m, alpha=alpha, eps=eps, form=form)
        loop = [rate_interval(n=p[0], m=p[1], alpha=p[2], eps=p[3], form=form) for p in points]
        for name in ("lower", "upper", "empty", "vacuous"):
            expected = np.reshape([getattr(one, name) for one in loop], shape)
            np.testing.assert_array_equal(getattr(found, name), expected)
    estimates = [estimate_rate(a, p, q) for p, q, a in itertools.product(ns, ms, alphas)]
    np.testing.assert_array_equal(estimate_rate(alpha, n, m)[..., 0], np.reshape(estimates, shape[:3]))
    kls, deltas = [0.0, 3.0], [0.01, 0.1, 0.5]
    kl, size, delta = np.ix_(kls, ms, deltas)
    gaps_loop = [eps_m(kl=a, m=b, delta=c) for a, b, c in itertools.product(kls, ms, deltas)]
    np.testing.assert_array_equal(eps_m(kl=kl, m=size, delta=delta), np.reshape(gaps_loop, (2, 3, 3)))


def test_divergence_of_gaussians_is_that_of_torch() -> None:
    rng = np.random.default_rng(3)
    mean_q, mean_p = rng.normal(size=(2, 4, 5))
    var_q, var_p = rng.uniform(0.1, 3, size=(2, 4, 5))
    q = torch.distributions.Normal(torch.tensor(mean_q), torch.tensor(var_q).sqrt())
    p = torch.distributions.Normal(torch.tensor(mean_p), torch.tensor(var_p).sqrt())
    oracle = torch.distributions.kl_divergence(q, p).sum().item()
    assert kl_gaussian(mean_q=mean_q, var_q=var_q, mean_p=mean_p, var_p=var_p) == pytest.approx(oracle, rel=1e-12)


def test_divergence_of_isotropic_gaussians_by_hand() -> None:
    # equal variances 0.5, |difference|^2 = 9 + 16: 25 / (2 * 0.5)
    assert kl_gaussian(mean_q=[3, 4], var_q=0.5, mean_p=[0, 0], var_p=0.5) == pytest.approx(25, rel=1e-15)
    # equal means in d = 3: 3/2 (2 - 1 - log 2)
    zeros = np.zeros(3)
    shrunk = kl_gaussian(mean_q=zeros, var_q=2, mean_p=zeros, var_p=1)
    assert shrunk == pytest.approx(1.5 * (1 - math.log(2)), rel=1e-14)
    spread = kl_gaussian(mean_q=zeros, var_q=np.full(3, 2.0), mean_p=zeros, var_p=np.ones(3))
    assert spread == pytest.approx(shrunk, rel=1e-14)


@given(
    values=st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6),
    var_q=st.floats(1e-6, 1e6),
    var_p=st.floats(1e-6, 1e6),
)
def test_divergence_is_never_negative_and_zero_only_from_itself(
    values: list[tuple[float, float]], var_q: float, var_p: float
) -> None:
    mean_q, mean_p = np.array(values).T
    apart = kl_gaussian(mean_q=mean_q, var_q=var_q, mean_p=mean_p, var_p=var_p)
    assert apart >= 0
    assert kl_gaussian(mean_q=mean_q, var_q=var_q, mean_p=mean_q, var_p=var_q) == 0
    if abs(var_q / var_p - 1) > 1e-3 or np.abs(mean_q - mean_p).max() > 0.1 * math.sqrt(var_p):
        assert apart > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kl": -0.1}, "KL must be finite and >= 0 but got -0.1"),
        ({"kl": np.inf}, "KL must be finite and >= 0 but got inf"),
        ({"m": 0}, "m must be finite and >= 1 but got 0.0"),
        ({"delta": 0}, r"delta must be in \(0, 1\) but got 0.0"),
        ({"delta": [0.1, 1]}, r"delta must be in \(0, 1\) but got 1.0 at index 1"),
        ({"n_val": 2.5}, "n_val must be an integer > 0 but got 2.5"),
    ],
)
def test_a_gap_outside_its_domain_is_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"kl": 1, "m": 100, "delta": 0.05}
    with pytest.raises(ValueError, match=f"^{message}$"):
        eps_m(**{**arguments, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "n must be an integer > 0 but got 0.0"),
        ({"m": np.nan}, "m must be finite and >= 1 but got nan"),
        ({"alpha": 0}, "alpha must be finite and > 0 but got 0.0"),
        ({"eps": -1}, "eps_m must be finite and >= 0 but got -1.0"),
    ],
)
def test_an_interval_outside_its_domain_is_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"n": N, "m": 100, "alpha": 1, "eps": 0.1}
    with pytest.raises(ValueError, match=f"^{message}$"):
        rate_interval(**{**arguments, **changed})
    if "eps" not in changed:
        with pytest.raises(ValueError, match=f"^{message}$"):
            estimate_rate(**{name: {**arguments, **changed}[name] for name in ("alpha", "n", "m")})


def test_an_unknown_form_and_a_rate_of_one_are_refused() -> None:
    unknown: Any = "printed"
    with pytest.raises(RequestError, match="unknown form 'printed'"):
        rate_interval(n=N, m=100, alpha=1, eps=0.1, form=unknown)
    with pytest.raises(ValueError, match=r"^tau must be in \[0, 1\) but got 1.0$"):
        rate_interval(n=N, m=100, alpha=1, eps=0.1).contains(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mean_p": [0.0]}, r"mean_q and mean_p must have one shape but got \(2,\) and \(1,\)"),
        ({"mean_q": [np.nan, 0]}, "mean_q and mean_p must be finite"),
        ({"var_q": 0}, "var_q must be finite and > 0 but got 0.0"),
        ({"var_p": [1, -1]}, "var_p must be finite and > 0 but got -1.0 at index 1"),
        ({"var_p": [1, 1, 1]}, r"var_p must be one number or of the shape \(2,\) of the means but got \(3,\)"),
    ],
)
def test_a_gaussian_that_is_none_is_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"mean_q": [0.0, 1.0], "var_q": 1, "mean_p": [0.0, 0.0], "var_p": 1}
    with pytest.raises(ValueError, match=f"^{message}$"):
        kl_gaussian(**{**arguments, **changed})
