"""All nine estimators on evidence with known answers, and their refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from analysis.measure.record import QUANTITIES, Value
from analysis.measure.values import Evidence, MethodEvidence, describe, measure
from analysis.theory.estimate import Resampling
from ddnl_ray.seeds import SeedTree

FEW = Resampling(draws=40)
SEED = SeedTree.root(0)
Make = Callable[..., Evidence]
MakeMethod = Callable[..., MethodEvidence]


def by_name(values: tuple[Value, ...]) -> dict[str, Value]:
    return {value.estimator: value for value in values}


def number(value: Value) -> float:
    assert value.estimate is not None, value.reason
    return value.estimate.value


def test_all_nine_are_there_with_their_known_answers(evidence: Make) -> None:
    found = by_name(measure(evidence(), SEED, FEW))
    assert list(found) == [name for names in QUANTITIES.values() for name in names]
    assert number(found["contrastive"]) == pytest.approx(math.log(4), abs=0.01)
    assert number(found["teacher"]) == pytest.approx(math.log(4), abs=1e-5)
    assert number(found["gradient"]) == pytest.approx(3.0)
    assert number(found["clusters"]) == pytest.approx(4 / 120)
    assert number(found["effective_rank"]) == pytest.approx(3 / 120, rel=0.01)  # four points span three directions
    assert number(found["information_bottleneck"]) == pytest.approx(math.log(4), abs=0.01)
    joint = np.array([0.2, 0.05 / 3])  # right, wrong to each other class, of the mass 1/4 of a true class
    plug_in = math.log(4) + 4 * (joint[0] * math.log(joint[0] * 4) + 3 * joint[1] * math.log(joint[1] * 4))
    few_shot = found["few_shot"].estimate
    assert few_shot is not None
    assert few_shot.inputs["plug_in"] == pytest.approx(plug_in)
    assert few_shot.inputs["ipc"] == 10
    assert few_shot.inputs["retrained_differs_by"] == pytest.approx(0.004)
    total = 2 * 40 * 0.6**2 - math.log(2 * math.sqrt(40) / 0.05)
    assert number(found["pac_bayes"]) == pytest.approx(total / 4)


def test_units_are_said_and_gradients_are_relative(evidence: Make) -> None:
    found = by_name(measure(evidence(), SEED, FEW))
    units = {name: value.estimate.units for name, value in found.items() if value.estimate}
    assert units["gradient"] == "relative"
    assert {units[name] for name in QUANTITIES["redundancy"]} <= {"fraction"}
    assert {units[name] for name in ("few_shot", "pac_bayes", "contrastive", "teacher")} == {"nats"}
    assert "relative units" in describe(found["gradient"])
    assert found["gradient"].estimate is not None
    assert found["gradient"].estimate.inputs["parameters"] == 77


def test_the_same_seed_gives_the_same_values(evidence: Make) -> None:
    assert measure(evidence(), SEED, FEW) == measure(evidence(), SEED, FEW)


def test_what_is_undefined_is_a_sentence(evidence: Make, method: MakeMethod) -> None:
    small = {"gaps": np.full(5, 0.2), "images": 4}
    silent = MethodEvidence(reason="no number of images per class beats chance", ipc=None)
    found = measure(evidence(methods={"datm": method(**small), "mtt": silent}), SEED, FEW)
    said = {(value.estimator, value.method): value for value in found}
    gap = said[("pac_bayes", "datm")]
    assert gap.estimate is None
    assert "alone allows, so no information follows from it" in gap.reason
    assert said[("few_shot", "mtt")].reason == "No number of images per class beats chance."
    assert describe(said[("few_shot", "mtt")]).startswith("undefined. No number")
    latents = said[("information_bottleneck", "mtt")].estimate
    assert latents is not None
    assert latents.inputs["network"] == "reference"


def test_latents_of_distilled_sets_take_the_place_of_the_reference(evidence: Make, method: MakeMethod) -> None:
    noise = np.random.default_rng(1).standard_normal((120, 4))
    found = by_name(measure(evidence(methods={"datm": method(latents=noise)}), SEED, FEW))
    own = found["information_bottleneck"].estimate
    assert own is not None
    assert (own.inputs["network"], own.inputs["ipc"]) == ("distilled", 10)
    assert own.value < 0.2


def test_a_run_without_distilled_sets_still_has_the_others(evidence: Make) -> None:
    found = by_name(measure(evidence(methods={}), SEED, FEW))
    assert found["few_shot"].reason == "The run has no distilled set with a score on the test set."
    assert found["information_bottleneck"].estimate is not None
    assert found["clusters"].estimate is not None


def test_wide_last_layers_are_reduced_to_components(evidence: Make) -> None:
    latents = np.random.default_rng(0).standard_normal((120, 700))
    soft = np.full((120, 4), 0.1) + 0.6 * np.eye(4)[np.repeat(np.arange(4), 30)]
    found = by_name(measure(evidence(latents=latents, probabilities=soft), SEED, Resampling(draws=20)))
    own = found["influence"].estimate
    assert own is not None
    assert own.inputs["components"] == 2048 // 4 - 1
