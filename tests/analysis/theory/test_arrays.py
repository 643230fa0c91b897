from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from analysis.theory.arrays import class_labels, finite_rows, probability_rows


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"latents must have shape \[n, d\] but got \[3\]"),
        (np.zeros((3, 0)), r"latents must have shape \[n, d\] but got \[3, 0\]"),
        (np.zeros((1, 2)), "at least 2 samples but got 1"),
        ([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]], r"row 1 is not \(2 such rows\)"),
    ],
)
def test_rows_that_are_no_samples_are_refused(values: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finite_rows("latents", values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0], [1.0]], "at least 2 classes but got 1"),
        ([[0.5, 0.5], [0.9, 0.2]], "row 1 sums to 1.1 .* not logits"),
        ([[1.5, -0.5], [0.5, 0.5]], "row 0 sums to 1 with minimum -0.5"),
    ],
)
def test_rows_that_are_no_probabilities_are_refused(values: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probability_rows("predictions", values)


def test_probabilities_of_single_precision_are_scaled_to_sum_one() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(7), 50).astype(np.float32)
    scaled = probability_rows("predictions", rows)
    assert np.abs(scaled.sum(axis=1) - 1).max() < 1e-15
    assert scaled == pytest.approx(rows, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1], "labels must be 3 integers but got int64 of shape"),
        ([0.0, 1.0, 1.0], "labels must be 3 integers but got float64"),
        ([0, 1, -1], r"from 0 below 4 but got -1\.\.1"),
        ([0, 4, 1], r"from 0 below 4 but got 0\.\.4"),
        ([2, 2, 2], "at least 2 classes but all 3 are 2"),
    ],
)
def test_labels_that_are_no_classes_are_refused(values: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_labels(values, 3, 4)
