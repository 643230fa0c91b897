"""Theory against practice on a synthetic sweep that follows the scaling law, and on what says nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.analyze import Information, analyze
from analysis.analyze_output import to_json, to_text
from analysis.facts import Facts, RunFacts

RATES = (0.0, 0.2, 0.4, 0.6)
WOBBLE = {0.0: 1.02, 0.2: 0.97, 0.4: 1.01, 0.6: 1.0}
IPCS = (1, 2, 5, 10, 20, 50)
RUN = "digits-symmetric"
FACTS = Facts({RUN: RunFacts({"digits": 1000}, {"digits": 10})})
Make = Callable[..., pd.DataFrame]


@pytest.fixture
def frame(make_frame: Make, row: Callable[..., dict[str, Any]]) -> pd.DataFrame:
    """Three draws in which IPC* is 4 / (1 - rate), give and take a little."""
    rows = []
    for draw, shift in enumerate((-0.02, 0.0, 0.02)):
        for rate in RATES:
            crossing = 4 / (1 - rate) * (1 + shift) * WOBBLE[rate]
            noise = {"noise": "symmetric", "noise_rate": rate} if rate else {"noise": "none", "noise_rate": 0.0}
            common = {**noise, "noise_rate_realised": rate, "noise_seed": draw, "dataset": "digits"}
            rows.append(row(cell=f"f{rate}-{draw}", base_method="full", accuracy=0.5, **common))
            rows += [
                row(
                    cell=f"d{rate}-{ipc}-{draw}",
                    base_method="datm",
                    ipc=ipc,
                    accuracy=0.5 + 0.1 * math.log(ipc / crossing),
                    **common,
                )
                for ipc in IPCS
            ]
    return make_frame(rows)


def test_a_law_that_holds_is_found(frame: pd.DataFrame) -> None:
    found = analyze(frame, FACTS, Information())
    assert [round(each.crossover.value, 1) for each in found.crossovers] == [4.1, 4.8, 6.7, 10.0]
    (law,) = found.laws
    assert law.fit.b.value == pytest.approx(1.0, abs=0.1)
    assert law.fit.a.value == pytest.approx(4.0, rel=0.05)
    assert law.fit.agrees


def test_without_information_there_are_upper_bounds_alone(frame: pd.DataFrame) -> None:
    found = analyze(frame, FACTS, Information())
    upper = [each.upper for each in found.bounds if each.form == "derived"]
    assert upper == pytest.approx([1000 * (1 - rate) / 10 for rate in RATES])
    assert {each.lower for each in found.bounds} == {0.0}
    assert "no lower bound" in to_text(found)
    assert found.coverage["published"].num_inside == 4


def test_lower_bounds_of_known_information(frame: pd.DataFrame) -> None:
    found = analyze(frame, FACTS, Information(i_min=8.0, i_clean=1.0, redundancy=0.5))
    published = [each for each in found.bounds if each.form == "published"]
    assert [each.lower for each in published] == pytest.approx([16 / (1 - rate) for rate in RATES])
    assert [each.upper for each in published] == pytest.approx([50 * (1 - rate) for rate in RATES])
    assert found.coverage["published"].num_below == 4


def test_noise_of_classes_takes_its_modes_from_its_matrix(frame: pd.DataFrame) -> None:
    """Two classes of three confused evenly: three rows with entropies 0, log 2, log 2."""
    own = frame[frame["noise_rate"] == 0.4].assign(noise="asymmetric", dataset="digits")
    matrix = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
    data = [{"dataset": "digits", "train_images": 900, "classes": 3}]
    noise = [{"kind": "asymmetric", "rate": 0.4, "labels": None, "transition_realised": matrix}]
    found = analyze(own, Facts({RUN: RunFacts.read(data, noise)}), Information())
    modes = math.exp(2 / 3 * math.log(2))
    upper = {each.form: each.upper for each in found.bounds}
    assert upper["published"] == pytest.approx(900 * 0.6 / modes)
    assert upper["derived"] == pytest.approx(900 * 0.6 / (3 / modes))
    without = analyze(own, Facts({RUN: RunFacts({"digits": 900}, {"digits": 3})}), Information())
    assert all(math.isnan(each.upper) for each in without.bounds)
    assert "no transition matrix" in to_text(without)


def test_the_rival_may_be_training_that_stops_early(frame: pd.DataFrame) -> None:
    """Where stopping gains five points, a distilled set has to catch up with them too."""
    stopped = frame.assign(accuracy_best=frame["accuracy"] + 0.05 * frame["base_method"].eq("full"))
    last = analyze(stopped, FACTS, Information())
    early = analyze(stopped, FACTS, Information(), rival="early_stopped")
    for one, other in zip(last.crossovers, early.crossovers, strict=True):
        assert other.crossover.value > one.crossover.value
    assert "with training on them stopped early" in to_text(early)
    assert to_json(early)["rival"] == "early_stopped"


def test_the_gap_is_ordered_beside_the_noise(frame: pd.DataFrame) -> None:
    """IPC* grows with the rate here, so that distilled sets lose more than full-data training does: the order is -1."""
    found = analyze(frame, FACTS, Information())
    assert found.gaps
    assert [each.correlation.rho for each in found.gaps] == pytest.approx([-1.0] * len(found.gaps))
    assert to_json(found)["gaps"][0]["n"] == len(RATES)
    assert f"rho = -1.00 over {len(RATES)} (p = " in to_text(found)
    alone = analyze(frame[frame["noise_rate"] == RATES[1]], FACTS, Information())
    assert "It needs three rates" in to_text(alone)


def test_json_has_the_promised_keys_and_no_nan(frame: pd.DataFrame) -> None:
    said = to_json(analyze(frame, FACTS, Information()))
    assert {"crossover", "fit", "bounds", "coverage", "noise_rate", "variance"} <= set(said)
    text = json.dumps(said, allow_nan=False)
    assert json.loads(text)["fit"][0]["agrees"] is True
    (rates,) = said["noise_rate"]
    assert rates["num_errors"] == 4
    assert rates["mean_error"] > rates["guess_error"]  # alpha is no constant where b is 1


def test_a_run_of_unknown_size_says_so(frame: pd.DataFrame) -> None:
    found = analyze(frame, Facts(), Information())
    assert found.laws[0].fit.exists
    assert "run the same sweep command again" in to_text(found)
    json.dumps(to_json(found), allow_nan=False)


def test_nothing_to_analyse_is_a_sentence(frame: pd.DataFrame) -> None:
    found = analyze(frame.iloc[:0], FACTS, Information())
    assert to_text(found).endswith(".")
    json.dumps(to_json(found), allow_nan=False)
    alone = analyze(frame[frame["base_method"] != "full"], FACTS, Information())
    assert "No full-data baseline" in to_text(alone)
