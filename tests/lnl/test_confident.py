from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ddnl_ray.lnl.confident import class_thresholds, confident_joint, confusions, suspects


def ideal(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Labels, the probabilities of a perfect network and the truth for given counts by observed and true class."""
    given, true = (np.repeat(cells.ravel(), counts.ravel()) for cells in np.indices(counts.shape))
    transition = counts / counts.sum(axis=0)
    return given, transition.T[true].copy(), true


ASYMMETRIC = np.array([[60, 0, 20], [30, 70, 0], [10, 5, 80]])


def test_thresholds_by_hand() -> None:
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    np.testing.assert_allclose(class_thresholds(labels, probabilities), [0.7, 0.8, np.inf])
    np.testing.assert_allclose(class_thresholds(labels, probabilities, np.array([3.0, 1, 0])), [0.8, np.inf, np.inf])


@pytest.mark.parametrize(
    "counts", [ASYMMETRIC, np.full((4, 4), 5) + 40 * np.eye(4, dtype=np.int64), np.diag([3, 9, 6])], ids=str
)
def test_the_joint_of_a_perfect_network_is_exact(counts: NDArray[np.int64]) -> None:
    labels, probabilities, _ = ideal(counts)
    np.testing.assert_allclose(confident_joint(labels, probabilities), counts / counts.sum(), atol=1e-12)


def test_weights_count_samples_as_repetitions_do() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=40)
    probabilities = rng.dirichlet(np.ones(3), 40)
    weights = rng.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), weights)
    np.testing.assert_allclose(
        confident_joint(labels, probabilities, weights.astype(float)),
        confident_joint(labels[repeated], probabilities[repeated]),
        atol=1e-12,
    )


def test_a_class_that_no_sample_reaches_keeps_its_labels() -> None:
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2]])
    # The sample of class 1 is below the threshold of class 0 (0.9) and at its own (0.2).
    np.testing.assert_allclose(confident_joint(labels, probabilities), [[2 / 3, 0], [0, 1 / 3]])
    probabilities[2] = [0.0, 0.0]
    assert np.trace(confident_joint(labels, probabilities)) == pytest.approx(1)


def test_confusions_are_counted_and_ordered() -> None:
    labels, probabilities, _ = ideal(ASYMMETRIC)
    found = confusions(confident_joint(labels, probabilities), len(labels))
    assert [(pair.given, pair.likely, pair.count) for pair in found] == [(1, 0, 30), (0, 2, 20), (2, 0, 10), (2, 1, 5)]
    assert [pair.share for pair in found] == pytest.approx([0.3, 0.25, 10 / 95, 5 / 95])


def test_suspects_of_a_perfect_network_are_the_wrong_labels() -> None:
    labels, probabilities, true = ideal(ASYMMETRIC)
    probabilities += np.linspace(0, 1e-9, len(labels))[:, None] * [1, 0, 0]  # tells samples of one kind apart
    found = suspects(labels, probabilities, confident_joint(labels, probabilities))
    assert sorted(suspect.row for suspect in found) == np.flatnonzero(labels != true).tolist()
    assert all(suspect.suggested == true[suspect.row] for suspect in found)
    assert all(suspect.given == labels[suspect.row] for suspect in found)
    scores = [suspect.score for suspect in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 < min(scores) <= max(scores) <= 1


def test_a_label_that_is_the_most_probable_class_is_never_suspect() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8]])
    assert suspects(labels, probabilities, np.array([[0.25, 0.25], [0.25, 0.25]])) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_and_the_suspects_are_those_of_the_authors_library(seed: int) -> None:
    """The library rounds its counts, and knows no tie; its suspects are ours but for a label per pair of classes."""
    count = pytest.importorskip("cleanlab.count")
    library = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 600)
    labels = np.where(rng.random(600) < 0.3, rng.integers(0, 4, 600), truth)
    scores = rng.normal(size=(600, 4)) + 3 * np.eye(4)[truth]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    joint = confident_joint(labels, probabilities)
    counted = count.compute_confident_joint(labels, probabilities, calibrate=True)
    assert np.abs(600 * joint - counted).max() <= 1
    theirs = library.find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    ours = np.zeros(600, dtype=np.bool_)
    ours[[suspect.row for suspect in suspects(labels, probabilities, joint)]] = True
    assert 100 < ours.sum() < 200
    assert (ours != theirs).sum() <= 4 * 3
