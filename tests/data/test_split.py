from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnl_ray.data.split import stratified_holdout
from ddnl_ray.errors import DataError


@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), st.floats(0.05, 0.5), st.integers(0, 3))
def test_a_split_is_exact_disjoint_complete_and_stratified(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    num_held = min(max(1, round(share * len(labels))), sum(counts) - len(counts))
    kept, held = stratified_holdout(labels, num_held, seed)
    assert len(held) == num_held
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        taken = int((labels[held] == label).sum())
        assert taken < count
        if 2 * num_held <= len(labels):
            assert abs(taken - count * num_held / len(labels)) <= 1


def test_seeds_choose_the_rows() -> None:
    labels = np.repeat(np.arange(3), 20)
    first, again, other = (stratified_holdout(labels, 12, seed)[1] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="cannot hold out 2 of 3 images as a test set and keep one of each of the 2"):
        stratified_holdout(np.array([0, 1, 1]), 2, 0)
