from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from analysis.theory import redundancy
from analysis.theory.estimate import Resampling
from analysis.theory.redundancy import (
    clusters,
    effective_rank,
    influence,
    influence_projected,
    random_projection,
)
from ddnl_ray.errors import RequestError

FEW = Resampling(draws=200)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_clusters_of_copies_are_one_over_the_copies(copies: int) -> None:
    embeddings = rng().permutation(np.repeat(rng(1).normal(size=(30, 16)), copies, axis=0))
    found = clusters(embeddings, rng(), resampling=FEW)
    assert found.value == found.low == found.high == pytest.approx(1 / copies)
    assert (found.units, found.n) == ("fraction", 30)
    assert found.inputs == {"threshold": 0.95, "samples": 30 * copies, "largest": pytest.approx(1 / 30)}


def test_clusters_join_cosines_at_the_threshold_and_chains() -> None:
    angles = np.deg2rad([0.0, 10.0, 20.0, 90.0])
    embeddings = np.column_stack([np.cos(angles), np.sin(angles)]) * [[1.0], [5.0], [0.1], [2.0]]
    just = math.cos(math.radians(10.0))
    for threshold, count in ((just, 2), (just + 1e-6, 4), (math.cos(math.radians(70.0)), 1)):
        assert clusters(embeddings, rng(), threshold=threshold, resampling=FEW).n == count


def test_clusters_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = rng(2).normal(size=(60, 3))
    whole = clusters(embeddings, rng(), threshold=0.97, resampling=FEW)
    monkeypatch.setattr(redundancy, "_BLOCK", 60 * 7)
    assert 5 < whole.n < 55
    assert clusters(embeddings, rng(), threshold=0.97, resampling=FEW) == whole


def test_clusters_cover_the_share_of_a_population_of_random_sizes() -> None:
    # sizes of 1 to 5, equally likely: 1 / E[size] = 1/3
    covered = 0
    for seed in range(40):
        generator = rng(seed)
        sizes = generator.integers(1, 6, 40)
        found = clusters(np.repeat(generator.normal(size=(40, 20)), sizes, axis=0), generator, resampling=FEW)
        covered += found.low <= 1 / 3 <= found.high
    assert covered >= 32


def test_clusters_refuse_what_has_no_cosine() -> None:
    with pytest.raises(ValueError, match="2 embeddings are zero and have no cosine"):
        clusters([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], rng())
    for threshold in (-1.0, 1.1):
        with pytest.raises(RequestError, match=f"threshold must be a cosine in .* but got {threshold}"):
            clusters(np.eye(3), rng(), threshold=threshold)


def test_effective_rank_of_known_spectra() -> None:
    # the vertices of a simplex: n - 1 equal directions
    simplex = effective_rank(np.eye(8), rng(), resampling=FEW)
    assert simplex.value == pytest.approx(7 / 8)
    assert simplex.value == pytest.approx(float(simplex.inputs["ceiling"]))
    line = effective_rank(np.outer(np.arange(10.0), [1.0, 2.0, 3.0]), rng(), resampling=FEW)
    assert line.value == pytest.approx(1 / 10)
    # variances 3 and 1 over four samples
    cross = np.array([[math.sqrt(3), 0], [-math.sqrt(3), 0], [0, 1], [0, -1]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(cross, rng(), resampling=FEW).inputs["rank"] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)])
def test_effective_rank_is_divided_by_the_copies(shape: tuple[int, int]) -> None:
    embeddings = rng(3).normal(size=shape)
    plain = effective_rank(embeddings, rng(), resampling=FEW)
    copied = effective_rank(np.repeat(embeddings, 4, axis=0), rng(), resampling=FEW)
    assert copied.value == pytest.approx(plain.value / 4)
    assert (copied.units, copied.n) == ("fraction", 4 * shape[0])


def test_effective_rank_covers_the_rank_of_the_population() -> None:
    scales = np.array([3.0, 2.0, 1.0, 0.5])
    shares = scales**2 / (scales**2).sum()
    truth = math.exp(-(shares * np.log(shares)).sum()) / 200
    covered = 0
    for seed in range(40):
        found = effective_rank(rng(seed).normal(size=(200, 4)) * scales, rng(seed + 1000), resampling=FEW)
        covered += found.low <= truth <= found.high
    assert covered >= 32


def test_effective_rank_of_equal_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="embeddings are all equal"):
        effective_rank(np.full((5, 3), 0.1), rng())


def test_influence_of_copies_is_one_and_of_opposites_zero() -> None:
    embeddings, probabilities = np.tile([[1.0, -2.0]], (6, 1)), np.full((6, 2), 0.5)
    labels = np.array([0, 1] * 3)
    opposite = influence(embeddings, probabilities, labels, rng(), resampling=FEW)
    assert opposite.value == pytest.approx(0.0, abs=1e-12)
    gradients = np.tile([[1.0, 2.0, 3.0]], (6, 1))
    same = influence_projected(gradients, rng(), resampling=FEW)
    assert same.value == same.high == pytest.approx(1.0)
    assert same.low == pytest.approx(1.0)
    signs = np.array([1, -1] * 3)[:, None]
    assert influence_projected(signs * gradients, rng(), resampling=FEW).value == pytest.approx(0.0, abs=1e-12)


def test_influence_on_the_last_layer_of_copies_of_one_sample() -> None:
    # one sample of the other class, with nearly no error, so that two labels occur
    embeddings = np.concatenate([np.tile([[1.0, -2.0]], (40, 1)), [[0.0, 1.0]]])
    probabilities = np.concatenate([np.full((40, 2), 0.5), [[1e-9, 1 - 1e-9]]])
    found = influence(embeddings, probabilities, np.array([0] * 40 + [1]), rng(), resampling=FEW)
    assert found.value == pytest.approx(1.0, abs=1e-6)
    assert (found.units, found.n, found.inputs["parameters"]) == ("fraction", 41, 6)


def test_orthogonal_influences_of_one_length_give_one_over_the_root_of_n() -> None:
    assert influence_projected(np.eye(9), rng(), resampling=FEW).value == pytest.approx(1 / 3)


def numeric_influences(embeddings: np.ndarray, weights: np.ndarray, labels: np.ndarray, damping: float) -> np.ndarray:
    """Damped influences with the Hessian of the mean loss by finite differences of its gradient."""
    inputs = np.column_stack([embeddings, np.ones(len(embeddings))])

    def gradients(flat: np.ndarray) -> np.ndarray:
        errors = softmax(inputs @ flat.reshape(weights.shape).T, axis=1) - np.eye(len(weights))[labels]
        return np.einsum("nc,nd->ncd", errors, inputs).reshape(len(inputs), -1)

    def loss(flat: np.ndarray) -> float:
        logits = inputs @ flat.reshape(weights.shape).T
        return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())

    flat, step = weights.ravel(), 1e-5 * np.eye(weights.size)
    slopes = [(loss(flat + e) - loss(flat - e)) / 2e-5 for e in step]
    assert gradients(flat).mean(axis=0) == pytest.approx(slopes, abs=1e-8)
    rows = [(gradients(flat + e) - gradients(flat - e)).mean(axis=0) / 2e-5 for e in step]
    hessian = np.stack(rows)
    ridge = damping * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    return np.linalg.solve(hessian + ridge, gradients(flat).T).T


def test_influence_agrees_with_a_hessian_by_finite_differences() -> None:
    embeddings, weights, labels = rng(4).normal(size=(30, 3)), rng(5).normal(size=(3, 4)), np.arange(30) % 3
    probabilities = softmax(np.column_stack([embeddings, np.ones(30)]) @ weights.T, axis=1)
    effects = numeric_influences(embeddings, weights, labels, 0.1)
    expected = np.linalg.norm(effects.sum(axis=0)) / np.linalg.norm(effects, axis=1).sum()
    found = influence(embeddings, probabilities, labels, rng(), damping=0.1, resampling=FEW)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert 0.05 < found.value < 0.95


def test_influence_covers_the_alignment_of_the_population() -> None:
    # with a Fisher matrix of nearly one multiple of I the ratio is |E g| / E|g|; large damping gets there
    shift = np.array([1.0, 0.0, 0.0])
    draw = rng(9).normal(size=(400_000, 3)) + shift
    truth = float(np.linalg.norm(draw.mean(axis=0)) / np.linalg.norm(draw, axis=1).mean())
    covered = 0
    for seed in range(40):
        generator = rng(seed)
        found = influence_projected(generator.normal(size=(80, 3)) + shift, generator, damping=1e6, resampling=FEW)
        covered += found.low <= truth <= found.high
    assert covered >= 32


def test_projections_keep_squared_norms_and_directions_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = rng(6).normal(size=(3, 500))
    monkeypatch.setattr(redundancy, "_BLOCK", 400 * 64)
    projected = random_projection(gradients, 400, rng())
    assert projected.shape == (3, 400)
    # each inner product has relative spread of about sqrt(2 / 400)
    assert projected @ projected.T == pytest.approx(gradients @ gradients.T, abs=4 * 500 * math.sqrt(2 / 400))
    assert (random_projection(gradients, 500, rng()) == gradients).all()


def test_projected_influences_approach_those_of_all_parameters() -> None:
    gradients = rng(7).normal(size=(60, 2000)) + 0.15
    exact = influence_projected(gradients, rng(), dimension=2000, damping=1e6, resampling=FEW)
    near = influence_projected(gradients, rng(), dimension=600, damping=1e6, resampling=FEW)
    assert near.value == pytest.approx(exact.value, abs=0.05)
    assert near.inputs["parameters"] == 600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((5, 2))}, "got 5 embeddings but 4 predictions"),
        ({"embeddings": np.ones((4, 5000))}, "10002 parameters, more than 8192"),
        ({"probabilities": np.eye(2)[[0, 1, 0, 1]]}, "there is no influence to compare"),
        ({"labels": np.array([0, 1, 2, 1])}, r"from 0 below 2 but got 0\.\.2"),
        ({"damping": 0.0}, "damping must be above 0 but got 0.0"),
    ],
)
def test_influence_refusals_name_the_next_step(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"embeddings": np.ones((4, 2)), "probabilities": np.full((4, 2), 0.5)}
    arguments |= {"labels": np.array([0, 1, 0, 1]), "rng": rng()} | change
    with pytest.raises(ValueError, match=message):
        influence(**arguments)


def test_influence_projected_refusals_name_the_next_step() -> None:
    with pytest.raises(ValueError, match="there is no influence to compare"):
        influence_projected(np.zeros((4, 3)), rng())
    with pytest.raises(RequestError, match="dimension must be at least 1 but got 0"):
        influence_projected(np.eye(3), rng(), dimension=0)
    with pytest.raises(RequestError, match="damping must be above 0"):
        influence_projected(np.eye(3), rng(), damping=-1.0)
