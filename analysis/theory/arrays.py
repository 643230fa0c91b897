"""Checks of the arrays that estimators take: what they must look like, said before anything is computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.theory.estimate import Floats

Integers = NDArray[np.int64]


def finite_rows(name: str, values: ArrayLike) -> Floats:
    """Return ``values`` in float64, shape [n, d].

    Args:
        name: What the rows are, for the message.
        values: Any array.

    Raises:
        ValueError: Not two-dimensional, fewer than two rows, no column, or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must have shape [n, d] but got {list(array.shape)}; flatten all axes but the first")
    if len(array) < 2:
        raise ValueError(f"{name} must be of at least 2 samples but got {len(array)}; pass more samples")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ValueError(f"{name} must be finite but row {bad[0]} is not ({len(bad)} such rows); drop these samples")
    return array


def probability_rows(name: str, values: ArrayLike) -> Floats:
    """Return ``values`` in float64, shape [n, C], each row scaled to sum to exactly 1.

    Raises:
        ValueError: As :func:`finite_rows`; fewer than two classes, a negative entry, or a row whose sum is off
            1 by more than 1e-3.
    """
    array = finite_rows(name, values)
    if array.shape[1] < 2:
        raise ValueError(f"{name} must be of at least 2 classes but got 1; pass the probabilities of all classes")
    sums = array.sum(axis=1, keepdims=True)
    bad = np.flatnonzero((array < 0).any(axis=1) | (np.abs(sums[:, 0] - 1) > 1e-3))
    if len(bad):
        raise ValueError(
            f"{name} must be non-negative with sum 1 but row {bad[0]} sums to {float(sums[bad[0], 0]):.6g} with "
            f"minimum {float(array[bad[0]].min()):.6g} ({len(bad)} such rows); pass probabilities, not logits"
        )
    return np.asarray(array / sums, dtype=np.float64)


def class_labels(values: ArrayLike, n: int, classes: int | None = None) -> Integers:
    """Return ``values`` as int64 class indices, shape [n].

    Args:
        values: Labels of the n samples.
        n: Number of samples that they belong to.
        classes: If given, the indices must be below it.

    Raises:
        ValueError: Another shape, no integers, an index out of range, or a single class.
    """
    array = np.asarray(values)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"labels must be {n} integers but got {array.dtype} of shape {list(array.shape)}; pass one per sample"
        )
    if array.min() < 0 or (classes is not None and array.max() >= classes):
        upper = "" if classes is None else f" below {classes}"
        raise ValueError(
            f"labels must be class indices from 0{upper} but got {array.min()}..{array.max()}; renumber the classes"
        )
    if array.min() == array.max():
        raise ValueError(
            f"labels must be of at least 2 classes but all {n} are {array[0]}: their information is 0; "
            "pass samples of every class"
        )
    return array.astype(np.int64)
