from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.theory import (
    FORMS,
    Bounds,
    Form,
    asymmetric_bounds,
    in_the_wild_bounds,
    natural_bounds,
    symmetric_bounds,
)
from ddnl_ray.errors import RequestError

CIFAR: dict[str, Any] = {"n": 50_000, "r": 0.5, "i_min": 2.0, "i_clean": 0.25}
RATES = st.floats(0, 0.99)
SHARES = st.floats(0.01, 1)
NATS = st.floats(0.01, 10)
MODES = st.floats(1, 200)


def ends(bounds: Bounds) -> tuple[float, float]:
    assert bounds.lower.shape == bounds.upper.shape == ()
    return float(bounds.lower), float(bounds.upper)


def test_bounds_by_hand() -> None:
    # lower 2 / (0.5 * 0.6 * 0.25), upper 50000 * 0.6 * 0.5 / C
    symmetric = symmetric_bounds(**CIFAR, num_classes=10, tau=0.4)
    assert ends(symmetric) == pytest.approx((80 / 3, 1500), rel=1e-15)
    asymmetric = asymmetric_bounds(**CIFAR, c_eff=4, tau=0.4)
    assert ends(asymmetric) == pytest.approx((80 / 3, 3750), rel=1e-15)
    assert ends(in_the_wild_bounds(n=50_000, num_classes=10, tau=0.4)) == pytest.approx((0, 3000), rel=1e-15)
    # kappa 4 divides 2 / (0.5 * 0.25) as printed, and multiplies it in the proof
    assert ends(natural_bounds(**CIFAR, kappa=4)) == (4, 6250)
    assert ends(natural_bounds(**CIFAR, kappa=4, form="derived")) == (64, 6250)


def test_bounds_say_which_statement_they_are() -> None:
    for form in FORMS:
        found = [
            symmetric_bounds(**CIFAR, num_classes=10, tau=0.4, form=form),
            in_the_wild_bounds(n=10, num_classes=2, tau=0.1, form=form),
            asymmetric_bounds(**CIFAR, c_eff=4, tau=0.4, form=form),
            natural_bounds(**CIFAR, kappa=4, form=form),
        ]
        assert [bounds.kind for bounds in found] == ["symmetric", "in_the_wild", "asymmetric", "natural"]
        assert {bounds.form for bounds in found} == {form}
    assert natural_bounds(**CIFAR, kappa=4).form == "published"


@given(tau=RATES, i_min=NATS, i_clean=NATS, num_classes=st.integers(2, 1000))
def test_without_redundancy_corollary_i_has_the_upper_end_of_equation_10(
    tau: float, i_min: float, i_clean: float, num_classes: int
) -> None:
    whole = symmetric_bounds(n=50_000, num_classes=num_classes, tau=tau, r=1, i_min=i_min, i_clean=i_clean)
    wild = in_the_wild_bounds(n=50_000, num_classes=num_classes, tau=tau)
    assert whole.upper == pytest.approx(wild.upper, rel=1e-15)
    assert wild.lower == 0


@given(tau=RATES, r=SHARES, i_min=NATS, i_clean=NATS, num_classes=st.integers(2, 1000))
def test_corollary_ii_with_all_classes_effective_is_corollary_i(
    tau: float, r: float, i_min: float, i_clean: float, num_classes: int
) -> None:
    shared: dict[str, Any] = {"n": 50_000, "tau": tau, "r": r, "i_min": i_min, "i_clean": i_clean}
    one, two = symmetric_bounds(**shared, num_classes=num_classes), asymmetric_bounds(**shared, c_eff=num_classes)
    assert ends(one) == ends(two)


@given(r=SHARES, i_min=NATS, i_clean=NATS, num_classes=st.integers(2, 1000))
def test_without_noise_the_ends_are_the_information_ratio_and_the_unique_samples_of_a_class(
    r: float, i_min: float, i_clean: float, num_classes: int
) -> None:
    found = symmetric_bounds(n=60_000, num_classes=num_classes, tau=0, r=r, i_min=i_min, i_clean=i_clean)
    assert ends(found) == pytest.approx((i_min / i_clean / r, 60_000 * r / num_classes), rel=1e-12)
    near = symmetric_bounds(n=60_000, num_classes=num_classes, tau=1e-12, r=r, i_min=i_min, i_clean=i_clean)
    assert ends(near) == pytest.approx(ends(found), rel=1e-9)


@given(r=SHARES, i_min=NATS, i_clean=NATS)
def test_without_confusion_the_forms_of_corollary_iii_agree(r: float, i_min: float, i_clean: float) -> None:
    shared: dict[str, Any] = {"n": 50_000, "r": r, "i_min": i_min, "i_clean": i_clean}
    published, derived = natural_bounds(**shared, kappa=1), natural_bounds(**shared, kappa=1, form="derived")
    clean = symmetric_bounds(**shared, num_classes=10, tau=0)
    assert ends(published) == ends(derived)
    assert published.lower == clean.lower
    # ten times what a class of a balanced data set can give: the printed upper end is this loose
    assert published.upper == pytest.approx(10 * clean.upper, rel=1e-15)


@given(r=SHARES, i_min=NATS, i_clean=NATS, kappa=MODES)
def test_forms_of_corollary_iii_differ_by_the_square_of_kappa_in_the_lower_end_alone(
    r: float, i_min: float, i_clean: float, kappa: float
) -> None:
    shared: dict[str, Any] = {"n": 50_000, "r": r, "i_min": i_min, "i_clean": i_clean, "kappa": kappa}
    published, derived = natural_bounds(**shared), natural_bounds(**shared, form="derived")
    assert derived.lower == pytest.approx(published.lower * kappa**2, rel=1e-12)
    assert derived.upper == published.upper


@given(
    low=st.fixed_dictionaries({"tau": RATES, "r": SHARES, "i_min": NATS, "i_clean": NATS, "c_eff": MODES}),
    name=st.sampled_from(["tau", "r", "i_min", "i_clean", "c_eff", "n"]),
    step=st.floats(0, 1),
)
def test_ends_of_corollary_ii_move_in_one_direction(low: dict[str, Any], name: str, step: float) -> None:
    # sign of the change of (lower, upper) as one argument grows
    signs = {"tau": (1, -1), "r": (-1, 1), "i_min": (1, 0), "i_clean": (-1, 0), "c_eff": (0, -1), "n": (0, 1)}
    low["n"] = 1000
    tops = {"tau": 0.99, "r": 1, "i_min": 10, "i_clean": 10, "c_eff": 200, "n": 50_000}
    raised = low[name] + step * (tops[name] - low[name])
    high = {**low, name: round(raised) if name == "n" else min(raised, tops[name])}
    before, after = asymmetric_bounds(**low), asymmetric_bounds(**high)
    for sign, (a, b) in zip(signs[name], zip(ends(before), ends(after), strict=True), strict=True):
        assert a == b if sign == 0 else sign * (b - a) >= 0


@given(kappa=MODES, step=st.floats(0, 100), form=st.sampled_from(FORMS))
def test_confusion_asks_for_more_images_in_the_derived_form_and_fewer_in_the_published(
    kappa: float, step: float, form: Form
) -> None:
    before = natural_bounds(**CIFAR, kappa=kappa, form=form)
    after = natural_bounds(**CIFAR, kappa=kappa + step, form=form)
    sign = 1 if form == "derived" else -1
    assert sign * (after.lower - before.lower) >= 0
    assert after.upper <= before.upper


@pytest.mark.parametrize("form", FORMS)
def test_arrays_give_what_a_loop_over_numbers_gives(form: Form) -> None:
    taus, rs, modes = np.linspace(0, 0.9, 4), np.array([0.1, 1.0]), np.array([1.0, 2.5, 10.0])
    n, classes = np.array([100, 50_000]), np.array([2, 10, 100])
    shared: dict[str, Any] = {"i_min": 3.0, "i_clean": 0.7, "form": form}
    cases: list[tuple[Callable[..., Bounds], dict[str, Any]]] = [
        (symmetric_bounds, {"n": n, "num_classes": classes, "tau": taus, "r": rs, **shared}),
        (in_the_wild_bounds, {"n": n, "num_classes": classes, "tau": taus, "form": form}),
        (asymmetric_bounds, {"n": n, "tau": taus, "r": rs, "c_eff": modes, **shared}),
        (natural_bounds, {"n": n, "r": rs, "kappa": modes, **shared}),
    ]
    for function, arguments in cases:
        arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
        rest = {name: value for name, value in arguments.items() if name not in arrays}
        found = function(**dict(zip(arrays, np.ix_(*arrays.values()), strict=True)), **rest)
        points = itertools.product(*(value.tolist() for value in arrays.values()))
        loop = [ends(function(**dict(zip(arrays, point, strict=True)), **rest)) for point in points]
        expected = np.array(loop).reshape(*(len(value) for value in arrays.values()), 2)
        np.testing.assert_array_equal(found.lower, expected[..., 0])
        np.testing.assert_array_equal(found.upper, expected[..., 1])
        assert found.lower.dtype == found.upper.dtype == np.float64


def test_bounds_cross_where_noise_leaves_too_little() -> None:
    bounds = symmetric_bounds(n=100, num_classes=10, tau=[0.0, 0.5, 0.9], r=1, i_min=4, i_clean=1)
    # 4..10, 8..5, 40..1
    np.testing.assert_array_equal(bounds.empty, [False, True, True])
    np.testing.assert_array_equal(bounds.contains([4, 6, 6]), [True, False, False])
    np.testing.assert_array_equal(bounds.contains(10), [True, False, False])
    np.testing.assert_array_equal(bounds.contains([[3.99], [10.01]]), np.zeros((2, 3)))


def test_ends_that_meet_leave_one_ipc() -> None:
    bounds = symmetric_bounds(n=100, num_classes=10, tau=0.5, r=1, i_min=5, i_clean=2)
    assert ends(bounds) == (5, 5)
    assert not bounds.empty
    assert bounds.contains(5)


def test_a_need_that_float64_cannot_hold_is_infinite() -> None:
    bounds = symmetric_bounds(n=100, num_classes=10, tau=0, r=5e-324, i_min=1, i_clean=0.1)
    assert bounds.lower == np.inf
    assert bounds.empty


def test_ends_are_read_only() -> None:
    bounds = in_the_wild_bounds(n=100, num_classes=10, tau=[0.1, 0.2])
    with pytest.raises(ValueError, match="read-only"):
        bounds.upper[0] = 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "n must be an integer > 0 but got 0.0"),
        ({"n": 99.5}, "n must be an integer > 0 but got 99.5"),
        ({"num_classes": 1}, "C must be an integer >= 2 but got 1.0"),
        ({"tau": 1}, r"tau must be in \[0, 1\) but got 1.0"),
        ({"tau": [0.2, -0.1]}, r"tau must be in \[0, 1\) but got -0.1 at index 1"),
        ({"tau": [[0.2, 0.3], [np.nan, 2]]}, r"tau must be in \[0, 1\) but got nan at index \(1, 0\)"),
        ({"r": 0}, r"r must be in \(0, 1\] but got 0.0"),
        ({"r": 1.5}, r"r must be in \(0, 1\] but got 1.5"),
        ({"i_min": 0}, "I_min must be finite and > 0 but got 0.0"),
        ({"i_clean": np.inf}, "I_clean must be finite and > 0 but got inf"),
        ({"i_clean": "much"}, "I_clean must be finite and > 0 but got 'much'"),
        ({"form": "guessed"}, "unknown form 'guessed'"),
    ],
)
def test_a_value_outside_its_domain_is_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {**CIFAR, "num_classes": 10, "tau": 0.2}
    with pytest.raises(ValueError, match=f"^{message}"):
        symmetric_bounds(**{**arguments, **changed})


@pytest.mark.parametrize("value", [0.9, np.nan, np.inf])
def test_effective_modes_below_one_or_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"^C_eff must be finite and >= 1 but got {value}$"):
        asymmetric_bounds(**CIFAR, c_eff=value, tau=0.2)
    for form in FORMS:
        with pytest.raises(ValueError, match=f"^kappa must be finite and >= 1 but got {value}$"):
            natural_bounds(**CIFAR, kappa=value, form=form)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_an_ipc_without_a_value_is_neither_inside_nor_outside(value: float) -> None:
    bounds = in_the_wild_bounds(n=100, num_classes=10, tau=0.1)
    with pytest.raises(ValueError, match=f"^IPC must be finite and > 0 but got {float(value)}$"):
        bounds.contains(value)


def test_every_kind_checks_its_form() -> None:
    unknown: Any = "derived?"
    for call in (
        lambda: symmetric_bounds(**CIFAR, num_classes=10, tau=0.4, form=unknown),
        lambda: in_the_wild_bounds(n=10, num_classes=2, tau=0.1, form=unknown),
        lambda: asymmetric_bounds(**CIFAR, c_eff=4, tau=0.4, form=unknown),
        lambda: natural_bounds(**CIFAR, kappa=4, form=unknown),
    ):
        with pytest.raises(RequestError, match="did you mean 'derived'"):
            call()


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        symmetric_bounds(**{**CIFAR, "r": [0.1, 0.2]}, num_classes=10, tau=[0.1, 0.2, 0.3])
