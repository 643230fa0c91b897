"""I_min / (r I_clean): what the ``a`` of the scaling law estimates, by every combination of estimators.

Three estimators of each quantity make 27 combinations. ``gradient`` is in relative units, an unknown multiple of nats,
so its nine have no value that could be compared and are left out, as are those of an undefined estimate.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from analysis.fits.resample import Estimate as Interval
from analysis.measure.record import QUANTITIES, Measurement, Value
from analysis.theory.estimate import Estimate

DEFAULT = {"i_min": "few_shot", "i_clean": "contrastive", "redundancy": "clusters"}
"""The estimators that the bounds use where none is given: ``few_shot`` is measured at images per class, as the bounds
are stated; ``contrastive`` is checked against held-out labels, which the claims of a teacher are not; ``clusters``
counts samples that repeat others, which r means, where the rank has a ceiling and influence measures alignment."""
WHY_DEFAULT = (
    "few_shot is measured at images per class, contrastive is checked against held-out labels, and clusters counts the "
    "samples that repeat others"
)
RELATIVE = (
    "gradient is in relative units, an unknown multiple of nats: its combinations have no value to compare and are "
    "left out."
)


@dataclass(frozen=True)
class Ratio:
    """One combination.

    Attributes:
        i_min: Estimator of I_min.
        i_clean: Estimator of I_clean.
        redundancy: Estimator of r.
        value: I_min / (r I_clean), images per class.
        low: With every part at the end of its interval that makes it smallest.
        high: Likewise largest; infinite where I_clean or r reaches 0.
    """

    i_min: str
    i_clean: str
    redundancy: str
    value: float
    low: float
    high: float

    def is_inside(self, a: Interval) -> bool:
        """Return whether the value lies in the interval of the ``a`` of a law."""
        return a.contains(self.value)


def ratios(found: Measurement, method: str) -> list[Ratio]:
    """Return every combination in nats whose three parts are defined and positive.

    Args:
        found: What was measured.
        method: The method whose networks I_min is of.
    """
    parts = [
        [(name, each) for name in names if (each := _usable(found.value(quantity, name, method)))]
        for quantity, names in QUANTITIES.items()
    ]
    return [_ratio(*combination) for combination in itertools.product(*parts)]


def default_values(found: Measurement, method: str) -> dict[str, float]:
    """Return the values of :data:`DEFAULT` that are defined, by quantity."""
    asked = {quantity: found.value(quantity, name, method) for quantity, name in DEFAULT.items()}
    return {quantity: each.estimate.value for quantity, each in asked.items() if each and each.estimate}


def _usable(value: Value | None) -> Estimate | None:
    """Return an estimate that a combination can hold; None: undefined, relative or 0."""
    found = None if value is None else value.estimate
    return found if found is not None and found.units != "relative" and found.value > 0 else None


def _ratio(i_min: tuple[str, Estimate], i_clean: tuple[str, Estimate], redundancy: tuple[str, Estimate]) -> Ratio:
    need, have, share = i_min[1], i_clean[1], redundancy[1]
    least = have.low * share.low
    return Ratio(
        i_min[0],
        i_clean[0],
        redundancy[0],
        value=need.value / (have.value * share.value),
        low=need.low / (have.high * share.high),
        high=need.high / least if least > 0 else math.inf,
    )
