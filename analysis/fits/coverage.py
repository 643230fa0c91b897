"""Coverage: the share of measured crossovers that lie between the bounds of the theory.

The bounds come as arrays, so that every form and every choice of estimators is scored in the same way. A censored
crossover counts apart: it is certainly outside if the bound lies on the other side of the IPCs that were run, and
undecided otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from analysis.fits.crossover import Crossover
from analysis.fits.resample import Estimate
from ddnl_ray.errors import RequestError


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many crossovers lie between their bounds.

    Attributes:
        share: Measured crossovers inside, as a share of those measured, with its Clopper-Pearson interval; nan if
            none is measured.
        num_inside: Measured, inside.
        num_below: Measured, below the lower bound.
        num_above: Measured, above the upper bound and not below the lower one.
        num_censored_outside: Censored, certainly outside.
        num_censored_undecided: Censored, could be either.
        num_empty: Crossovers (of all of these) whose lower bound exceeds the upper one: nothing can lie inside.
        reason: What was left out, or why there is no share; empty if nothing.
    """

    share: Estimate
    num_inside: int
    num_below: int
    num_above: int
    num_censored_outside: int
    num_censored_undecided: int
    num_empty: int
    reason: str


def coverage(
    crossovers: Sequence[Crossover],
    lower: Sequence[float],
    upper: Sequence[float],
    confidence: float = 0.95,
) -> Coverage:
    """Count crossovers between bounds.

    Args:
        crossovers: Measured and censored ones, and ones without a value.
        lower: Lower bound of each, in images per class; 0 where there is none, nan where it is unknown.
        upper: Upper bound of each; inf where there is none, nan where it is unknown.
        confidence: Coverage of the interval of the share, in (0, 1).

    Raises:
        RequestError: The lengths differ.
    """
    if not len(crossovers) == len(lower) == len(upper):
        lengths = f"{len(crossovers)} crossovers, {len(lower)} lower and {len(upper)} upper bounds"
        raise RequestError(f"coverage needs one bound of each kind per crossover, but got {lengths}")
    tally = {"inside": 0, "below": 0, "above": 0, "outside": 0, "undecided": 0}
    empty = unknown = 0
    for point, low, high in zip(crossovers, lower, upper, strict=True):
        if not point.is_known or math.isnan(low) or math.isnan(high):
            unknown += 1
            continue
        tally[_place(point, low, high)] += 1
        empty += low > high
    measured = tally["inside"] + tally["below"] + tally["above"]
    sentences = [
        f"{unknown} of {len(crossovers)} have no crossover or no bound and are left out." if unknown else "",
        "" if measured else "No crossover is measured, so there is no share.",
    ]
    return Coverage(
        share=_share(tally["inside"], measured, confidence),
        num_inside=tally["inside"],
        num_below=tally["below"],
        num_above=tally["above"],
        num_censored_outside=tally["outside"],
        num_censored_undecided=tally["undecided"],
        num_empty=empty,
        reason=" ".join(filter(None, sentences)),
    )


def _place(point: Crossover, low: float, high: float) -> str:
    if point.censored == "left":
        return "outside" if point.value < low or low > high else "undecided"
    if point.censored == "right":
        return "outside" if point.value >= high or low > high else "undecided"
    if point.value < low:
        return "below"
    return "inside" if point.value <= high else "above"


def _share(inside: int, measured: int, confidence: float) -> Estimate:
    if not measured:
        return Estimate()
    found = stats.binomtest(inside, measured).proportion_ci(confidence, method="exact")
    return Estimate(inside / measured, float(found.low), float(found.high))
