"""Neighbour consistency: the closed form against the definition, neighbours against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.lnl.neighbours import jensen_shannon_onehot, nearest_neighbours, neighbour_consistency


def jensen_shannon(first: Tensor, second: Tensor) -> float:
    """The definition: the mean divergence (base 2) of two distributions from their mean."""
    middle = (first + second) / 2
    total = 0.0
    for own in (first, second):
        total += sum(p * math.log2(p / m) for p, m in zip(own.tolist(), middle.tolist(), strict=True) if p > 0) / 2
    return total


def vectors(num: int = 23, size: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predictions(num: int = 23, classes: int = 4, seed: int = 1) -> Tensor:
    return (4 * vectors(num, classes, seed)).softmax(1)


# --- Jensen-Shannon --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=7), st.data())
def test_the_closed_form_is_the_divergence_of_a_one_hot_label(logits: list[float], data: st.DataObject) -> None:
    p = torch.tensor(logits, dtype=torch.float64).softmax(0)
    label = data.draw(st.integers(0, len(logits) - 1))
    one_hot = torch.zeros_like(p)
    one_hot[label] = 1
    assert float(jensen_shannon_onehot(p[label])) == pytest.approx(jensen_shannon(one_hot, p), abs=1e-12)


def test_smoothing_the_label_by_1e_4_changes_little() -> None:
    for p in predictions():
        smooth = torch.full_like(p, 1e-4 / 3)
        smooth[2] = 1 - 1e-4
        assert float(jensen_shannon_onehot(p[2])) == pytest.approx(jensen_shannon(smooth, p), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_exact(dtype: torch.dtype) -> None:
    assert jensen_shannon_onehot(torch.tensor([0.0, 1.0], dtype=dtype)).tolist() == [1.0, 0.0]


def test_a_more_probable_label_is_nearer() -> None:
    grid = torch.linspace(0, 1, 10001, dtype=torch.float64)
    values = jensen_shannon_onehot(grid)
    assert bool((values[1:] < values[:-1]).all())


def test_single_precision_stays_between_0_and_1() -> None:
    """Just below 1, the rounded sum is negative for some."""
    near_1, near_0 = 1 - torch.arange(100000) * 2.0**-24, torch.logspace(-45, 0, 10000)
    values = jensen_shannon_onehot(torch.cat([near_1, near_0]))
    assert bool(((values >= 0) & (values <= 1)).all())


# --- neighbours ------------------------------------------------------------------------------------------------------


def brute_force(features: Tensor, k: int) -> list[list[int]]:
    found = []
    for i, own in enumerate(features):
        cosine = {j: float(own @ other / (own.norm() * other.norm())) for j, other in enumerate(features) if j != i}
        found.append(sorted(cosine, key=lambda j: -cosine[j])[:k])
    return found


@pytest.mark.parametrize("k", [1, 3, 22])
@pytest.mark.parametrize("chunk", [1, 23, 60, 10**6])
def test_neighbours_equal_brute_force_in_chunks_of_any_size(k: int, chunk: int) -> None:
    assert nearest_neighbours(vectors(), k, chunk).tolist() == brute_force(vectors(), k)


def test_an_image_is_not_its_own_neighbour_but_its_copy_is() -> None:
    features = torch.cat([vectors(6), 2 * vectors(6)])
    assert nearest_neighbours(features, 1).squeeze(1).tolist() == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]


def test_lengths_do_not_matter() -> None:
    lengths = torch.linspace(0.01, 100, 23, dtype=torch.float64).unsqueeze(1)
    assert torch.equal(nearest_neighbours(vectors() * lengths, 5), nearest_neighbours(vectors(), 5))


def test_dead_features_give_neighbours_too() -> None:
    features = vectors()
    features[3] = 0
    found = nearest_neighbours(features, 4)
    assert 3 not in found[3].tolist()
    assert len(set(found[3].tolist())) == 4


@pytest.mark.parametrize("k", [0, 23, 40])
def test_more_neighbours_than_there_are_is_an_error(k: int) -> None:
    with pytest.raises(RequestError, match=rf"neighbours must lie in \[1, 22\] with 23 images, but got {k}; lower it"):
        nearest_neighbours(vectors(), k)


# --- consistency -----------------------------------------------------------------------------------------------------


def test_consistency_equals_the_definition() -> None:
    features, p = vectors(), predictions()
    labels = torch.arange(23) % 4
    found = neighbour_consistency(features, p, labels, 5)
    for i, neighbours in enumerate(brute_force(features, 5)):
        one_hot = torch.zeros(4, dtype=torch.float64)
        one_hot[labels[i]] = 1
        divergence = sum(jensen_shannon(one_hot, p[j]) for j in neighbours) / 5
        assert float(found[i]) == pytest.approx(1 - divergence, abs=1e-12)


def test_consistency_is_1_among_friends_and_0_among_strangers() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0], [0.1, 1.0], [-0.1, 1.0]])
    p = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    assert neighbour_consistency(features, p, labels, 2).tolist() == [1, 1, 0, 1, 1, 0]
