"""Families of comparisons: p-values of intervals, and Holm's adjustment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from analysis.statistics import Interval
from ddnl_ray.errors import RequestError


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for the size of their family (Holm, 1979).

    The i-th smallest of m is multiplied by m - i + 1, then raised to the largest before it and cut at 1. Rejecting
    where the adjusted value is at most alpha keeps the chance of any false rejection at or below alpha, whatever the
    dependence.

    Args:
        p_values: In [0, 1]; nan where a comparison could not be made, which stays nan and does not count.

    Raises:
        RequestError: A value lies outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise RequestError(f"p-values must lie in [0, 1] but got {list(p_values)}")
    order = known[np.argsort(values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted = np.full(len(values), math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return tuple(adjusted.tolist())


def p_value(difference: Interval, confidence: float = 0.95) -> float:
    """Return the two-sided p-value of a mean difference of zero, from its Student interval.

    Args:
        difference: An interval of :func:`analysis.statistics.paired` or ``interval``.
        confidence: The coverage that it was made with.

    Returns:
        nan if there is no interval, or if it covers retraining only (``within``): one replicate is no test.
    """
    if not difference.is_bounded or difference.within:
        return math.nan
    if difference.half == 0:
        return 1.0 if difference.mean == 0 else 0.0
    freedom = difference.n - 1
    statistic = difference.mean / difference.half * float(stats.t.ppf((1 + confidence) / 2, freedom))
    return float(2 * stats.t.sf(abs(statistic), freedom))


def adjusted(differences: Sequence[Interval], confidence: float = 0.95) -> tuple[float, ...]:
    """Return the Holm-adjusted p-values of a family of differences (see :func:`holm` and :func:`p_value`)."""
    return holm([p_value(difference, confidence) for difference in differences])
