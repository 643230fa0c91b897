"""The scaling law of annotators' noise has 1 / kappa as its factor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.analyze import Information, analyze
from analysis.analyze_output import to_json, to_text
from analysis.facts import Facts, RunFacts
from analysis.theory import kappa

RUN = "digits-symmetric"
SHARES = {"clean": 1.0, "aggre": 0.9, "random1": 0.8, "worse": 0.6}
IPCS = (1, 2, 5, 10, 20, 50)


def matrix(right: float) -> list[list[float]]:
    """Four classes, each right with one probability and else any other alike."""
    return (np.full((4, 4), (1 - right) / 3) + np.eye(4) * (right - (1 - right) / 3)).tolist()


@pytest.fixture
def frame(make_frame: Callable[..., pd.DataFrame], row: Callable[..., dict[str, Any]]) -> pd.DataFrame:
    """Label sets in which IPC* is 3 kappa, give and take a little."""
    rows = []
    for wobble, (labels, right) in zip((1.01, 0.98, 1.02, 0.99), SHARES.items(), strict=True):
        for draw, shift in enumerate((-0.02, 0.0, 0.02)):
            crossing = 3 * kappa(matrix(right)) * wobble * (1 + shift)
            named = {"noise": "natural", "noise_rate": None, "label_set": labels, "noise_rate_realised": 1 - right}
            common = {**named, "noise_seed": draw}
            rows.append(row(cell=f"f{labels}-{draw}", base_method="full", accuracy=0.5, **common))
            rows += [
                row(
                    cell=f"d{labels}-{ipc}-{draw}",
                    base_method="datm",
                    ipc=ipc,
                    accuracy=0.5 + 0.1 * math.log(ipc / crossing),
                    **common,
                )
                for ipc in IPCS
            ]
    return make_frame(rows)


def facts(*known: str) -> Facts:
    matrices = {("natural", None, labels): matrix(SHARES[labels]) for labels in known}
    return Facts({RUN: RunFacts({"digits": 1000}, {"digits": 4}, matrices)})


def test_a_law_in_kappa_is_found_and_tested_in_the_derived_form(frame: pd.DataFrame) -> None:
    found = analyze(frame, facts(*SHARES), Information(i_min=3.0, i_clean=1.0))
    (law,) = found.laws
    assert law.fit.b.value == pytest.approx(1.0, abs=0.15)
    assert law.fit.a.value == pytest.approx(3.0, rel=0.05)
    assert law.fit.agrees
    assert {round(1 / factor, 6) for factor, _ in law.points} == {
        round(kappa(matrix(right)), 6) for right in SHARES.values()
    }
    assert "b = 1 is Corollary III as derived; as printed it would be b = -1." in law.fit.sentence
    assert to_json(found)["fit"][0]["factor"] == "1 / kappa"


def test_the_forms_of_natural_bounds_disagree_by_kappa_squared(frame: pd.DataFrame) -> None:
    found = analyze(frame, facts(*SHARES), Information(i_min=3.0, i_clean=1.0))
    worst = kappa(matrix(SHARES["worse"])) ** 2
    text = to_text(found)
    assert f"disagree in 3 of 4 series, by a factor of up to {worst:.3g}" in text
    assert "4 of 4 upper bounds (published) are no lower than the images that a class has" in text  # kappa <= C
    lower = {each.setting.label_set: each.lower for each in found.bounds if each.form == "derived"}
    assert lower["worse"] == pytest.approx(3 * kappa(matrix(SHARES["worse"])))


def test_a_label_set_without_a_matrix_is_left_out_of_the_law(frame: pd.DataFrame) -> None:
    found = analyze(frame, facts("clean", "worse"), Information())
    assert len(found.laws[0].points) == 2
    assert not found.laws[0].fit.exists
