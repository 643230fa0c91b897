"""Families of comparisons: the p-values of intervals, adjusted for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from analysis.statistics import Interval, holm


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
