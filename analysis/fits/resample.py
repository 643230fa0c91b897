"""The bootstrap of replicates: what is resampled, and how the ends of an interval are read off.

A noise draw is resampled whole, with all seeds that ran on it: resampling again inside a drawn group would count the
spread within groups twice (Davison and Hinkley, 1997, section 3.8). Percentiles are expanded (Hesterberg, 2015,
section 4.2): the percentile interval of n values is too narrow by the factor sqrt((n - 1) / n) and by the difference
between normal and Student quantiles, and with the 3 to 5 draws of a sweep both matter. No interval can reach past the
values themselves: with 3 draws a bootstrap interval of a mean ends at the smallest and the largest of them, which
cover a median in 75 % of cases only; :func:`analysis.statistics.interval` is the better one for such a mean.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics import Replicate
from ddnl_ray.errors import RequestError, require_known

Array = NDArray[np.float64]

UNITS = ("draws", "seeds")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval; nan where there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def is_bounded(self) -> bool:
        """Whether the interval exists."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def contains(self, value: float) -> bool:
        """Return whether ``value`` lies inside the interval; False without one."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Size:
    """How much data an interval rests on.

    Attributes:
        n: Resampled units: noise draws, or replicates where draws are held fixed.
        freedom: Degrees of freedom; 0 means that nothing can be said about the spread.
        within: There is one noise draw only, so the interval holds for that draw.
    """

    n: int
    freedom: int
    within: bool


def generator(seed: int, *names: Any) -> np.random.Generator:
    """Return a generator that depends on the seed and the names alone.

    Numbers are addressed by name, so that adding a setting to a frame never shifts those of another.
    """
    text = "\x1f".join([str(int(seed)), *map(repr, names)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def size(replicates: Sequence[Replicate], over: str = "draws") -> Size:
    """Return the size of a sample of replicates (noise draw, seed) under :func:`counts`."""
    require_known("bootstrap unit", over, UNITS)
    num_rows, num_draws = len(replicates), len({draw for draw, _ in replicates})
    if over == "seeds" or num_draws <= 1:
        return Size(num_rows, max(0, num_rows - num_draws), num_draws == 1)
    return Size(num_draws, num_draws - 1, False)


def counts(replicates: Sequence[Replicate], over: str, num: int, rng: np.random.Generator) -> Array:
    """Return how often each replicate is taken in each of ``num`` resamples.

    Args:
        replicates: The (noise draw, seed) of every row of the data.
        over: ``draws`` resamples noise draws whole, and the seeds of a single draw; ``seeds`` holds the noise draws
            and resamples the seeds within each of them (stratified), so that the interval covers the randomness of
            distillation and training on these very draws.
        num: Number of resamples.
        rng: Source of randomness.

    Returns:
        Counts, shape [num, len(replicates)].
    """
    require_known("bootstrap unit", over, UNITS)
    draws = list(dict.fromkeys(draw for draw, _ in replicates))
    member = np.array([draws.index(draw) for draw, _ in replicates], dtype=np.intp)
    if over == "draws" and len(draws) > 1:
        drawn = rng.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), size=num)
        return drawn[:, member].astype(np.float64)
    taken = np.zeros((num, len(replicates)))
    for i in range(len(draws)):
        rows = np.flatnonzero(member == i)
        taken[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=num)
    return taken


def means(values: Array, taken: Array) -> Array:
    """Return the column means of every resample; nan where a resample holds no value of a column.

    Args:
        values: [R, K], nan where a replicate was not run.
        taken: [B, R] of :func:`counts`.

    Returns:
        [B, K].
    """
    present = ~np.isnan(values)
    mass = taken @ present.astype(np.float64)
    total = taken @ np.where(present, values, 0.0)
    return np.divide(total, mass, out=np.full_like(total, math.nan), where=mass > 0)


def ends(samples: Array, of: Size, confidence: float) -> tuple[float, float]:
    """Return the ends of the expanded percentile interval.

    Args:
        samples: The statistic of every resample, shape [B]; infinities are allowed, nan is left out.
        of: The size of the resampled data.
        confidence: Coverage, in (0, 1).

    Returns:
        Order statistics of the samples; nan without degrees of freedom or without samples.
    """
    if not 0 < confidence < 1:
        raise RequestError(f"confidence must lie between 0 and 1 but got {confidence}; use for example 0.95")
    known = samples[~np.isnan(samples)]
    if of.freedom < 1 or known.size == 0:
        return math.nan, math.nan
    quantile = float(stats.t.ppf((1 + confidence) / 2, of.freedom)) * math.sqrt(of.n / of.freedom)
    tail = float(stats.norm.cdf(-quantile))
    # Mirrored, so that both ends leave out equally many samples.
    low, high = (sign * float(np.quantile(sign * known, tail, method="inverted_cdf")) for sign in (1, -1))
    return low, high


def shortfall(of: Size, confidence: float) -> str:
    """Return a sentence if so few units were resampled that no bootstrap interval reaches its coverage.

    An interval cannot reach past n values, and all n lie on one side of their median with probability 2^(1 - n).
    """
    best = 1 - 2.0 ** (1 - of.n)
    if of.freedom != of.n - 1 or of.n < 2 or best >= confidence:
        return ""
    unit = "seeds" if of.within else "noise draws"
    return f"With {of.n} {unit} a bootstrap interval covers {100 * best:.0f} % at most, not {100 * confidence:g} %."


def estimate(value: float, samples: Array, of: Size, confidence: float) -> Estimate:
    """Return a value with the interval of its resamples (see :func:`ends`)."""
    return Estimate(value, *ends(samples, of, confidence))
