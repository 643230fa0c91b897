from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit

from analysis.theory.clean import contrastive, gradient, teacher
from analysis.theory.estimate import Resampling
from ddnl_ray.errors import RequestError

FEW = Resampling(draws=200)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def posterior(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The exact p(y|x) of two unit Gaussians at -1 and 1, and the labels."""
    labels = np.arange(n) % 2
    right = expit(2 * (generator.normal(size=n) + 2 * labels - 1))
    return np.column_stack([1 - right, right]), labels


def information() -> float:
    noise = integrate.quad(lambda z: stats.norm.pdf(z, 1) * np.logaddexp(0, -2 * z), -10, 12)[0]
    return math.log(2) - float(noise)


@pytest.mark.parametrize("bound", ["infonce", "classifier"])
def test_the_bounds_of_an_exact_posterior_reach_and_cover_the_information(bound: Any) -> None:
    truth, found = information(), []
    for seed in range(40):
        generator = rng(seed)
        found.append(contrastive(*posterior(512, generator), generator, bound=bound, resampling=FEW))
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.01)
    assert sum(each.low <= truth <= each.high for each in found) >= 32
    assert {(each.units, each.n) for each in found} == {("nats", 512)}


def test_infonce_of_a_small_batch_stays_below_its_ceiling() -> None:
    labels = np.arange(400) % 100
    certain = np.full((400, 100), 1e-6)
    certain[np.arange(400), labels] = 1 - 99e-6
    small = contrastive(certain, labels, rng(), batch=4, resampling=FEW)
    assert small.inputs["ceiling"] == pytest.approx(math.log(4))
    assert 0.9 * math.log(4) < small.value <= small.high <= math.log(4)
    full = contrastive(certain, labels, rng(), bound="classifier", resampling=FEW)
    assert full.inputs["ceiling"] == pytest.approx(math.log(100))
    assert full.value == pytest.approx(math.log(100) + math.log(1 - 99e-6))


def test_infonce_leaves_out_the_last_part_of_a_batch() -> None:
    probabilities, labels = posterior(105, rng())
    assert contrastive(probabilities, labels, rng(), batch=20, resampling=FEW).n == 100


def test_the_classifier_bound_of_unbalanced_classes_starts_from_their_entropy() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    rows = np.where(labels[:, None] == 0, [0.8, 0.2], [0.4, 0.6])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) + 0.75 * math.log(0.8) + 0.25 * math.log(0.6)
    assert contrastive(rows, labels, rng(), bound="classifier", resampling=FEW).value == pytest.approx(expected)


def test_certain_predictions_of_other_classes_are_allowed() -> None:
    labels = np.arange(64) % 2
    found = contrastive(np.eye(2)[labels], labels, rng(), batch=64, resampling=FEW)
    assert found.value == pytest.approx(math.log(2))


def test_a_class_without_samples_does_not_matter() -> None:
    probabilities, labels = posterior(64, rng())
    wide = np.column_stack([probabilities, np.zeros(64)])
    narrow = contrastive(probabilities, labels, rng(), batch=32, resampling=FEW)
    assert contrastive(wide, labels, rng(), batch=32, resampling=FEW).value == pytest.approx(narrow.value)


def test_contrastive_refusals_name_the_next_step() -> None:
    probabilities, labels = posterior(64, rng())
    with pytest.raises(ValueError, match="a batch is of 256 pairs but got 64 samples"):
        contrastive(probabilities, labels, rng())
    with pytest.raises(ValueError, match="the label of 64 samples has probability 0"):
        contrastive(np.eye(2)[1 - labels], labels, rng())
    with pytest.raises(ValueError, match=r"the classifier bound is -.* calibrate"):
        contrastive(probabilities, 1 - labels, rng(), bound="classifier")
    with pytest.raises(ValueError, match="the infonce bound is"):
        contrastive(np.full((64, 2), 0.5), labels, rng(), batch=32)
    with pytest.raises(ValueError, match="not logits"):
        contrastive(5 * probabilities, labels, rng())
    with pytest.raises(ValueError, match=r"from 0 below 2 but got 0\.\.2"):
        contrastive(probabilities, 2 * labels, rng())
    with pytest.raises(RequestError, match="unknown bound 'mine'"):
        contrastive(probabilities, labels, rng(), bound="mine")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="batch must be at least 2 but got 1"):
        contrastive(probabilities, labels, rng(), batch=1)


def test_teacher_of_known_entropies() -> None:
    rows = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]])
    binary = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    found = teacher(rows, rng(), resampling=FEW)
    assert found.value == pytest.approx(math.log(2) - (binary + math.log(2)) / 2)
    assert (found.units, found.n, found.inputs["prior"]) == ("nats", 4, "mean prediction")
    assert found.inputs["marginal"] == pytest.approx(math.log(2))
    assert teacher(np.repeat(np.eye(5), 3, axis=0), rng(), resampling=FEW).value == pytest.approx(math.log(5))


def test_teacher_with_a_prior_uses_its_entropy() -> None:
    rows = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    binary = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    found = teacher(rows, rng(), prior=[0.5, 0.5], resampling=FEW)
    assert found.value == pytest.approx(math.log(2) - binary)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12)
    assert found.inputs["prior"] == "given"


def test_teacher_that_is_exact_reaches_and_covers_the_information() -> None:
    truth, found = information(), []
    for seed in range(40):
        generator = rng(seed)
        found.append(teacher(posterior(300, generator)[0], generator, resampling=FEW))
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.01)
    assert sum(each.low <= truth <= each.high for each in found) >= 32


def test_teacher_refusals_name_the_next_step() -> None:
    with pytest.raises(ValueError, match="no more certain than its prior"):
        teacher(np.full((5, 3), 1 / 3), rng())
    with pytest.raises(ValueError, match="no more certain than its prior"):
        teacher(np.full((5, 2), 0.5), rng(), prior=[0.9, 0.1])
    with pytest.raises(ValueError, match="a prior must be 2 probabilities"):
        teacher(np.eye(2), rng(), prior=[0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="a prior must be 2 probabilities"):
        teacher(np.eye(2), rng(), prior=[0.5, 0.6])
    with pytest.raises(ValueError, match="not logits"):
        teacher([[2.0, -1.0], [0.0, 1.0]], rng())


def test_gradient_is_the_mean_norm_in_relative_units() -> None:
    found = gradient([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]], rng(), resampling=FEW)
    assert found.value == pytest.approx(2.0)
    assert (found.units, found.n, found.inputs) == ("relative", 3, {"parameters": 2})


def test_gradient_scales_with_the_loss_so_that_ratios_are_kept() -> None:
    gradients = rng().normal(size=(50, 8))
    plain, scaled = (gradient(factor * gradients, rng(), resampling=FEW) for factor in (1.0, 7.0))
    assert [scaled.value, scaled.low, scaled.high] == pytest.approx([7 * plain.value, 7 * plain.low, 7 * plain.high])


def test_gradient_covers_the_expected_norm() -> None:
    truth = math.sqrt(2) * math.gamma(2) / math.gamma(1.5)  # of three standard normals
    covered = 0
    for seed in range(40):
        found = gradient(rng(seed).normal(size=(60, 3)), rng(seed + 1000), resampling=FEW)
        covered += found.low <= truth <= found.high
    assert covered >= 32


def test_gradient_refusals_name_the_next_step() -> None:
    with pytest.raises(ValueError, match="all gradients are zero"):
        gradient(np.zeros((4, 2)), rng())
    with pytest.raises(ValueError, match="flatten all axes but the first"):
        gradient(np.zeros((4, 2, 2)), rng())
