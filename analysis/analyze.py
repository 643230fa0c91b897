"""Theory against practice for finished sweeps: crossovers, the scaling law, bounds, coverage and noise rates.

The bounds hold for a number of training samples and of classes, and for a noise with a transition matrix; all come from
the run's own files (:class:`Facts`). The information that a class needs and that a clean sample has are not in a result
table: without them there is no lower bound, and the upper one is that of the in-the-wild paper (no redundancy).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.fits.coverage import Coverage, coverage
from analysis.fits.crossover import Crossover, SeriesCrossover, crossovers
from analysis.fits.rates import RateStudy, leave_one_rate_out
from analysis.fits.resample import Estimate
from analysis.fits.scaling import ScalingLaw, scaling_laws
from analysis.fits.series import by_noise
from analysis.scores import Setting
from analysis.theory import Bounds, asymmetric_bounds, effective_modes, kappa, natural_bounds, symmetric_bounds
from analysis.theory.symbols import Form
from ddnl_ray.files import read_json

FORMS: tuple[Form, ...] = ("published", "derived")
C_EFF: dict[Form, str] = {"published": "entropy", "derived": "entropy_complement"}
"""Which estimator of C_eff belongs to which form."""
UNKNOWN = math.nan
NO_SIZE = "The run does not say how many training images and classes there are; run the same sweep command again."


@dataclass(frozen=True)
class Facts:
    """What bounds need to know of a run beside its results.

    Attributes:
        samples: Training images by data set.
        classes: Classes by data set.
        transitions: Realised transition matrices [C, C], rows true classes, by kind, rate and label set of the noise.
    """

    samples: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    transitions: dict[tuple[str, float | None, str | None], list[list[float]]] = field(default_factory=dict)

    @classmethod
    def read(cls, summary: dict[str, Any], noise: Sequence[dict[str, Any]]) -> Facts:
        """Take the facts from ``summary.json`` and ``noise.json`` of a run; what is missing is left out."""
        data = summary.get("data", [])
        matrices = {
            (each["kind"], each["rate"], each["labels"]): each["transition_realised"]
            for each in noise
            if each.get("transition_realised") is not None and None not in each["transition_realised"]
        }
        return cls(
            {each["dataset"]: each["train_images"] for each in data},
            {each["dataset"]: each["classes"] for each in data},
            matrices,
        )

    @classmethod
    def of(cls, run: Path) -> Facts:
        """Read the facts of a run folder; files that are not there say nothing."""
        summary, noise = (run / name for name in ("summary.json", "noise.json"))
        return cls.read(
            read_json(summary) if summary.is_file() else {},
            read_json(noise) if noise.is_file() else [],
        )

    def __or__(self, other: Facts) -> Facts:
        """Return the facts of both."""
        return Facts(self.samples | other.samples, self.classes | other.classes, self.transitions | other.transitions)


@dataclass(frozen=True)
class Information:
    """What the lower bounds take, and the redundancy of the upper ones.

    Attributes:
        i_min: Information that a class needs to generalise, nats; None: unknown, and there is no lower bound.
        i_clean: Information of one clean sample, nats; None: unknown.
        redundancy: r, in (0, 1].
    """

    i_min: float | None = None
    i_clean: float | None = None
    redundancy: float = 1.0


@dataclass(frozen=True)
class SeriesBounds:
    """The bounds on IPC* of one series in one form; nan where they are unknown."""

    setting: Setting
    form: Form
    lower: float
    upper: float
    reason: str = ""


@dataclass(frozen=True)
class LawRates:
    """The noise rates of one method under one kind of noise, each estimated from the others."""

    setting: Setting
    study: RateStudy | None
    reason: str = ""


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
    """

    crossovers: tuple[SeriesCrossover, ...]
    laws: tuple[ScalingLaw, ...]
    bounds: tuple[SeriesBounds, ...]
    coverage: dict[Form, Coverage]
    rates: tuple[LawRates, ...]
    reason: str = ""


def analyze(frame: pd.DataFrame, facts: Facts, information: Information, split: str = "test") -> Analysis:
    """Set the results of one or several runs against the theory.

    Args:
        frame: The result table.
        facts: Sizes and transition matrices.
        information: What the bounds take beside them.
        split: The split that was scored.
    """
    found = crossovers(frame, split)
    bounds = tuple(bounds_of(item, facts, information, form) for item in found for form in FORMS)
    shares = {}
    for form in FORMS:
        own = [each for each in bounds if each.form == form]
        points = [item.crossover for item in found]
        shares[form] = coverage(points, [each.lower for each in own], [each.upper for each in own])
    rates = tuple(_rates(setting, members, facts) for setting, members in by_noise(tuple(found)).items())
    return Analysis(tuple(found), tuple(scaling_laws(tuple(found))), bounds, shares, rates, found.reason)


def bounds_of(item: SeriesCrossover, facts: Facts, information: Information, form: Form) -> SeriesBounds:
    """Return the bounds of one series; unknown ones with a sentence that says what is missing."""
    setting = item.setting
    n, classes = facts.samples.get(setting.dataset), facts.classes.get(setting.dataset)
    if n is None or classes is None:
        return SeriesBounds(setting, form, UNKNOWN, UNKNOWN, NO_SIZE)
    if item.rate is not None and item.rate >= 1:
        return SeriesBounds(setting, form, UNKNOWN, UNKNOWN, "No bound holds where every label is wrong.")
    lower_known = information.i_min is not None and information.i_clean is not None
    ratio = {"i_min": information.i_min or 1.0, "i_clean": information.i_clean or 1.0, "r": information.redundancy}
    matrix = facts.transitions.get((setting.noise, setting.noise_rate, setting.label_set))
    reason = "" if lower_known else "Without i_min and i_clean there is no lower bound."
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
    return SeriesBounds(setting, form, float(bounds.lower) if lower_known else 0.0, float(bounds.upper), reason)


def _rates(setting: Setting, members: Sequence[SeriesCrossover], facts: Facts) -> LawRates:
    """Estimate the rates of one law's crossovers, each without itself."""
    n, classes = facts.samples.get(setting.dataset), facts.classes.get(setting.dataset)
    known = [(item.rate, item.crossover) for item in members if item.rate is not None and item.rate < 1]
    if n is None or classes is None or not known:
        return LawRates(setting, None, NO_SIZE)
    return LawRates(setting, leave_one_rate_out([rate for rate, _ in known], [p for _, p in known], n, classes))


def to_json(analysis: Analysis) -> dict[str, Any]:
    """Return what ``ddnl analyze --json`` prints; nan and infinity become null and ``"inf"``."""
    return {
        "reason": analysis.reason,
        "crossover": [
            {**_place(each.setting), "rate": each.rate, **_plain(each.crossover)} for each in analysis.crossovers
        ],
        "fit": [
            {**_place(law.setting), **_plain(law.fit), "agrees": law.fit.agrees, "sentence": law.fit.sentence}
            for law in analysis.laws
        ],
        "bounds": [
            {
                **_place(each.setting),
                **_plain({"form": each.form, "lower": each.lower, "upper": each.upper}),
                "reason": each.reason,
            }
            for each in analysis.bounds
        ],
        "coverage": {form: _plain(each) for form, each in analysis.coverage.items()},
        "noise_rate": [
            {**_place(each.setting), **(_plain(each.study) if each.study is not None else {"reason": each.reason})}
            for each in analysis.rates
        ],
    }


def _place(setting: Setting) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(setting).items() if name != "ipc"}


def _plain(value: Any) -> Any:
    """Return records as JSON knows them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else "inf" if value == math.inf else float(value)
    return value


def to_text(analysis: Analysis) -> str:
    """Return the analysis as lines for a person."""
    if analysis.reason:
        return analysis.reason
    lines = ["IPC*: images per class at which a distilled set is worth all the noisy data"]
    for item in analysis.crossovers:
        bounds = [each for each in analysis.bounds if each.setting == item.setting]
        ranges = "; ".join(f"{each.form} [{_number(each.lower)}, {_number(each.upper)}]" for each in bounds)
        lines.append(f"  {_name(item.setting)}: {_crossover(item.crossover)}; bounds {ranges}")
    lines += [f"  ({sentence})" for sentence in dict.fromkeys(each.reason for each in analysis.bounds if each.reason)]
    lines += ["", "Scaling law  IPC* = a (1 - rate)^-b"]
    lines += [f"  {_name(law.setting)}: {law.fit.sentence}" for law in analysis.laws]
    lines += ["", "Coverage of the bounds"]
    lines += [f"  {form}: {_coverage(each)}" for form, each in analysis.coverage.items()]
    lines += ["", "Noise rate from crossovers, each rate left out in turn"]
    lines += [f"  {_name(each.setting)}: {_study(each)}" for each in analysis.rates]
    return "\n".join(lines)


def _name(setting: Setting) -> str:
    noise = setting.noise if setting.noise_rate is None and setting.label_set is None else setting.noise_label
    return f"{setting.dataset}, {noise}, {setting.method}"


def _crossover(point: Crossover) -> str:
    if not point.is_known:
        return f"none. {point.reason}"
    sign = {"none": "", "left": "at most ", "right": "above "}[point.censored]
    interval = "" if math.isnan(point.low) else f" [{_number(point.low)} to {_number(point.high)}]"
    return f"{sign}{_number(point.value)}{interval}, n = {point.n}"


def _coverage(found: Coverage) -> str:
    measured = found.num_inside + found.num_below + found.num_above
    censored = found.num_censored_outside + found.num_censored_undecided
    parts = f"{found.num_inside} of {measured} measured inside ({found.num_below} below, {found.num_above} above)"
    outside = f"{censored} censored, {found.num_censored_outside} of them certainly outside"
    return f"{parts}; {outside}. {found.reason}".strip()


def _study(found: LawRates) -> str:
    if found.study is None:
        return found.reason
    study = found.study
    if not study.num_errors:
        return study.reason
    return (
        f"mean absolute error {study.mean_error:.3f} over {study.num_errors} rates; guessing the mean of the others "
        f"{study.guess_error:.3f}; alpha {_interval(study.alpha)}. {study.reason}".strip()
    )


def _interval(estimate: Estimate) -> str:
    ends = f" [{_number(estimate.low)} to {_number(estimate.high)}]" if estimate.is_bounded else ""
    return f"{_number(estimate.value)}{ends}"


def _number(value: float) -> str:
    return "?" if math.isnan(value) else "inf" if math.isinf(value) else f"{value:.3g}"
