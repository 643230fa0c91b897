"""Intervals of means and of paired differences, in float64.

A sample maps a replicate to its evaluation repeats. A replicate is a pair (noise seed, seed): one noise draw
and one distillation. Its evaluation repeats are networks trained on the same distilled set, so they are
nested within it and never count as replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ddnl_ray.errors import RequestError

Replicate = tuple[int | None, int | None]
Sample = Mapping[Replicate, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its two-sided confidence interval.

    Attributes:
        n: Number of values that the interval is made of: replicates, or evaluation repeats if ``within``.
        mean: Mean of these values; nan if there are none.
        low: Lower end; nan if fewer than two values say nothing about the spread.
        high: Upper end; nan where ``low`` is.
        within: The values are evaluation repeats of a single replicate, so the interval covers retraining
            only: the spread over noise draws and distillations is not in it.
    """

    n: int
    mean: float
    low: float
    high: float
    within: bool = False

    @property
    def half(self) -> float:
        """Half the width of the interval; nan if it has none."""
        return (self.high - self.low) / 2

    @property
    def is_bounded(self) -> bool:
        """Whether the interval exists (at least two values)."""
        return not math.isnan(self.low)


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of independent values with its Student t interval.

    The interval is ``mean ± t(1 - (1 - confidence) / 2, n - 1) * s / sqrt(n)`` with s the standard deviation
    of n - 1 degrees of freedom. It is exact for normal values; it is not clipped to the range of an accuracy.

    Args:
        values: Finite values, shape (n,).
        confidence: Coverage, in (0, 1).

    Returns:
        One value gives ``low = high = nan``; none gives a mean of nan as well.

    Raises:
        RequestError: ``confidence`` lies outside (0, 1).
        ValueError: A value is not finite.
    """
    _require_confidence(confidence)
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError(f"an interval is of finite values but got {sample.tolist()}")
    n = len(sample)
    if n == 0:
        return Interval(0, math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if n == 1:
        return Interval(1, mean, math.nan, math.nan)
    return _around(n, mean, float(sample.std(ddof=1)) / math.sqrt(n), n - 1, confidence)


def nested(sample: Sample, confidence: float = 0.95) -> Interval:
    """Return the interval of a mean over replicates.

    Evaluation repeats are averaged within their replicate first, so n is the number of replicates. A single
    replicate has no spread of its own: its evaluation repeats become the sample, and the interval is flagged
    ``within``.

    Args:
        sample: Evaluation repeats of every replicate.
        confidence: Coverage, in (0, 1).
    """
    if len(sample) == 1:
        (repeats,) = sample.values()
        return _within(interval(repeats, confidence))
    return interval(list(_means(sample).values()), confidence)


def standard_error(sample: Sample) -> float:
    """Return the standard error of the mean that :func:`nested` gives; nan if it is made of fewer than two values."""
    values = list(_means(sample).values()) if len(sample) > 1 else [value for own in sample.values() for value in own]
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def paired(a: Sample, b: Sample, confidence: float = 0.95) -> Interval:
    """Return the interval of the mean difference a - b over matched replicates.

    Replicates match when noise seed and seed agree. If one side ran once per noise draw, as full-data
    training does, the other side is averaged over its seeds within a draw and the draws are matched: the draw
    is then the replicate. With one matched pair of single replicates, the difference is that of the means of
    their evaluation repeats with Welch's interval, flagged ``within``; n is then the smaller number of
    repeats.

    Args:
        a: Evaluation repeats of every replicate.
        b: The same of the other side.
        confidence: Coverage, in (0, 1).

    Returns:
        n is the number of matched pairs; 0 (and a mean of nan) if nothing matches.
    """
    _require_confidence(confidence)
    differences = _differences(a, b)
    if len(differences) == len(a) == len(b) == 1:
        return _welch(next(iter(a.values())), next(iter(b.values())), confidence)
    return interval(differences, confidence)


def paired_p(a: Sample, b: Sample) -> float:
    """Return the two-sided p-value of a mean difference of zero over matched replicates (paired t test).

    Replicates match as in :func:`paired`: the p-value is at most 1 - c exactly where its interval of confidence c does
    not cover zero. Differences without any spread give 0, or 1 where they are all zero.

    Args:
        a: Evaluation repeats of every replicate.
        b: The same of the other side.

    Returns:
        nan with fewer than two matched pairs: retrainings of one replicate do not say what another would give.
    """
    differences = np.asarray(_differences(a, b), dtype=np.float64)
    if len(differences) < 2:
        return math.nan
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(differences))
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, len(differences) - 1))


def _differences(a: Sample, b: Sample) -> list[float]:
    """Return a - b of every matched pair of replicates."""
    left, right = _means(a), _means(b)
    if _is_once_per_draw(left) or _is_once_per_draw(right):
        left, right = _by_draw(left), _by_draw(right)
    return [left[replicate] - right[replicate] for replicate in left if replicate in right]


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise RequestError(f"confidence must lie between 0 and 1 but got {confidence}; use for example 0.95")


def _around(n: int, mean: float, error: float, freedom: float, confidence: float) -> Interval:
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Interval(n, mean, mean - half, mean + half)


def _within(plain: Interval) -> Interval:
    return Interval(plain.n, plain.mean, plain.low, plain.high, within=plain.n > 1)


def _welch(a: Sequence[float], b: Sequence[float], confidence: float) -> Interval:
    """Return the interval of mean(a) - mean(b) for independent samples of unequal variance (Welch, 1947)."""
    n = min(len(a), len(b))
    difference = float(np.mean(a) - np.mean(b))
    if n < 2:
        return Interval(n, difference, math.nan, math.nan)
    va, vb = float(np.var(a, ddof=1)) / len(a), float(np.var(b, ddof=1)) / len(b)
    if va + vb == 0:
        return Interval(n, difference, difference, difference, within=True)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return _within(_around(n, difference, math.sqrt(va + vb), freedom, confidence))


def _means(sample: Sample) -> dict[Replicate, float]:
    return {replicate: float(np.mean(repeats)) for replicate, repeats in sample.items()}


def _is_once_per_draw(means: Mapping[Replicate, float]) -> bool:
    return len({draw for draw, _ in means}) == len(means)


def _by_draw(means: Mapping[Replicate, float]) -> dict[Replicate, float]:
    draws: dict[Replicate, list[float]] = {}
    for (draw, _), mean in means.items():
        draws.setdefault((draw, None), []).append(mean)
    return {draw: float(np.mean(values)) for draw, values in draws.items()}


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
