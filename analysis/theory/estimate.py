"""An estimate with its bootstrap interval, which every estimator of the theory returns.

The interval is the basic (pivotal) bootstrap, unless an estimator says otherwise: Davison and Hinkley (1997),
Bootstrap Methods and their Application, equation 5.6. It is preferred to the percentile interval because
entropies, ranks and norms are biased in finite samples, and a resample repeats the bias: the percentile interval
counts it twice, the basic one removes it once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddnl_ray.errors import RequestError

Floats = NDArray[np.float64]
Units = Literal["nats", "relative", "fraction"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval and with what it was computed from.

    Attributes:
        value: The estimate.
        low: Lower end of the bootstrap interval, at most ``value``.
        high: Upper end, at least ``value``.
        units: ``"nats"``; ``"fraction"`` in (0, 1]; or ``"relative"``, an unknown multiple of nats, of which
            only ratios mean something.
        n: Number of resampling units: samples, seeds or clusters, as the estimator's docstring says.
        inputs: The settings and sizes that the value depends on, and the figures to be read beside it.
    """

    value: float
    low: float
    high: float
    units: Units
    n: int
    inputs: Mapping[str, float | int | str]

    def __post_init__(self) -> None:
        if not (self.low <= self.value <= self.high and math.isfinite(self.high - self.low)):
            raise ValueError(
                f"an estimate lies in its finite interval but got {self.value} in [{self.low}, {self.high}]; "
                "check its input for values that are not finite"
            )
        object.__setattr__(self, "inputs", dict(self.inputs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How a bootstrap interval is made."""

    draws: int = 1000
    """Number of resamples, at least 20."""
    confidence: float = 0.95
    """Coverage, in (0, 1)."""

    def __post_init__(self) -> None:
        if self.draws < 20:
            raise RequestError(f"draws must be at least 20 but got {self.draws}; use for example 1000")
        if not 0 < self.confidence < 1:
            raise RequestError(f"confidence must lie between 0 and 1 but got {self.confidence}; use for example 0.95")


STANDARD = Resampling()


def basic_interval(
    value: float,
    draws: Floats,
    confidence: float,
    *,
    centre: float | None = None,
    domain: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Return ``value - (q - centre)`` at the upper and the lower quantile q of the draws.

    Args:
        value: The estimate from the sample.
        draws: The estimator applied to resamples, shape [B].
        confidence: Coverage, in (0, 1).
        centre: What the estimator aims at in the resamples, that is the functional of the empirical
            distribution; the default is ``value``, the case of an estimator without a bias correction.
        domain: Range of the quantity: the ends are clipped to it.

    Returns:
        The ends, widened where needed so that ``value`` lies between them.
    """
    aim = value if centre is None else centre
    lower, upper = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.clip([value - (upper - aim), value - (lower - aim)], *domain)
    return min(float(low), value), max(float(high), value)


def resampled_means(terms: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """Return the column means of resamples of the rows, shape [draws, K].

    Args:
        terms: One row per resampling unit, shape [n, K].
        rng: Source of the resamples.
        draws: Number of resamples.
    """
    return np.stack([resampled_counts(len(terms), rng) @ terms / len(terms) for _ in range(draws)])


def resampled_counts(n: int, rng: np.random.Generator) -> Floats:
    """Return how often each of n units occurs in a resample of n with replacement, shape [n]."""
    return np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
