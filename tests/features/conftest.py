"""Digits to learn features of, and how good features are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import load


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1] of 300 digits, and their labels."""
    dataset = load("digits")
    return dataset.train_images[:300].float() / dataset.max_value, dataset.train_labels[:300]


@pytest.fixture
def neighbours_agree() -> Callable[[Tensor, Tensor], float]:
    """Return the part of rows whose label is the most frequent one among the 5 nearest other rows, by cosine."""

    def accuracy(features: Tensor, labels: Tensor) -> float:
        similarity = (features @ features.T).fill_diagonal_(-torch.inf)
        votes = labels[similarity.topk(5).indices].mode(dim=1).values
        return float((votes == labels).double().mean())

    return accuracy
