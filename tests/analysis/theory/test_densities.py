from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.covariance import LedoitWolf
from sklearn.feature_selection import mutual_info_classif

from analysis.theory.densities import ShrunkGaussian, gaussian_entropy, neighbour_terms, within_factor


def test_log_density_agrees_with_a_second_implementation() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)) + 2
    fitted = LedoitWolf().fit(samples)
    oracle = stats.multivariate_normal(fitted.location_, fitted.covariance_)
    gaussian = ShrunkGaussian.fit(samples)
    assert gaussian.log_density(samples) == pytest.approx(oracle.logpdf(samples))
    assert gaussian.entropy == pytest.approx(float(oracle.entropy()))


def test_gaussian_entropy_approaches_the_truth() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(4000, 2)) * [0.5, 3.0]
    truth = math.log(2 * math.pi * math.e) + math.log(0.5 * 3.0)
    assert gaussian_entropy(samples) == pytest.approx(truth, abs=0.04)
    assert gaussian_entropy(10 * samples) - gaussian_entropy(samples) == pytest.approx(2 * math.log(10))


def test_fewer_samples_than_dimensions_have_an_entropy() -> None:
    assert math.isfinite(gaussian_entropy(np.random.default_rng(2).normal(size=(3, 8))))


@pytest.mark.parametrize("samples", [np.zeros((1, 2)), np.ones((5, 2))])
def test_a_gaussian_of_coinciding_samples_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"at least 2 different samples but got {len(samples)}"):
        gaussian_entropy(samples)


def test_samples_divided_by_the_within_factor_have_unit_covariance_within_classes() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    samples = np.random.default_rng(5).normal(size=(60, 3)) * [0.01, 1.0, 50.0] + labels[:, None]
    white = np.linalg.solve(within_factor(samples, labels), samples.T).T
    pooled = sum(np.cov(white[labels == k].T, bias=True) * np.mean(labels == k) for k in range(3))
    assert pooled == pytest.approx(np.eye(3), abs=1e-9)


def test_classes_without_spread_are_refused() -> None:
    labels = np.repeat([0, 1], 5)
    with pytest.raises(ValueError, match="10 samples of 2 classes have no spread within the classes in some of 2"):
        within_factor(np.column_stack([np.arange(10.0), labels]), labels)


def test_neighbours_agree_with_a_second_implementation_in_one_dimension() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 300)
    samples = rng.normal(size=(300, 1)) + labels[:, None]
    oracle = mutual_info_classif(samples, labels, discrete_features=False, n_neighbors=4, random_state=0)[0]
    assert neighbour_terms(samples, labels, 4).mean() == pytest.approx(oracle, abs=1e-3)


def test_neighbours_find_the_integrated_information_of_two_clusters() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(2000) % 2
    samples = rng.normal(size=(2000, 2)) + np.where(labels[:, None] == 0, [-1.0, 0.0], [1.0, 0.0])
    # p(y|z) is the logistic function of 2 z: I = log 2 - E log(1 + exp(-2 z)), z ~ N(1, 1)
    noise = integrate.quad(lambda z: stats.norm.pdf(z, 1) * np.logaddexp(0, -2 * z), -10, 12)[0]
    assert neighbour_terms(samples, labels).mean() == pytest.approx(math.log(2) - noise, abs=0.04)


def test_a_class_without_enough_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="need 4 samples of a class but class 1 has 3"):
        neighbour_terms(np.arange(10.0)[:, None], np.array([0] * 7 + [1] * 3), 3)


def test_coinciding_samples_are_refused() -> None:
    samples = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5, 6], dtype=float)[:, None]
    with pytest.raises(ValueError, match="4 samples coincide with 3 others"):
        neighbour_terms(samples, np.array([0] * 5 + [1] * 5), 3)
