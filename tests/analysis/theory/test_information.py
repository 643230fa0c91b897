from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from analysis.theory.estimate import Resampling
from analysis.theory.information import few_shot, information_bottleneck, pac_bayes
from analysis.theory.measures import fano, mutual_information
from ddnl_ray.errors import RequestError

FEW = Resampling(draws=200)
CHANNEL = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
CHANNEL_INFORMATION = fano(0.3, 4)
"""Fano's bound is tight for a symmetric channel with balanced classes."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def predictions(seeds: int, samples: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices [S, 4, 4] of the symmetric channel, and their accuracies [S]."""
    tables = generator.multinomial(samples, CHANNEL, size=(seeds, 4))
    return tables, np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2))


def clusters(n: int, generator: np.random.Generator, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian clusters of unit covariance with means one to the left and to the right of the origin."""
    labels = np.arange(n) % 2
    latents = generator.normal(size=(n, width))
    latents[:, 0] += 2 * labels - 1
    return latents, labels


def clusters_information() -> float:
    """log 2 - E log(1 + exp(-2 z)), z ~ N(1, 1): the posterior is the logistic function of 2 z."""
    noise = integrate.quad(lambda z: stats.norm.pdf(z, 1) * np.logaddexp(0, -2 * z), -10, 12)[0]
    return math.log(2) - float(noise)


def test_few_shot_takes_the_information_at_the_first_number_above_chance() -> None:
    tables, beating = predictions(3, 100, rng())
    accuracies = {1: [0.24, 0.25, 0.26], 5: beating, 10: [0.9, 0.91, 0.92]}
    found = few_shot(accuracies, {5: tables}, 0.25, rng(), resampling=FEW)
    assert (found.units, found.n, found.inputs["ipc"], found.inputs["is_censored"]) == ("nats", 3, 5, 0)
    assert found.value == pytest.approx(mutual_information(tables).mean())
    assert found.inputs["plug_in"] == pytest.approx(mutual_information(tables, is_corrected=False).mean())
    assert found.inputs["fano"] == pytest.approx(np.mean([fano(1 - accuracy, 4) for accuracy in beating]))
    assert found.low < found.value < found.high


def test_few_shot_at_the_smallest_number_run_is_censored() -> None:
    tables, beating = predictions(3, 100, rng())
    assert few_shot({1: beating}, {1: tables}, 0.25, rng(), resampling=FEW).inputs["is_censored"] == 1


def test_few_shot_averages_seeds_and_does_not_pool_their_tables() -> None:
    swapped = np.array([[[50, 0, 0], [0, 40, 10], [0, 10, 40]], [[40, 10, 0], [10, 40, 0], [0, 0, 50]]])
    found = few_shot({1: [13 / 15, 13 / 15]}, {1: swapped}, 1 / 3, rng(), resampling=FEW)
    assert found.value == pytest.approx(float(mutual_information(swapped[0])))
    assert found.value > float(mutual_information(swapped.sum(axis=0)))


def test_few_shot_covers_the_information_of_a_known_channel() -> None:
    covered = 0
    for seed in range(40):
        generator = rng(seed)
        tables, beating = predictions(8, 60, generator)
        found = few_shot({1: beating}, {1: tables}, 0.25, generator, resampling=FEW)
        covered += found.low <= CHANNEL_INFORMATION <= found.high
    assert covered >= 32


def test_few_shot_refusals_name_the_next_step() -> None:
    tables, beating = predictions(3, 100, rng())
    with pytest.raises(ValueError, match=r"5 images .* has no confusion matrices \(only \[7\]\); evaluate"):
        few_shot({5: beating}, {7: tables}, 0.25, rng())
    with pytest.raises(ValueError, match=r"shape \[3, C, C\], one per seed, but got \[2, 4, 4\]"):
        few_shot({5: beating}, {5: tables[:2]}, 0.25, rng())
    with pytest.raises(ValueError, match="seeds in the same order"):
        few_shot({5: beating}, {5: tables[:, ::-1]}, 0.25, rng())
    with pytest.raises(ValueError, match="pass counts, not rates"):
        few_shot({5: beating}, {5: tables / 10 + 0.05}, 0.25, rng())
    with pytest.raises(ValueError, match="beats chance"):
        few_shot({5: [0.2, 0.3]}, {5: tables}, 0.25, rng())
    constant = np.array([[[6, 0], [4, 0]]] * 2)
    with pytest.raises(ValueError, match="all of it bias of 10 test samples"):
        few_shot({5: [0.6, 0.6]}, {5: constant}, 0.5, rng())


@given(st.floats(0.01, 3), st.integers(2, 20), st.integers(1, 50))
def test_pac_bayes_inverts_the_bound_exactly(divergence: float, classes: int, ipc: int) -> None:
    images = classes * ipc
    gap = math.sqrt((divergence + math.log(2 * math.sqrt(images) / 0.1)) / (2 * images))
    if gap <= 1:
        found = pac_bayes(gap, images, classes, rng(), delta=0.1)
        assert found.value * classes == pytest.approx(divergence, abs=1e-9)
        assert found.low == found.high == found.value
        assert found.units == "nats"


def test_pac_bayes_is_zero_where_the_confidence_term_exceeds_the_target() -> None:
    found = pac_bayes(0.05, 100, 10, rng())
    assert found.value == 0
    assert found.inputs["total"] == pytest.approx(2 * 100 * 0.05**2 - math.log(2 * 10 / 0.05))


def test_pac_bayes_of_measured_gaps_covers_the_value_at_the_true_gap() -> None:
    truth = pac_bayes(0.4, 1000, 10, rng()).value
    covered = 0
    for seed in range(40):
        found = pac_bayes(rng(seed).normal(0.4, 0.02, 12), 1000, 10, rng(seed + 1000), resampling=FEW)
        covered += found.low <= truth <= found.high
        assert found.n == 12
    assert covered >= 32


@pytest.mark.parametrize(
    ("gap", "message"),
    [
        ([0.1], "at least 2 seeds but got shape"),
        ([], "at least 2 seeds"),
        ([[0.1, 0.2]], "at least 2 seeds"),
        (0.0, "a mean above 0 but got 0.0"),
        ([-0.2, 0.1], "a mean above 0"),
        (20.0, "must lie in"),
        (math.nan, "must lie in"),
    ],
)
def test_pac_bayes_of_what_is_no_gap_is_refused(gap: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pac_bayes(gap, 100, 10, rng())


@pytest.mark.parametrize(
    "change", [{"delta": 0.0}, {"delta": 1.0}, {"images": 9}, {"classes": 1}], ids=["sure", "never", "images", "class"]
)
def test_pac_bayes_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"but got"):
        pac_bayes(**({"gap": 0.1, "images": 100, "classes": 10, "rng": rng()} | change))


@pytest.mark.parametrize("density", ["gaussian", "neighbours"])
def test_information_of_two_clusters_is_found_and_covered(density: Any) -> None:
    truth = clusters_information()
    found = []
    for seed in range(20):
        generator = rng(seed)
        found.append(information_bottleneck(*clusters(400, generator), generator, density=density, resampling=FEW))
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.03)
    assert sum(each.low <= truth <= each.high for each in found) >= 16
    assert {(each.units, each.n) for each in found} == {("nats", 400)}


@pytest.mark.parametrize("density", ["gaussian", "neighbours"])
def test_separate_clusters_hold_the_label_entropy_and_no_more(density: Any) -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 30])
    latents = rng().normal(size=(120, 4)) + 100 * np.eye(4)[labels]
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)
    found = information_bottleneck(latents, labels, rng(), density=density, resampling=FEW)
    assert found.value == pytest.approx(entropy, abs=0.03)
    assert found.high <= entropy + 1e-9


@pytest.mark.parametrize("density", ["gaussian", "neighbours"])
def test_latents_that_ignore_the_labels_hold_nothing(density: Any) -> None:
    latents = rng(1).normal(size=(600, 3))
    found = information_bottleneck(latents, np.arange(600) % 3, rng(), density=density, resampling=FEW)
    assert found.value == pytest.approx(0.0, abs=0.03)
    assert found.low == 0


def test_one_gaussian_marginal_can_exceed_the_label_entropy() -> None:
    latents, labels = clusters(400, rng())
    near = information_bottleneck(latents, labels, rng(), resampling=FEW)
    # class variance 1 in a total of 1 + 1
    assert near.inputs["gaussian_marginal"] == pytest.approx(0.5 * math.log(2), abs=0.05)
    latents[:, 0] += 9 * (2 * labels - 1)
    far = information_bottleneck(latents, labels, rng(), resampling=FEW)
    # class variance 1 in a total of 1 + 100
    assert far.inputs["gaussian_marginal"] == pytest.approx(0.5 * math.log(101), abs=0.1)
    assert float(far.inputs["gaussian_marginal"]) > math.log(2) >= far.value


def test_steep_spectra_do_not_change_the_gaussian_information() -> None:
    latents, labels = clusters(400, rng())
    plain, steep = (
        information_bottleneck(latents * scales, labels, rng(), resampling=FEW)
        for scales in ([1.0, 1.0, 1.0], [1.0, 30.0, 1000.0])
    )
    assert steep.value == pytest.approx(plain.value, abs=0.01)
    assert steep.inputs["gaussian_marginal"] == pytest.approx(plain.inputs["gaussian_marginal"], abs=0.01)


def test_latents_are_reduced_to_components_that_exist() -> None:
    latents, labels = clusters(100, rng(), width=4)
    wide = np.concatenate([latents, latents, np.zeros((100, 2))], axis=1)
    assert information_bottleneck(wide, labels, rng(), resampling=FEW).inputs["components"] == 4
    reduced = information_bottleneck(wide * 1e-6, labels, rng(), components=2, resampling=FEW)
    assert reduced.inputs["components"] == 2
    spectrum = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False) ** 2
    assert reduced.inputs["variance"] == pytest.approx(spectrum[:2].sum() / spectrum.sum())


def test_names_of_classes_do_not_matter() -> None:
    latents, labels = clusters(60, rng())
    plain = information_bottleneck(latents, labels, rng(), resampling=FEW)
    assert information_bottleneck(latents, 7 * labels + 2, rng(), resampling=FEW) == plain


def test_information_bottleneck_refusals_name_the_next_step() -> None:
    latents, labels = clusters(20, rng())
    with pytest.raises(ValueError, match="latents are constant"):
        information_bottleneck(np.full((20, 2), 0.1), labels, rng())
    with pytest.raises(ValueError, match="need 12 samples of a class but one has 10; use fewer folds"):
        information_bottleneck(latents, labels, rng(), folds=11)
    with pytest.raises(ValueError, match="need 11 samples of a class but class 0 has 10; use fewer neighbours"):
        information_bottleneck(latents, labels, rng(), density="neighbours", neighbours=10)
    with pytest.raises(ValueError, match="no spread within the classes in some of 1 directions; use fewer"):
        information_bottleneck(labels[:, None] * 1.0, labels, rng())
    with pytest.raises(ValueError, match="drop the duplicates"):
        information_bottleneck(np.repeat(latents, 5, axis=0), np.repeat(labels, 5), rng(), density="neighbours")
    with pytest.raises(ValueError, match="row 3 is not"):
        information_bottleneck(np.where(np.arange(20)[:, None] == 3, np.nan, latents), labels, rng())
    with pytest.raises(ValueError, match="at least 2 classes"):
        information_bottleneck(latents, np.zeros(20, dtype=int), rng())
    with pytest.raises(RequestError, match="unknown density 'knn'"):
        information_bottleneck(latents, labels, rng(), density="knn")  # type: ignore[arg-type]
    for name, size in (("components", 0), ("folds", 1), ("neighbours", 0)):
        with pytest.raises(RequestError, match=f"{name} must be at least"):
            information_bottleneck(latents, labels, rng(), **{name: size})  # type: ignore[arg-type]


def test_the_same_generator_gives_the_same_estimate() -> None:
    latents, labels = clusters(60, rng())
    assert information_bottleneck(latents, labels, rng(3)) == information_bottleneck(latents, labels, rng(3))
