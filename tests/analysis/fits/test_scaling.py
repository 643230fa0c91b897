from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from analysis.fits.censored import Responses, coefficient, coefficient_p_value, maximise
from analysis.fits.crossover import Censored, Crossover, crossovers
from analysis.fits.scaling import fit_scaling, scaling_laws
from ddnl_ray.errors import RequestError

CurveFrame = Callable[..., pd.DataFrame]
RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
FACTORS = [1 - rate for rate in RATES]


def at(value: float, censored: Censored = "none") -> Crossover:
    return Crossover(value, math.nan, math.nan, censored, 3 if value == value else 0)


def censor(values: Sequence[float], low: float, high: float) -> list[Crossover]:
    return [at(low, "left") if v <= low else at(high, "right") if v > high else at(v) for v in values]


def simulate(rng: np.random.Generator, a: float, b: float, sigma: float, repeats: int = 1) -> list[float]:
    noise = rng.normal(0, sigma, (repeats, len(FACTORS)))
    return [a * f**-b * math.exp(e) for row in noise for f, e in zip(FACTORS, row, strict=True)]


def responses(seed: int, *, is_censored: bool) -> Responses:
    rng = np.random.default_rng(seed)
    x = np.repeat([-math.log(factor) for factor in FACTORS], 3)
    y = 1.5 + 1.2 * x + rng.normal(0, 0.5, len(x))
    low, high = (1.2, 2.8) if is_censored else (-math.inf, math.inf)
    side = np.where(y <= low, -1, np.where(y > high, 1, 0))
    return Responses(np.column_stack([np.ones_like(x), x]), np.clip(y, low, high), side)


def test_without_censoring_test_and_interval_are_students() -> None:
    data = responses(1, is_censored=False)
    fit, oracle = maximise(data), stats.linregress(data.design[:, 1], data.y)
    assert fit.beta.tolist() == pytest.approx([oracle.intercept, oracle.slope])
    residual = data.y - oracle.intercept - oracle.slope * data.design[:, 1]
    assert fit.sigma == pytest.approx(math.sqrt(np.mean(residual**2)))
    quantile = stats.t.ppf(0.975, len(data.y) - 2)
    for column, value, error in ((0, oracle.intercept, oracle.intercept_stderr), (1, oracle.slope, oracle.stderr)):
        found = coefficient(data, fit, column, 0.95)
        assert (found.low, found.high) == pytest.approx((value - quantile * error, value + quantile * error))
    assert coefficient_p_value(data, fit, 1, 0.0) == pytest.approx(oracle.pvalue, rel=1e-6)


def test_with_censoring_the_likelihood_is_at_its_maximum() -> None:
    data = responses(4, is_censored=True)
    assert set(data.side.tolist()) == {-1, 0, 1}

    def negative(parameters: np.ndarray) -> float:
        sigma = math.exp(parameters[2])
        z = (data.y - data.design @ parameters[:2]) / sigma
        parts = np.where(data.side == 0, stats.norm.logpdf(z) - parameters[2], stats.norm.logcdf(-data.side * z))
        return -float(parts.sum())

    fit = maximise(data)
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    oracle = optimize.minimize(negative, [1.0, 1.0, 0.0], method="Nelder-Mead", options=options)
    assert fit.beta.tolist() == pytest.approx(oracle.x[:2].tolist(), abs=1e-5)
    assert fit.sigma == pytest.approx(math.exp(oracle.x[2]), abs=1e-5)
    assert fit.log_likelihood == pytest.approx(-oracle.fun)


def test_a_and_b_are_recovered_inside_their_intervals() -> None:
    values = simulate(np.random.default_rng(0), a=4.0, b=1.0, sigma=0.2, repeats=4)
    found = fit_scaling(FACTORS * 4, [at(value) for value in values])
    assert found.a.contains(4.0)
    assert found.b.contains(1.0)
    assert found.b.high - found.b.low < 0.5
    assert found.sigma == pytest.approx(0.2, abs=0.08)
    assert found.agrees
    assert found.p_value > 0.05
    assert found.predict(0.5) == pytest.approx(8.0, rel=0.3)
    assert found.sentence.startswith(f"b = {found.b.value:.2f} [")
    assert "contains the predicted 1" in found.sentence


def test_another_exponent_is_told_from_one() -> None:
    values = simulate(np.random.default_rng(1), a=40.0, b=-1.0, sigma=0.2, repeats=3)
    found = fit_scaling(FACTORS * 3, [at(value) for value in values])
    assert found.b.contains(-1.0)
    assert found.agrees is False
    assert found.p_value < 1e-4
    assert "excludes the predicted 1" in found.sentence


def test_censored_points_correct_the_exponent() -> None:
    values = simulate(np.random.default_rng(7), a=4.0, b=1.0, sigma=0.3, repeats=40)
    crossings = censor(values, 1.0, 10.0)
    found = fit_scaling(FACTORS * 40, crossings)
    assert found.num_right > 40
    assert found.b.contains(1.0)
    measured = [(f, c) for f, c in zip(FACTORS * 40, crossings, strict=True) if c.is_measured]
    dropped = fit_scaling([f for f, _ in measured], [c for _, c in measured])
    assert not dropped.b.contains(1.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (3.0, 25.0)])
def test_the_interval_of_b_covers_at_its_level(low: float, high: float) -> None:
    rng = np.random.default_rng(12)
    fits = [
        fit_scaling(FACTORS * 2, censor(simulate(rng, a=6.0, b=1.0, sigma=0.3, repeats=2), low, high))
        for _ in range(120)
    ]
    covered = np.mean([fit.b.contains(1.0) for fit in fits])
    assert 0.89 <= covered <= 1.0
    # Test and interval are the same statement.
    assert [fit.agrees for fit in fits] == [fit.p_value > 0.05 for fit in fits]


def test_an_exact_law_has_no_spread() -> None:
    exact = [at(3 / factor) for factor in FACTORS]
    found = fit_scaling(FACTORS, exact)
    assert (found.a.value, found.b.value) == pytest.approx((3, 1))
    assert (found.sigma, found.p_value, found.b.low) == (0, 1, found.b.value)
    # A censored point that agrees changes nothing; one that does not gives the line a spread.
    agreeing = fit_scaling([*FACTORS, 0.1], [*exact, at(20, "right")])
    assert (agreeing.sigma, agreeing.num_right) == (0, 1)
    assert fit_scaling([*FACTORS, 0.1], [*exact, at(60, "right")]).sigma > 0


@pytest.mark.parametrize("spread", [0.0, 1e-6])
def test_censored_points_on_the_line_leave_the_fit_well_conditioned(spread: float) -> None:
    wave = [spread * (-1) ** i for i in range(8)]
    values = [7.389 * math.exp(shift) for shift in wave]
    factors = [0.061, 0.561, 0.041, 0.221, 0.451, 0.531, 0.131, 0.461]
    sides: list[Censored] = ["right", "none", "right", "left", "none", "left", "none", "none"]
    found = fit_scaling(factors, [at(value, side) for value, side in zip(values, sides, strict=True)])
    assert found.b.value == pytest.approx(0, abs=1e-5)
    assert found.a.value == pytest.approx(7.389, abs=1e-4)
    assert found.b.low <= found.b.value <= found.b.high
    assert found.agrees is False


def test_too_few_points_are_a_sentence() -> None:
    few = fit_scaling(FACTORS, [at(3), at(4), at(10, "right"), at(10, "right"), at(math.nan)])
    assert not few.exists
    assert few.agrees is None
    assert few.sentence == (
        "A scaling law needs at least 3 measured crossovers, but there are 2: 0 lie below the smallest IPC run and "
        "2 above the largest. 1 series without a crossover (no baseline or no score) are left out."
    )
    assert fit_scaling([0.6] * 4, [at(3), at(4), at(5), at(6)]).reason == (
        "All measured crossovers have the same noise, so the exponent is undefined."
    )
    assert "there are 0" in fit_scaling([], []).reason


def test_requests_out_of_range_are_named() -> None:
    with pytest.raises(RequestError, match="1 factors do not match 0 crossovers"):
        fit_scaling([0.5], [])
    with pytest.raises(RequestError, match=r"above 0 but got \[0\.0\]; leave out rates of 1"):
        fit_scaling([0.0], [at(1)])
    with pytest.raises(RequestError, match="confidence must lie between 0 and 1 but got 95"):
        fit_scaling([0.5], [at(1)], 95)


def test_a_sweep_with_a_known_law_gives_it_back(curve_frame: CurveFrame) -> None:
    # acc = 0.5 + 0.1 log10(IPC (1 - tau) / 5) reaches 0.5 at IPC* = 5 / (1 - tau).
    ipcs = (1, 10, 100)
    curves = {rate: {ipc: 0.5 + 0.1 * math.log10(ipc * (1 - rate) / 5) for ipc in ipcs} for rate in RATES}
    offsets = tuple(np.random.default_rng(0).normal(0, 0.005, 4))
    frame = curve_frame(curves, dict.fromkeys(RATES, 0.5), shifts=(0.0, 0.1, 0.0, 0.05), offsets=offsets)
    found = crossovers(frame)
    (law,) = scaling_laws(found)
    assert (law.setting.noise, law.setting.noise_rate) == ("symmetric", None)
    assert (law.fit.a.value, law.fit.b.value) == pytest.approx((5, 1), rel=0.2)
    assert law.fit.num_measured == 5
    # The same against another factor, as kappa for natural noise.
    (kappa,) = scaling_laws(found, lambda item: None if item.rate == 0.8 else (1 - (item.rate or 0)) ** 2)
    assert kappa.fit.num_measured == 4
    assert kappa.fit.b.value == pytest.approx(0.5, rel=0.05)


def test_a_sweep_of_one_rate_or_without_a_baseline_is_a_sentence(sweep: pd.DataFrame) -> None:
    one_rate = scaling_laws(crossovers(sweep[sweep["noise_rate"] == 0.3]))
    assert [law.setting.method for law in one_rate] == ["random", "datm", "datm+tad"]
    assert all(law.fit.reason.startswith("A scaling law needs at least 3") for law in one_rate)
    for law in scaling_laws(crossovers(sweep[sweep["base_method"] != "full"])):
        assert law.fit.reason.endswith("3 series without a crossover (no baseline or no score) are left out.")
    assert scaling_laws(()).reason == "There is no crossover to fit a scaling law to."
