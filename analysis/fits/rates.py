"""Noise rates from crossovers: calibrate alpha where the rate is known, then estimate it where it is not.

If ``m* = C * IPC*`` distilled images are worth ``n`` noisy ones, of which ``n (1 - tau)`` are clean, each is worth
``alpha = n (1 - tau) / m*`` clean ones, and ``tau = 1 - alpha m* / n``. With alpha held out of the rate that it is
asked for, the error of the estimate says whether alpha is a constant of data set and method, as the estimate needs.

Differs from the original: alpha is calibrated, not set to 1, with which the estimate is near 1 whatever the rate. It
is averaged on the log scale, because it is a ratio. n and C cancel in the estimates and matter to alpha alone. A
constant alpha means ``IPC* = a (1 - tau)``, the scaling law with b = -1, whereas Corollary I of the same theory has
b = 1: at most one of the two can hold for one method. Beside the error stands that of a guess, the mean of the other
rates: an estimate that is no better carries no information.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fits.crossover import Censored, Crossover
from analysis.fits.resample import Array, Estimate
from analysis.fits.series import joined
from analysis.statistics import interval
from ddnl_ray.errors import RequestError


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """The estimate of one rate, with alpha from the others.

    Attributes:
        rate: The true rate.
        estimate: In [0, 1]; nan if the crossover is censored or alpha cannot be calibrated.
        low: Lower end of the prediction interval, in [0, 1]; nan without one.
        high: Upper end. A crossover below the IPCs run gives [low, 1], one above gives [0, high], from the mean alpha.
        error: Absolute error of the estimate; nan without one.
        censored: As that of the crossover.
    """

    rate: float
    estimate: float
    low: float
    high: float
    error: float
    censored: Censored

    @property
    def is_vacuous(self) -> bool:
        """Whether the interval is all of [0, 1] and thus says nothing."""
        return self.low == 0 and self.high == 1


@dataclass(frozen=True, slots=True)
class RateStudy:
    """Leave-one-rate-out estimates.

    Attributes:
        alpha: Clean content of one distilled image, in clean samples: the geometric mean over all measured crossovers
            with the t interval of the logarithms.
        estimates: One per crossover, in the order given.
        mean_error: Mean absolute error of the estimates; nan without any.
        guess_error: Mean absolute error, on the same rates, of the mean of the other rates; nan without any.
        num_errors: Number of estimates behind both.
        reason: What limits it, or why there is no estimate; empty if nothing.
    """

    alpha: Estimate
    estimates: tuple[RateEstimate, ...]
    mean_error: float
    guess_error: float
    num_errors: int
    reason: str


def leave_one_rate_out(
    rates: Sequence[float],
    crossovers: Sequence[Crossover],
    num_samples: int,
    num_classes: int,
    confidence: float = 0.95,
) -> RateStudy:
    """Estimate every rate with alpha calibrated on the other rates.

    All crossovers of a rate are left out together. Censored ones calibrate nothing.

    Args:
        rates: True noise rate of every crossover, in [0, 1).
        crossovers: As many; those without a value get no estimate.
        num_samples: Noisy training samples n.
        num_classes: Classes C.
        confidence: Coverage of the prediction intervals, in (0, 1).

    Raises:
        RequestError: The lengths differ, or a rate or a number is out of range.
    """
    _require(rates, crossovers, num_samples, num_classes)
    log_alpha = np.array(
        [
            math.log(num_samples * (1 - rate) / (num_classes * point.value)) if point.is_measured else math.nan
            for rate, point in zip(rates, crossovers, strict=True)
        ]
    )
    measured = ~np.isnan(log_alpha)
    whole = interval(log_alpha[measured].tolist(), confidence)
    estimates, guesses = [], []
    for rate, point in zip(rates, crossovers, strict=True):
        others = measured & ~np.isclose(rates, rate, rtol=0, atol=1e-9)
        found = _estimate(rate, point, log_alpha[others], num_classes / num_samples, confidence)
        estimates.append(found)
        if not math.isnan(found.error):
            guesses.append(abs(float(np.mean(np.asarray(rates)[others])) - rate))
    errors = [found.error for found in estimates if not math.isnan(found.error)]
    return RateStudy(
        alpha=Estimate(*(math.exp(value) for value in (whole.mean, whole.low, whole.high))),
        estimates=tuple(estimates),
        mean_error=float(np.mean(errors)) if errors else math.nan,
        guess_error=float(np.mean(guesses)) if guesses else math.nan,
        num_errors=len(errors),
        reason=_reason(rates, crossovers, len(errors)),
    )


def _estimate(
    rate: float,
    point: Crossover,
    log_alpha: Array,
    scale: float,
    confidence: float,
) -> RateEstimate:
    """Return the estimate of one rate; ``scale`` is C / n, ``log_alpha`` comes from the other rates."""
    if not point.is_known or not len(log_alpha):
        return RateEstimate(rate, math.nan, math.nan, math.nan, math.nan, point.censored)
    share = math.exp(float(log_alpha.mean())) * point.value * scale
    centre = _clip(1 - share)
    if point.censored == "left":
        return RateEstimate(rate, math.nan, centre, 1.0, math.nan, "left")
    if point.censored == "right":
        return RateEstimate(rate, math.nan, 0.0, centre, math.nan, "right")
    spread = interval(log_alpha.tolist(), confidence)
    # From the interval of a mean to that of one more value: s / sqrt(k) becomes s sqrt(1 + 1 / k).
    half = spread.half * math.sqrt(spread.n + 1)
    low, high = (_clip(1 - share * math.exp(shift)) for shift in (half, -half))
    return RateEstimate(rate, centre, low, high, abs(centre - rate), "none")


def _clip(value: float) -> float:
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def _require(rates: Sequence[float], crossovers: Sequence[Crossover], num_samples: int, num_classes: int) -> None:
    if len(rates) != len(crossovers):
        raise RequestError(f"{len(rates)} rates do not match {len(crossovers)} crossovers; give one per crossover")
    if not all(0 <= rate < 1 for rate in rates):
        raise RequestError(f"noise rates must lie in [0, 1) but got {list(rates)}")
    if num_samples < 1 or num_classes < 2:
        raise RequestError(
            f"a noise rate is estimated for at least 1 sample and 2 classes, but got {num_samples} and {num_classes}"
        )


def _reason(rates: Sequence[float], crossovers: Sequence[Crossover], num_errors: int) -> str:
    unknown = sum(not point.is_known for point in crossovers)
    censored = sum(point.is_known and not point.is_measured for point in crossovers)
    distinct = {round(rate, 9) for rate, point in zip(rates, crossovers, strict=True) if point.is_measured}
    return joined(
        f"{unknown} of {len(crossovers)} have no crossover." if unknown else "",
        f"{censored} of {len(crossovers)} crossovers are censored: they bound their rate and calibrate nothing."
        if censored
        else "",
        ""
        if num_errors
        else f"Leaving a rate out needs measured crossovers at two rates or more, but there are {len(distinct)}.",
        "Two rates only: no prediction interval." if len(distinct) == 2 and num_errors == 2 else "",
    )
