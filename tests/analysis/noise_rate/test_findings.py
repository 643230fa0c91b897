from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from analysis.noise_rate import Findings, RateEstimate, corollary, suggested_labels, to_json, to_text
from analysis.noise_rate.findings import advice, headline, precision

Make = Callable[..., Findings]
SPREAD = {1: [0, 7, 14, 21], 2: [28, 35, 42, 50]}


def test_json_has_exactly_its_keys(make: Make) -> None:
    value = json.loads(json.dumps(to_json(make(SPREAD))))
    assert list(value) == ["n", "classes", "estimates", "confusions", "suspects"]
    assert (value["n"], value["classes"]) == (60, ["ant", "<bee>", "cat"])
    assert [item["estimator"] for item in value["estimates"]] == ["confident", "lossmix", "knn", "knn_vote"]
    for item in value["estimates"]:
        assert list(item) == ["estimator", "rate", "low", "high", "vacuous"]
        assert 0 <= item["low"] <= item["rate"] <= item["high"] <= 1
        assert item["vacuous"] is False
    assert {frozenset(pair) for pair in value["confusions"]} == {frozenset(("given", "likely", "count", "share"))}
    assert sum(pair["count"] for pair in value["confusions"]) == 8
    (keys,) = {tuple(suspect) for suspect in value["suspects"]}
    assert keys == ("index", "given", "suggested", "score", "file")
    rows = sorted(row for rows in SPREAD.values() for row in rows)
    assert sorted(suspect["index"] for suspect in value["suspects"]) == [2 * row for row in rows]


def test_suspects_name_their_files(make: Make) -> None:
    found = make(SPREAD, files=[f"{row}.png" for row in range(60)])
    assert all(suspect["file"] == f"{suspect['index'] // 2}.png" for suspect in to_json(found)["suspects"])


def test_all_estimates_are_right_about_a_perfect_network(make: Make) -> None:
    found = make(SPREAD)
    assert found.true_rate == pytest.approx(8 / 60)
    for item in found.estimates:
        assert item.rate == pytest.approx(8 / 60, abs=0.02)
    assert headline(found).endswith("of the 60 labels are wrong, by 4 estimators, whose intervals overlap.")
    assert precision(found) == 1


def test_disagreement_is_said(make: Make) -> None:
    found = make(SPREAD)
    other = RateEstimate("lossmix", 0.9, 0.8, 1.0)
    split = Findings(found.labels, found.evidence, (found.estimates[0], other), found.confusions, found.suspects)
    assert "they disagree: not all of their intervals overlap" in headline(split)
    assert headline(split).startswith("An estimated 13.3 % to 90.0 %")


def test_the_corollary_stands_apart(make: Make) -> None:
    found = make(SPREAD, given=corollary(60, 3, 1, 1, 0.3))
    assert len(found.measured) == 4
    assert "Corollary IV is not given" not in to_text(found)
    assert "Corollary IV is not given" in to_text(make(SPREAD))
    lines = [line for line in to_text(found).splitlines() if "Corollary IV, derived" in line]
    assert ["vacuous" in line for line in lines] == [True]
    assert [item["vacuous"] for item in to_json(found)["estimates"]][-1] is True


def test_networks_that_predict_nothing_are_not_trusted(make: Make) -> None:
    found = make(SPREAD)
    assert found.agreement == pytest.approx(52 / 60)
    assert not found.is_weak
    guesses = dataclasses.replace(found.evidence, probabilities=np.tile([0.5, 0.3, 0.2], (60, 1)))
    weak = dataclasses.replace(found, evidence=guesses)
    assert weak.is_weak
    assert headline(weak).startswith("No estimate can be trusted: networks predict only 3")
    ((_, command),) = advice(weak)
    assert command == "ddnl noise-rate folder:x --epochs 100 --features simclr"


def test_unknown_truth_is_not_made_up(make: Make) -> None:
    found = make(SPREAD, clean=None)
    assert found.true_rate is None
    assert precision(found) is None
    text = to_text(found)
    assert "error" not in text
    assert "truly" not in text


def test_advice_follows_the_findings(make: Make) -> None:
    ((clean, command),) = advice(make({}))
    assert "look clean" in clean
    assert "--set 'grid.method=[full, datm]'" in command
    assert "--set data.name=folder:x" in command
    gathered, spread = make({1: list(range(0, 60, 4))}), make({1: list(range(0, 30, 4)), 2: list(range(30, 60, 4))})
    assert (gathered.is_concentrated, spread.is_concentrated) == (True, False)
    (first, given), _ = advice(gathered)
    assert "gather on few pairs" in first
    assert "datm+tad" in given
    (first, _), (second, fixed) = advice(spread)
    assert "spread over the classes" in first
    assert "Or clean" in second
    assert "--set data.labels=out/labels-suggested.csv" in fixed
    assert "--set 'grid.noise=[{kind: none}]'" in fixed


def test_suggestions_replace_the_suspects_labels_alone(make: Make) -> None:
    found = make(SPREAD)
    whole = np.repeat(found.labels.observed, 2)  # the audit saw the even rows
    labels = suggested_labels(found, whole)
    assert found.labels.clean is not None
    np.testing.assert_array_equal(labels[::2], found.labels.clean)
    np.testing.assert_array_equal(labels[1::2], whole[1::2])


def test_networks_that_miss_much_give_upper_limits(make: Make) -> None:
    """Twenty-four wrong labels of sixty look the same as twenty-four images that are too hard."""
    many = make({1: list(range(0, 24, 2)), 2: list(range(1, 24, 2))})
    assert many.agreement == pytest.approx(0.6)
    assert "Networks predict 60.0 %" in headline(many)
    assert "upper limits" in headline(many)
    assert "upper limits" not in headline(make(SPREAD))
