"""Class-dependent label noise from any transition matrix: validation, reading, sampling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddnl_ray.errors import DataError, RequestError

SUFFIXES = (".json", ".csv", ".npy")
_TOLERANCE = 1e-6


def validate_transition(matrix: ArrayLike, num_classes: int | None = None) -> NDArray[np.float64]:
    """Return ``matrix`` as a float64 array, if it is a transition matrix.

    Args:
        matrix: ``(C, C)``; row = true class, column = given label.
        num_classes: C, where it is known.

    Raises:
        RequestError: The matrix is not square, has another number of classes, or has a row that is not a
            distribution (to 1e-6); the message names the row.
    """
    try:
        array = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RequestError(f"a transition matrix is a square table of numbers, but got {error}") from error
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise RequestError(f"a transition matrix must be square, but got shape {array.shape}")
    if num_classes is not None and len(array) != num_classes:
        raise RequestError(f"the transition matrix is for {len(array)} classes, but the data set has {num_classes}")
    for index, row in enumerate(array):
        if not np.isfinite(row).all() or (row < 0).any():
            raise RequestError(
                f"the entries of a transition matrix must be probabilities, but row {index} holds "
                f"{row[~(row >= 0) | ~np.isfinite(row)][0]:g}"
            )
        if abs(row.sum() - 1) > _TOLERANCE:
            raise RequestError(
                f"every row of a transition matrix must sum to 1, but row {index} sums to {row.sum():.8g}"
            )
    return array


def read_transition(path: Path) -> NDArray[np.float64]:
    """Read a transition matrix from a file.

    Args:
        path: ``.json`` (a list of rows), ``.csv`` (comma-separated rows, no header) or ``.npy`` (no pickled
            objects).

    Raises:
        DataError: The file is missing, of another type, or not readable as a table of numbers.
        RequestError: The table is not a transition matrix (see :func:`validate_transition`).
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"a transition matrix is read from {', '.join(SUFFIXES)}, but got {path}")
    try:
        if path.suffix == ".json":
            matrix = json.loads(path.read_text())
        elif path.suffix == ".csv":
            rows = [line for line in path.read_text().splitlines() if line.strip()]
            matrix = [[float(cell) for cell in row.split(",")] for row in rows]
        else:
            matrix = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"the transition matrix {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as a transition matrix ({error})") from error
    return validate_transition(matrix)


def sample(
    labels_N: NDArray[np.int64],
    transition_CC: NDArray[np.float64],
    rng: np.random.Generator | np.random.RandomState,
) -> NDArray[np.int64]:
    """Draw a given label for every true label, independently.

    A NumPy ``Generator`` draws one uniform number per sample, in file order, and looks it up in the
    cumulative row of the sample's class. A class of probability 0 is never drawn: the last class of positive
    probability takes what rounding leaves of a row's sum. A legacy ``RandomState`` draws one multinomial per
    sample, in file order, which is the mechanism of the DD_LNL benchmark: ``RandomState(0)`` gives its labels
    bit by bit.

    Args:
        labels_N: True labels, in ``[0, C)``.
        transition_CC: A valid transition matrix, rows true class.
        rng: The source of randomness.

    Returns:
        The given labels, shape ``(N,)``.
    """
    if isinstance(rng, np.random.RandomState):
        draws = [rng.multinomial(1, transition_CC[label]).argmax() for label in labels_N]
        return np.array(draws, dtype=np.int64)
    uniform_N = rng.random(len(labels_N))
    given_N = np.empty(len(labels_N), dtype=np.int64)
    for label, row in enumerate(transition_CC):
        cumulative = row.cumsum()
        cumulative[np.flatnonzero(row)[-1] :] = 1.0
        chosen = labels_N == label
        given_N[chosen] = cumulative.searchsorted(uniform_N[chosen], side="right")
    return given_N
