"""alpha of Corollary IV from a run on noise of known rate, for labels whose rate nobody knows.

``alpha = n (1 - tau) / m*`` of every measured crossover (:mod:`analysis.fits.rates`). Its error is that of leaving each
rate out in turn; beside it stands that of guessing the mean of the other rates. alpha grows with n, since a crossover
does not, so it is refused for a set of another size or of other classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.analyze import LawRates
from analysis.facts import Facts
from analysis.fits.resample import Estimate
from ddnl_ray.errors import RequestError

LARGEST_RATIO = 1.25
"""Of two sizes of sets that share an alpha: a split that holds out a fifth of the labels has this ratio."""


@dataclass(frozen=True)
class Calibration:
    """A calibrated alpha.

    Attributes:
        alpha: Clean content of one distilled image, in clean samples, with its interval.
        source: On what it was calibrated, in words.
        mean_error: Mean absolute error of the rates left out in turn; nan where none could be.
        guess_error: That of guessing the mean of the other rates.
        num_errors: Rates behind both.
    """

    alpha: Estimate
    source: str
    mean_error: float
    guess_error: float
    num_errors: int

    @property
    def sentence(self) -> str:
        """The calibration in words, with its validated error."""
        said = (
            f"alpha = {self.alpha.value:.3g} [{self.alpha.low:.3g} to {self.alpha.high:.3g}], calibrated on "
            f"{self.source}. "
        )
        if not self.num_errors:
            return said + "No rate could be left out, so its error is not known."
        poor = self.mean_error >= self.guess_error
        return said + (
            f"Leaving each rate out, its mean absolute error is {100 * self.mean_error:.1f} points over "
            f"{self.num_errors} crossovers; guessing the mean of the other rates errs by "
            f"{100 * self.guess_error:.1f}" + (": the estimate carries no information." if poor else ".")
        )


def calibrate(rates: Sequence[LawRates], facts: Facts, run: str, num_labels: int, num_classes: int) -> Calibration:
    """Return alpha of the method and noise of a run with the most measured crossovers.

    Args:
        rates: Of the run (:func:`analysis.analyze.analyze`).
        facts: Of the run.
        run: The run, in words.
        num_labels: Labels under audit.
        num_classes: Their classes.

    Raises:
        RequestError: The run has too few measured crossovers, or is of another size or of other classes.
    """
    usable = [(each, _measured(each)) for each in rates]
    best, count = max(usable, key=lambda pair: pair[1], default=(None, 0))
    if best is None or best.study is None or count < 2:
        reasons = " ".join(dict.fromkeys(_why(each) for each in rates if _why(each)))
        raise RequestError(
            f"{run} cannot calibrate alpha: it needs measured crossovers at two rates or more, in one method and kind "
            f"of noise, but the best has {count}; run more images per class, with the method full. {reasons}".rstrip()
        )
    setting, study = best.setting, best.study
    size = facts.size(setting.dataset, [])
    assert size.samples is not None
    assert size.classes is not None
    if size.classes != num_classes:
        raise RequestError(
            f"{run} has {size.classes} classes, but the labels have {num_classes}; alpha does not carry over"
        )
    ratio = max(size.samples / num_labels, num_labels / size.samples)
    if ratio > LARGEST_RATIO:
        raise RequestError(
            f"{run} was distilled from {size.samples} training images, but there are {num_labels} labels; alpha grows "
            f"with their number and carries over up to a ratio of {LARGEST_RATIO:g} only; calibrate on a run with "
            f"data.subset near {num_labels}"
        )
    source = f"{count} crossovers of {setting.method} under {setting.noise} noise on {setting.dataset} ({run})"
    return Calibration(study.alpha, source, study.mean_error, study.guess_error, study.num_errors)


def _measured(rates: LawRates) -> int:
    """Return at how many rates a crossover is measured; 0 without an alpha that has an interval."""
    if rates.study is None or math.isnan(rates.study.alpha.low):
        return 0
    return len({round(each.rate, 9) for each in rates.study.estimates if each.censored == "none"})


def _why(rates: LawRates) -> str:
    return rates.reason if rates.study is None else rates.study.reason
