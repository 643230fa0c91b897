"""Combinations of estimators by hand."""

from __future__ import annotations

import math

import pytest

from analysis.fits.resample import Estimate as Interval
from analysis.measure.ratios import default_values, ratios
from analysis.measure.record import Measurement, Value
from analysis.theory.estimate import Estimate, Units


def value(quantity: str, estimator: str, numbers: tuple[float, float, float], units: Units = "nats") -> Value:
    method = "datm" if quantity == "i_min" else None
    middle, low, high = numbers
    return Value(quantity, estimator, method, Estimate(middle, low, high, units, 5, {}))


FOUND = Measurement(
    {},
    {},
    {},
    (
        value("i_min", "few_shot", (2.0, 1.0, 3.0)),
        Value("i_min", "pac_bayes", "datm", None, "No gap."),
        value("i_min", "information_bottleneck", (1.0, 1.0, 1.0)),
        value("i_clean", "contrastive", (0.5, 0.4, 0.8)),
        value("i_clean", "teacher", (1.0, 0.0, 2.0)),
        value("i_clean", "gradient", (9.0, 8.0, 10.0), "relative"),
        value("redundancy", "clusters", (0.5, 0.25, 1.0), "fraction"),
    ),
)


def test_every_combination_in_nats_is_there_and_no_other() -> None:
    found = {(one.i_min, one.i_clean, one.redundancy): one for one in ratios(FOUND, "datm")}
    assert set(found) == {
        (need, have, "clusters")
        for need in ("few_shot", "information_bottleneck")
        for have in ("contrastive", "teacher")
    }
    first = found[("few_shot", "contrastive", "clusters")]
    assert (first.value, first.low, first.high) == pytest.approx((8.0, 1 / 0.8, 3 / (0.4 * 0.25)))
    assert found[("few_shot", "teacher", "clusters")].high == math.inf
    assert first.is_inside(Interval(7.0, 5.0, 9.0))
    assert not first.is_inside(Interval(7.0, 6.0, 7.5))
    assert not first.is_inside(Interval())


def test_another_method_has_no_information_that_it_needs() -> None:
    assert ratios(FOUND, "mtt") == []
    assert default_values(FOUND, "mtt") == {"i_clean": 0.5, "redundancy": 0.5}
    assert default_values(FOUND, "datm") == {"i_min": 2.0, "i_clean": 0.5, "redundancy": 0.5}
