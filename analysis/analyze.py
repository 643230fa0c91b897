"""Theory against practice for finished sweeps: crossovers, the scaling law, bounds, coverage, rates and variances.

The bounds hold for a number of training samples and of classes, and for a noise with a transition matrix; all come
from the files of the runs (:mod:`analysis.facts`). The information that a class needs and that a clean sample has is
measured (:mod:`analysis.measure`) or given; without it there is no lower bound, and the upper one is that of the
in-the-wild paper (no redundancy).

The law of annotators' noise has 1 / kappa of the realised transition matrix as its factor, with which b = 1 is the
derived form of Corollary III; as printed it would be -1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.facts import Facts
from analysis.fits.coverage import Coverage, coverage
from analysis.fits.crossover import SeriesCrossover, crossovers
from analysis.fits.gaps import GapCorrelation, accuracy_gaps, gap_correlations
from analysis.fits.nested import SettingComponents, setting_components
from analysis.fits.rates import RateStudy, leave_one_rate_out
from analysis.fits.scaling import ScalingFit, ScalingLaw, clean_share, scaling_laws
from analysis.fits.series import by_noise, joined
from analysis.measure.ratios import Ratio, default_values, ratios
from analysis.measure.record import Measurement
from analysis.names import listed
from analysis.scores import Setting
from analysis.theory import Bounds, asymmetric_bounds, effective_modes, kappa, natural_bounds, symmetric_bounds
from analysis.theory.symbols import Form
from ddnl_ray.errors import RequestError

FORMS: tuple[Form, ...] = ("published", "derived")
C_EFF: dict[Form, str] = {"published": "entropy", "derived": "entropy_complement"}
"""Which estimator of C_eff belongs to which form."""
UNKNOWN = math.nan
NOT_MEASURED = (
    "I_min / (r I_clean) is not known: run `ddnl analyze --measure` on the run, which trains a reference network and "
    "applies the nine estimators."
)
KAPPA_LAW = (
    "The factor is 1 / kappa of the realised transition matrix: IPC* = a kappa^b. b = 1 is Corollary III as derived; "
    "as printed it would be b = -1."
)


@dataclass(frozen=True)
class Information:
    """What the lower bounds take, and the redundancy of the upper ones, where it is given and not measured.

    Attributes:
        i_min: Information that a class needs to generalise, nats; None: as measured.
        i_clean: Information of one clean sample, nats; None: as measured.
        redundancy: r, in (0, 1]; None: as measured, and 1 where it is not.
    """

    i_min: float | None = None
    i_clean: float | None = None
    redundancy: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: A value is out of range.
        """
        for name in ("i_min", "i_clean"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise RequestError(f"{name} must be finite and above 0, in nats, but got {value}")
        if self.redundancy is not None and not 0 < self.redundancy <= 1:
            raise RequestError(f"redundancy must lie in (0, 1] but got {self.redundancy}; 1 means none")

    def over(self, measured: Measurement | None, method: str) -> Information:
        """Return what is known for a method: what is given, else the default estimators of a measurement.

        Args:
            measured: What was measured; None: nothing.
            method: The method.
        """
        found = default_values(measured, method) if measured is not None else {}
        return Information(
            i_min=found.get("i_min") if self.i_min is None else self.i_min,
            i_clean=found.get("i_clean") if self.i_clean is None else self.i_clean,
            redundancy=found.get("redundancy") if self.redundancy is None else self.redundancy,
        )

    def lacks(self) -> list[str]:
        """Return what the lower bound needs and is not known, in words."""
        return [name for name, value in (("I_min", self.i_min), ("I_clean", self.i_clean)) if value is None]


@dataclass(frozen=True)
class SeriesBounds:
    """The bounds on IPC* of one series in one form; nan where they are unknown."""

    setting: Setting
    form: Form
    lower: float
    upper: float
    reason: str = ""
    images: float = UNKNOWN
    """Training images per class, n / C; nan where they are unknown."""


@dataclass(frozen=True)
class LawRates:
    """The noise rates of one method under one kind of noise, each estimated from the others."""

    setting: Setting
    study: RateStudy | None
    reason: str = ""


@dataclass(frozen=True)
class LawRatios:
    """What the ``a`` of a law is compared with.

    Attributes:
        law: The law.
        ratios: I_min / (r I_clean) by every combination of estimators in nats.
        reason: Why there is none, or what limits them; empty if nothing.
    """

    law: ScalingLaw
    ratios: tuple[Ratio, ...]
    reason: str = ""

    @property
    def inside(self) -> tuple[Ratio, ...]:
        """The combinations whose value lies in the interval of ``a``."""
        return tuple(each for each in self.ratios if each.is_inside(self.law.fit.a))


@dataclass(frozen=True)
class Analysis:
    """Theory against practice.

    Attributes:
        crossovers: Where distilled data become worth all the data.
        laws: The scaling law of every method under every kind of noise.
        bounds: Of every series, in both forms.
        coverage: By form.
        rates: By method and kind of noise.
        reason: Why there is nothing; empty if there is something.
        ratios: Of every law, what its ``a`` is compared with.
        variance: Where the spread of every setting comes from.
        measured: What was measured, by run.
        notes: Where bounds are vacuous or their forms disagree, in sentences.
        rival: Variant of full-data training that distilled sets are held against.
        gaps: How the gap between distilled and full-data accuracy is ordered beside the noise, IPC by IPC.
    """

    crossovers: tuple[SeriesCrossover, ...]
    laws: tuple[ScalingLaw, ...]
    bounds: tuple[SeriesBounds, ...]
    coverage: dict[Form, Coverage]
    rates: tuple[LawRates, ...]
    reason: str = ""
    ratios: tuple[LawRatios, ...] = ()
    variance: tuple[SettingComponents, ...] = ()
    measured: tuple[tuple[str, Measurement], ...] = ()
    notes: tuple[str, ...] = ()
    rival: str = "none"
    gaps: tuple[GapCorrelation, ...] = ()


def analyze(
    frame: pd.DataFrame, facts: Facts, information: Information, split: str = "test", rival: str = "none"
) -> Analysis:
    """Set the results of one or several runs against the theory.

    Args:
        frame: The result table.
        facts: Sizes and transition matrices.
        information: What the bounds take beside them.
        split: The split that was scored.
        rival: Which training on all the noisy data a distilled set is held against: ``none`` for its last epoch, as in
            the papers, or ``early_stopped``.
    """
    found = crossovers(frame, split, rival=rival)
    bounds = tuple(bounds_of(item, facts, information, form) for item in found for form in FORMS)
    shares = {}
    for form in FORMS:
        own = [each for each in bounds if each.form == form]
        points = [item.crossover for item in found]
        shares[form] = coverage(points, [each.lower for each in own], [each.upper for each in own])
    laws = tuple(_with_size(law, facts) for law in scaling_laws(tuple(found), lambda item: factor_of(item, facts)))
    return Analysis(
        tuple(found),
        laws,
        bounds,
        shares,
        _rates(found, facts),
        found.reason,
        ratios=tuple(_compared(law, facts) for law in laws),
        variance=tuple(setting_components(frame, split)),
        measured=tuple((name, each.information) for name, each in facts.runs.items() if each.information is not None),
        notes=tuple(_notes(bounds)),
        rival=rival,
        gaps=tuple(gap_correlations(accuracy_gaps(frame, split, rival))),
    )


def factor_of(item: SeriesCrossover, facts: Facts) -> float | None:
    """Return what divides IPC* in the law of a series: 1 - rate, for annotators' noise 1 / kappa; None: unknown."""
    setting = item.setting
    if setting.noise != "natural":
        return clean_share(item)
    matrix = facts.transition(item.runs, setting.noise, setting.noise_rate, setting.label_set)
    return None if matrix is None else 1 / kappa(matrix)


def bounds_of(item: SeriesCrossover, facts: Facts, information: Information, form: Form) -> SeriesBounds:
    """Return the bounds of one series; unknown ones with a sentence that says what is missing."""
    setting = item.setting
    size = facts.size(setting.dataset, item.runs)
    if size.samples is None or size.classes is None:
        return SeriesBounds(setting, form, UNKNOWN, UNKNOWN, size.reason)
    if item.rate is not None and item.rate >= 1:
        return SeriesBounds(setting, form, UNKNOWN, UNKNOWN, "No bound holds where every label is wrong.")
    n, classes = size.samples, size.classes
    known = information.over(facts.measured(item.runs), setting.method)
    lower_known = not known.lacks()
    parts = {"i_min": known.i_min, "i_clean": known.i_clean, "r": known.redundancy}
    ratio = {name: 1.0 if value is None else value for name, value in parts.items()}
    matrix = facts.transition(item.runs, setting.noise, setting.noise_rate, setting.label_set)
    reason = "" if lower_known else f"Without {listed(known.lacks())} there is no lower bound."
    if setting.noise in ("asymmetric", "pairflip", "natural") and matrix is None:
        return SeriesBounds(setting, form, UNKNOWN, UNKNOWN, "The run has no transition matrix of this noise.")
    bounds: Bounds
    if setting.noise == "natural":
        bounds = natural_bounds(n=n, kappa=kappa(matrix or []), form=form, **ratio)
    elif setting.noise in ("asymmetric", "pairflip"):
        modes = effective_modes(matrix or [], C_EFF[form])
        bounds = asymmetric_bounds(n=n, tau=item.rate or 0.0, c_eff=modes, form=form, **ratio)
    else:
        bounds = symmetric_bounds(n=n, num_classes=classes, tau=item.rate or 0.0, form=form, **ratio)
    lower = float(bounds.lower) if lower_known else 0.0
    return SeriesBounds(setting, form, lower, float(bounds.upper), reason, n / classes)


def law_rates(frame: pd.DataFrame, facts: Facts, split: str = "test") -> tuple[LawRates, ...]:
    """Return the noise rates of every law, each estimated from the others.

    Args:
        frame: The result table.
        facts: Sizes.
        split: The split that was scored.
    """
    return _rates(crossovers(frame, split), facts)


def _rates(found: Sequence[SeriesCrossover], facts: Facts) -> tuple[LawRates, ...]:
    return tuple(_rates_of(setting, members, facts) for setting, members in by_noise(tuple(found)).items())


def _rates_of(setting: Setting, members: Sequence[SeriesCrossover], facts: Facts) -> LawRates:
    """Estimate the rates of one law's crossovers, each without itself."""
    size = facts.size(setting.dataset, {run for item in members for run in item.runs})
    known = [(item.rate, item.crossover) for item in members if item.rate is not None and item.rate < 1]
    if size.samples is None or size.classes is None:
        return LawRates(setting, None, size.reason)
    if not known:
        return LawRates(setting, None, "No series of it has a known rate of wrong labels.")
    study = leave_one_rate_out([rate for rate, _ in known], [p for _, p in known], size.samples, size.classes)
    return LawRates(setting, study)


def _with_size(law: ScalingLaw, facts: Facts) -> ScalingLaw:
    """Say where runs of several sizes are joined in a law, and what the factor of annotators' noise is."""
    runs = {run for _, item in law.points for run in item.runs}
    sizes = {facts.size(law.setting.dataset, [run]).samples for run in runs}
    mixed = len(sizes - {None}) > 1
    sentence = "Runs of different numbers of training images are joined, on which a may depend." if mixed else ""
    natural = KAPPA_LAW if law.setting.noise == "natural" else ""
    fit: ScalingFit = dataclasses.replace(law.fit, reason=joined(law.fit.reason, natural, sentence))
    return dataclasses.replace(law, fit=fit)


def _compared(law: ScalingLaw, facts: Facts) -> LawRatios:
    """Return what the ``a`` of a law is compared with."""
    measured = facts.measured({run for _, item in law.points for run in item.runs})
    if measured is None:
        return LawRatios(law, (), NOT_MEASURED)
    found = tuple(ratios(measured, law.setting.method))
    if not found:
        return LawRatios(law, (), "No combination of estimators is defined; each says why.")
    return LawRatios(law, found, "" if law.fit.exists else "There is no law, so no a to compare them with.")


def _notes(bounds: Sequence[SeriesBounds]) -> list[str]:
    """Return where bounds say nothing, or two things."""
    sentences = []
    for form in FORMS:
        own = [each for each in bounds if each.form == form and not math.isnan(each.upper)]
        low = [each for each in own if 0 < each.lower <= 1]
        high = [each for each in own if each.upper >= each.images]
        empty = [each for each in own if each.lower > each.upper]
        if low:
            sentences.append(f"{len(low)} of {len(own)} lower bounds ({form}) are at most 1 image per class: vacuous.")
        if high:
            sentences.append(
                f"{len(high)} of {len(own)} upper bounds ({form}) are no lower than the images that a class has: "
                "vacuous."
            )
        if empty:
            sentences.append(
                f"{len(empty)} of {len(own)} lower bounds ({form}) exceed the upper ones, so that no IPC lies between: "
                "an assumption or an estimate is wrong."
            )
    return sentences + _disagreement(bounds)


def _disagreement(bounds: Sequence[SeriesBounds]) -> list[str]:
    """Say where the published and the derived form differ."""
    pairs = [(one, two) for one, two in zip(bounds[::2], bounds[1::2], strict=True) if not math.isnan(one.upper)]
    apart = [
        max(_factor(one.lower, two.lower), _factor(one.upper, two.upper))
        for one, two in pairs
        if (one.lower, one.upper) != (two.lower, two.upper)
    ]
    if not apart:
        return []
    return [
        f"The published and the derived form disagree in {len(apart)} of {len(pairs)} series, by a factor of up to "
        f"{max(apart):.3g}; only the derived one follows from the proofs."
    ]


def _factor(one: float, two: float) -> float:
    return max(one, two) / min(one, two) if min(one, two) > 0 else 1.0
