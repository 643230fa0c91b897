"""How many classes confusion leaves: kappa and the effective confusion class-count C_eff.

Definitions of "Dataset Distillers Are Good Label Denoisers": kappa of Corollary III (assumption A6 of
Appendix B.4) and the estimators of C_eff of Corollary II (assumption A6 of Appendix B.3). Entropies are in
nats and 0 log 0 = 0. Rows are true classes, columns observed ones.

Differs from the original:

- ``entropy_complement`` is ours. A6 asks for a number that is C without confusion and falls as confusion
  grows; ``exp(H_avg)``, which the source offers, is 1 without confusion and grows. ``C * exp(-H_avg)`` meets
  A6, and for a doubly stochastic matrix with a uniform prior it is ``exp(I(Y; Y~))``.
- The source calls its estimators equal up to a monotonic transformation; they are not: the order of two
  matrices can differ, and the spectral one hardly moves under noise as high as 40 %.
- Numbers below 1, which only rounding gives, are returned as 1.

These are plug-in values. From counts with few samples a cell, entropies come out too low.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from analysis.theory.symbols import Floats, Form
from ddnl_ray.errors import require_known

_TOLERANCE = 1e-6


def row_normalised(confusion: ArrayLike) -> Floats:
    """Return a confusion matrix with rows that sum to 1, as every function here but :func:`kappa` asks for.

    Args:
        confusion: Counts or any other non-negative weights, (C, C).

    Raises:
        ValueError: The matrix is not square, or a row has a negative or non-finite entry or is all zero; the
            message names the row.
    """
    matrix = _square(confusion, "a confusion matrix")
    totals = matrix.sum(axis=1)
    if not totals.all():
        raise ValueError(f"every row of a confusion matrix needs a count, but row {int(totals.argmin())} has none")
    return np.asarray(matrix / totals[:, None])


def average_rate(transition: ArrayLike) -> float:
    """Return tau of Corollary II, ``(1/C) sum_y sum_{y' != y} T[y, y']``, in [0, 1].

    Args:
        transition: T, (C, C).

    Raises:
        ValueError: T is not a transition matrix; the message names the row.
    """
    matrix = _transition(transition)
    np.fill_diagonal(matrix, 0)
    return float(matrix.sum(axis=1).mean())


def average_entropy(confusion: ArrayLike) -> float:
    """Return H_avg, the mean over rows of the entropy of the normalised row, in nats.

    Args:
        confusion: Counts, or a transition matrix, (C, C).

    Raises:
        ValueError: As :func:`row_normalised`.
    """
    return float(entr(row_normalised(confusion)).sum(axis=1).mean())


def kappa(confusion: ArrayLike) -> float:
    """Return ``exp(H_avg)`` of Corollary III: 1 without confusion, C if every row is uniform.

    Args:
        confusion: Counts of a reference model on clean validation data (a cleanly trained teacher, or a stated
            protocol), or the empirical transition matrix where clean labels are known, (C, C).

    Raises:
        ValueError: As :func:`row_normalised`.
    """
    return float(np.exp(average_entropy(confusion)))


def entropy_modes(transition: ArrayLike) -> float:
    """Return ``exp(H_avg)``, the published entropy estimator of C_eff: 1 without confusion.

    Args:
        transition: T, (C, C).

    Raises:
        ValueError: T is not a transition matrix; the message names the row.
    """
    return kappa(_transition(transition))


def entropy_complement_modes(transition: ArrayLike) -> float:
    """Return ``C exp(-H_avg)``, the entropy estimator of C_eff that meets A6: C without confusion.

    Args:
        transition: T, (C, C).

    Raises:
        ValueError: T is not a transition matrix; the message names the row.
    """
    matrix = _transition(transition)
    return max(1.0, float(len(matrix) * np.exp(-average_entropy(matrix))))


def spectral_modes(transition: ArrayLike) -> float:
    """Return the effective rank ``exp(-sum p_k log p_k)``, p the singular values divided by their sum.

    Args:
        transition: T, (C, C).

    Raises:
        ValueError: T is not a transition matrix; the message names the row.
    """
    values = np.linalg.svd(_transition(transition), compute_uv=False)
    return max(1.0, float(np.exp(entr(values / values.sum()).sum())))


def mutual_information_modes(transition: ArrayLike, prior: ArrayLike | None = None) -> float:
    """Return ``exp(I(Y; Y~))``, Y of the prior and Y~ given Y of T.

    Args:
        transition: T, (C, C).
        prior: P(Y), (C,), summing to 1; uniform if None. A class of prior 0 does not occur.

    Raises:
        ValueError: T is not a transition matrix, or the prior not a distribution over its C classes.
    """
    matrix = _transition(transition)
    weights = _prior(prior, len(matrix))
    observed = entr(weights @ matrix).sum()
    given = weights @ entr(matrix).sum(axis=1)
    return max(1.0, float(np.exp(observed - given)))


C_EFF_ESTIMATORS: Mapping[str, Callable[[ArrayLike], float]] = MappingProxyType(
    {
        "entropy": entropy_modes,
        "entropy_complement": entropy_complement_modes,
        "spectral": spectral_modes,
        "mutual_information": mutual_information_modes,
    }
)
"""The estimators of C_eff by name, with a uniform prior."""

FORM_OF: Mapping[str, Form] = MappingProxyType(
    {
        "entropy": "published",
        "entropy_complement": "derived",
        "spectral": "published",
        "mutual_information": "published",
    }
)
"""Whether an estimator of C_eff is printed in the source, or follows from what the source asks of it."""


def effective_modes(transition: ArrayLike, estimator: str, prior: ArrayLike | None = None) -> float:
    """Return C_eff of a transition matrix, at least 1.

    Args:
        transition: T, (C, C); of counts, pass ``row_normalised(counts)``.
        estimator: A name of :data:`C_EFF_ESTIMATORS`.
        prior: P(Y) of ``mutual_information``, (C,); uniform if None.

    Raises:
        RequestError: The estimator is unknown.
        ValueError: T is not a transition matrix, the prior not a distribution, or the estimator has no prior.
    """
    require_known("C_eff estimator", estimator, C_EFF_ESTIMATORS)
    if prior is None:
        return C_EFF_ESTIMATORS[estimator](transition)
    if estimator != "mutual_information":
        raise ValueError(f"only the estimator 'mutual_information' has a prior, but got one with {estimator!r}")
    return mutual_information_modes(transition, prior)


def _square(matrix: ArrayLike, what: str) -> Floats:
    array = np.array(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise ValueError(f"{what} must be square but got shape {array.shape}")
    outside = np.argwhere(~(np.isfinite(array) & (array >= 0)))
    if len(outside):
        row, column = map(int, outside[0])
        raise ValueError(f"{what} must be finite and not negative, but row {row} holds {float(array[row, column])}")
    return array


def _transition(matrix: ArrayLike) -> Floats:
    """Return a copy of T of which the rows sum to 1 in float64, or to what division leaves."""
    array = _square(matrix, "a transition matrix")
    totals = array.sum(axis=1)
    far = np.flatnonzero(np.abs(totals - 1) > _TOLERANCE)
    if len(far):
        raise ValueError(
            f"every row of a transition matrix must sum to 1, but row {int(far[0])} sums to {totals[far[0]]:.8g}; "
            "of counts, pass row_normalised(counts)"
        )
    return np.asarray(array / totals[:, None])


def _prior(prior: ArrayLike | None, num_classes: int) -> Floats:
    if prior is None:
        return np.full(num_classes, 1 / num_classes)
    weights = np.asarray(prior, dtype=np.float64)
    if weights.shape != (num_classes,):
        raise ValueError(f"the prior must have one entry for each of {num_classes} classes but got {weights.shape}")
    if not (np.isfinite(weights) & (weights >= 0)).all() or abs(weights.sum() - 1) > _TOLERANCE:
        raise ValueError(f"the prior must be not negative and sum to 1 but got {weights.tolist()}")
    return np.asarray(weights / weights.sum())
