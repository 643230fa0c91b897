"""The scaling law of the crossover: ``log IPC* = log a - b log(1 - tau)``, and the test of b = 1.

Corollary I of the theory of dataset distillation under label noise bounds the images per class from below by
``I_min / (r (1 - tau) I_clean)``: b = 1, and a = I_min / (r I_clean). For annotators' noise the factor is 1 / kappa in
place of 1 - tau, so the fit takes any positive factor: ``IPC* = a * factor^-b``.

Differs from the original: nothing there is fitted. Here errors are Gaussian in log IPC with one spread, a crossover
beyond the IPCs that were run is a censored response (:mod:`analysis.fits.censored`), and the interval of a crossover
plays no part: the spread of the points around the line already holds it.

Annotators' noise: Corollary III as derived, ``IPC >= kappa I_min / (r I_clean)``, is the law at factor 1 / kappa with
b = 1; the lower end as printed, with kappa in the denominator, would be b = -1 (:mod:`analysis.theory.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fits.censored import Responses, coefficient, coefficient_p_value, maximise
from analysis.fits.crossover import Crossover, SeriesCrossover
from analysis.fits.resample import Array, Estimate
from analysis.fits.series import Listing, by_noise, joined
from analysis.scores import Setting
from ddnl_ray.errors import RequestError

MIN_MEASURED = 3
PREDICTED = 1.0
"""The exponent of Corollary I."""

_SIDES = {"none": 0, "left": -1, "right": 1}


@dataclass(frozen=True, slots=True)
class ScalingFit:
    """A fitted scaling law.

    Attributes:
        a: IPC* at factor 1, that is without noise; an estimate of ``I_min / (r I_clean)``.
        b: The exponent; an end may be infinite where the points do not bound it.
        sigma: Standard deviation of log IPC* around the law; nan without a fit.
        p_value: Of the hypothesis b = 1, two-sided; nan without a fit.
        num_measured: Crossovers inside the IPCs that were run.
        num_left: Crossovers below the smallest IPC.
        num_right: Crossovers above the largest IPC.
        confidence: Coverage of the intervals.
        reason: Why there is no fit, or what limits it; empty if nothing.
    """

    a: Estimate
    b: Estimate
    sigma: float
    p_value: float
    num_measured: int
    num_left: int
    num_right: int
    confidence: float
    reason: str

    @property
    def exists(self) -> bool:
        """Whether there is a law."""
        return not math.isnan(self.b.value)

    @property
    def agrees(self) -> bool | None:
        """Whether b = 1 lies inside the interval of b; None without a fit."""
        return self.b.contains(PREDICTED) if self.exists else None

    @property
    def sentence(self) -> str:
        """What may be said of the law, in words."""
        if not self.exists:
            return self.reason
        verdict = "contains" if self.agrees else "excludes"
        return joined(
            f"b = {self.b.value:.2f} [{self.b.low:.2f} to {self.b.high:.2f}] from {self.num_measured} measured and "
            f"{self.num_left + self.num_right} censored crossovers; the {100 * self.confidence:g} % interval "
            f"{verdict} the predicted 1 (p = {self.p_value:.2g}).",
            self.reason,
        )

    def predict(self, factor: float) -> float:
        """Return IPC* at a factor; nan without a fit."""
        return self.a.value * math.exp(-self.b.value * math.log(factor))


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """The law of one method under one kind of noise.

    Attributes:
        setting: What was run; rate, label set and IPC are None.
        fit: The law.
        points: Every crossover with its factor, those without a value included.
    """

    setting: Setting
    fit: ScalingFit
    points: tuple[tuple[float, SeriesCrossover], ...] = ()


def scaling_laws(
    found: Sequence[SeriesCrossover],
    factor: Callable[[SeriesCrossover], float | None] | None = None,
    confidence: float = 0.95,
) -> Listing[ScalingLaw]:
    """Fit one law per data set, kind of noise, method and networks.

    What was run without noise is the rate zero of every kind.

    Args:
        found: Crossovers (:func:`analysis.fits.crossover.crossovers`).
        factor: What divides IPC*, for example 1 / kappa of a label set; None leaves a point out. By default
            ``1 - rate``.
        confidence: Coverage of the intervals, in (0, 1).
    """
    laws = []
    for setting, members in by_noise(found).items():
        placed = [(clean_share(item) if factor is None else factor(item), item) for item in members]
        points = tuple((value, item) for value, item in placed if value is not None and value > 0)
        fit = fit_scaling([value for value, _ in points], [item.crossover for _, item in points], confidence)
        laws.append(ScalingLaw(setting, fit, points))
    laws.sort(key=lambda law: law.setting.order)
    return Listing(tuple(laws), "" if laws else "There is no crossover to fit a scaling law to.")


def clean_share(item: SeriesCrossover) -> float | None:
    """Return 1 - tau of a series; None if its rate is not known."""
    return None if item.rate is None else 1 - item.rate


def fit_scaling(factors: Sequence[float], crossovers: Sequence[Crossover], confidence: float = 0.95) -> ScalingFit:
    """Fit ``IPC* = a * factor^-b`` by maximum likelihood with censored points.

    Args:
        factors: 1 - tau (or kappa) of every crossover, above 0.
        crossovers: As many; those without a value are left out.
        confidence: Coverage of the profile-likelihood intervals, in (0, 1).

    Returns:
        Without a fit (nan, and a reason) if fewer than three crossovers are measured, or all at one factor.

    Raises:
        RequestError: The lengths differ, or a factor or the confidence is out of range.
    """
    if len(factors) != len(crossovers):
        raise RequestError(f"{len(factors)} factors do not match {len(crossovers)} crossovers; give one per crossover")
    if not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise RequestError(f"factors must be finite and above 0 but got {list(factors)}; leave out rates of 1")
    if not 0 < confidence < 1:
        raise RequestError(f"confidence must lie between 0 and 1 but got {confidence}; use for example 0.95")
    known = [(factor, point) for factor, point in zip(factors, crossovers, strict=True) if point.is_known]
    x = np.array([-math.log(factor) for factor, _ in known])
    y = np.array([math.log(point.value) for _, point in known])
    side = np.array([_SIDES[point.censored] for _, point in known], dtype=np.int64)
    numbers = (int((side == 0).sum()), int((side < 0).sum()), int((side > 0).sum()))
    problem = _problem(x[side == 0], numbers, len(crossovers) - len(known))
    if problem:
        return ScalingFit(Estimate(), Estimate(), math.nan, math.nan, *numbers, confidence, problem)
    data = Responses(np.column_stack([np.ones_like(x), x]), y, side)
    best = maximise(data)
    log_a = coefficient(data, best, 0, confidence)
    return ScalingFit(
        a=Estimate(*(_exp(end) for end in (log_a.value, log_a.low, log_a.high))),
        b=coefficient(data, best, 1, confidence),
        sigma=best.sigma,
        p_value=coefficient_p_value(data, best, 1, PREDICTED),
        num_measured=numbers[0],
        num_left=numbers[1],
        num_right=numbers[2],
        confidence=confidence,
        reason=_caveat(len(crossovers) - len(known)),
    )


def _problem(x: Array, numbers: tuple[int, int, int], unknown: int) -> str:
    """Return why there is no fit; empty if there is one. ``x`` holds the measured points."""
    measured, left, right = numbers
    if measured < MIN_MEASURED:
        return joined(
            f"A scaling law needs at least {MIN_MEASURED} measured crossovers, but there are {measured}: "
            f"{left} lie below the smallest IPC run and {right} above the largest.",
            _caveat(unknown),
        )
    if float(np.ptp(x)) < 1e-9:
        return joined("All measured crossovers have the same noise, so the exponent is undefined.", _caveat(unknown))
    return ""


def _caveat(unknown: int) -> str:
    return f"{unknown} series without a crossover (no baseline or no score) are left out." if unknown else ""


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
