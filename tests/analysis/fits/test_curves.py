from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fits.curves import accuracy_curves, saturation
from analysis.fits.resample import Size
from analysis.fits.saturating import SaturatingFit, fit_saturating
from ddnl_ray.errors import RequestError

CurveFrame = Callable[..., pd.DataFrame]
IPCS = (1, 5, 10, 50, 200)
ONE = Size(1, 0, True)


def fit(ipcs: tuple[int, ...], accuracy: list[float]) -> SaturatingFit:
    values = np.array(accuracy)
    return fit_saturating(ipcs, values, np.ones(len(ipcs)), values[None], ONE)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 0.99), st.floats(0.05, 0.6), st.floats(0.05, 2.5))
def test_an_exact_saturating_curve_is_recovered(a: float, b: float, g: float) -> None:
    found = fit(IPCS, [a - b * ipc**-g for ipc in IPCS])
    assert found.asymptote.value == pytest.approx(a, abs=2e-4)
    assert found.amplitude.value == pytest.approx(b, abs=2e-4)
    assert found.exponent.value == pytest.approx(g, rel=2e-3)
    assert found.rmse < 1e-6
    assert found.predict(20) == pytest.approx(a - b * 20**-g, abs=1e-5)
    assert found.reason == ""


def test_the_ipc_within_epsilon_of_the_asymptote_by_hand() -> None:
    found = fit(IPCS, [0.8 - 0.4 * ipc**-0.5 for ipc in IPCS])
    # 0.4 / sqrt(IPC) = 0.02 at IPC 400
    assert found.ipc_within(0.02) == pytest.approx(400, rel=1e-3)
    assert found.ipc_within(0.5) == 1


def test_a_noisy_curve_has_parameters_inside_their_intervals(curve_frame: CurveFrame) -> None:
    rng = np.random.default_rng(2)
    truth = {0.4: {ipc: 0.8 - 0.4 * ipc**-0.5 for ipc in IPCS}}
    (curve,) = accuracy_curves(curve_frame(truth, shifts=tuple(rng.normal(0, 0.02, 8))))
    assert curve.fit.asymptote.contains(0.8)
    assert curve.fit.exponent.low <= 0.5 * 1.05
    assert curve.fit.exponent.high >= 0.5 / 1.05
    assert all(point.low < point.mean < point.high and point.n == 8 for point in curve.points)


def test_falling_and_unbounded_curves_are_named() -> None:
    falling = fit(IPCS, [0.7, 0.6, 0.6, 0.5, 0.4])
    assert falling.amplitude.value == 0
    assert falling.predict(7) == falling.asymptote.value == pytest.approx(0.56)
    assert "does not rise" in falling.reason
    straight = fit(IPCS, [0.1 + 0.1 * math.log(ipc) for ipc in IPCS])
    assert "does not bend" in straight.reason or "held at accuracy 1" in straight.reason
    step = fit(IPCS, [0.1, 0.5, 0.5, 0.5, 0.5])
    assert "saturated at the second IPC" in step.reason


def test_the_asymptote_is_an_accuracy() -> None:
    found = fit(IPCS, [0.2, 0.5, 0.62, 0.9, 0.999])
    assert found.asymptote.value == 1.0
    assert "held at accuracy 1" in found.reason


def test_too_few_ipcs_are_a_sentence() -> None:
    assert not fit((1, 10), [0.2, 0.3]).exists
    assert "three parameters, but 2 IPC(s)" in fit((1, 10), [0.2, 0.3]).reason
    assert math.isnan(fit((1, 10), [0.2, 0.3]).predict(5))
    three = fit((1, 10, 50), [0.2, 0.5, 0.6])
    assert three.rmse == pytest.approx(0, abs=1e-6)
    assert "nothing is left to test the form" in three.reason


def test_saturation_by_hand() -> None:
    mean = np.array([0.4, 0.6, 0.8, 0.805])
    found = saturation((1, 10, 100, 1000), mean, mean[None], ONE, 0.055)
    # 0.805 - 0.055 = 0.75 is reached three quarters of the way from 10 to 100.
    assert found.value == pytest.approx(10 * 10**0.75)
    assert found.censored == "none"
    rising = saturation((1, 10, 100), np.array([0.4, 0.6, 0.8]), mean[None, :3], ONE, 0.01)
    assert (rising.value, rising.censored) == (100, "right")
    assert rising.reason == "The accuracy still rises at the largest IPC run."
    flat = saturation((1, 10), np.array([0.5, 0.5]), mean[None, :2], ONE, 0.01)
    assert (flat.value, flat.censored) == (1, "left")
    peak = saturation((1, 10, 100), np.array([0.4, 0.8, 0.6]), mean[None, :3], ONE, 0.1)
    assert peak.value == pytest.approx(10**0.75)
    assert not saturation((1,), mean[:1], mean[None, :1], ONE, 0.01).is_known


def test_bands_over_draws_and_over_seeds(curve_frame: CurveFrame) -> None:
    draws = [
        curve_frame({0.4: {1: 0.4 + step}}, shifts=(0.0, 0.2), seed=seed).assign(run=f"r{seed}", cell=str(seed))
        for seed, step in enumerate((0.0, 0.02))
    ]
    frame = pd.concat(draws, ignore_index=True)
    frame["cell"] = frame["cell"] + frame["noise_seed"].astype(str)
    (over_draws,), (over_seeds,) = accuracy_curves(frame), accuracy_curves(frame, over="seeds")
    (wide,), (narrow,) = over_draws.points, over_seeds.points
    assert (wide.n, narrow.n) == (2, 4)
    assert (wide.low, wide.high) == pytest.approx((0.41, 0.61))
    assert (narrow.low, narrow.high) == pytest.approx((0.50, 0.52))
    assert wide.mean == narrow.mean == pytest.approx(0.51)


def test_what_cannot_be_resampled_has_no_band(curve_frame: CurveFrame, sweep: pd.DataFrame) -> None:
    (one,) = accuracy_curves(curve_frame({0.4: {1: 0.4, 10: 0.5}}))
    assert math.isnan(one.points[0].low)
    assert one.reason == "One replicate only: no bands."
    assert accuracy_curves(sweep, over="seeds")[0].reason == "One seed per noise draw: no bands over seeds."
    assert accuracy_curves(sweep.iloc[:0]).reason.startswith("The result table is empty")


def test_a_series_without_a_score_has_no_curve(sweep: pd.DataFrame) -> None:
    failed = sweep.assign(outcome="failed", accuracy=math.nan)
    found = accuracy_curves(failed)
    assert len(found) == 9
    assert {curve.points for curve in found} == {()}
    assert found[0].reason == "None of 9 cells has a score on the test set."
    assert not found[0].fit.exists


def test_epsilon_out_of_range_is_named(sweep: pd.DataFrame) -> None:
    with pytest.raises(RequestError, match="epsilon must be an accuracy between 0 and 1 but got 2"):
        accuracy_curves(sweep, epsilon=2)
