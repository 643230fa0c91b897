"""What ``ddnl analyze`` prints: the analysis as JSON and as lines for a person."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.analyze import Analysis, LawRates, LawRatios
from analysis.fits.coverage import Coverage
from analysis.fits.crossover import Crossover
from analysis.fits.nested import LEVELS, SettingComponents
from analysis.fits.resample import Estimate
from analysis.measure.ratios import DEFAULT, RELATIVE, WHY_DEFAULT
from analysis.measure.record import Measurement, Value
from analysis.measure.values import describe
from analysis.names import counted
from analysis.scores import Setting

SYMBOLS = {"i_min": "I_min", "i_clean": "I_clean", "redundancy": "r"}


_RIVALS = {"none": "", "early_stopped": ", with training on them stopped early"}


def to_json(analysis: Analysis) -> dict[str, Any]:
    """Return what ``ddnl analyze --json`` prints; nan and infinity become null and ``"inf"``."""
    return {
        "reason": analysis.reason,
        "rival": analysis.rival,
        "crossover": [
            {**_place(each.setting), "rate": each.rate, **_plain(each.crossover)} for each in analysis.crossovers
        ],
        "fit": [
            {
                **_place(law.setting),
                "factor": "1 / kappa" if law.setting.noise == "natural" else "1 - rate",
                **_plain(law.fit),
                "agrees": law.fit.agrees,
                "sentence": law.fit.sentence,
            }
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
        "gaps": [
            {**_place(each.setting), "ipc": each.setting.ipc, **_plain(each.correlation)} for each in analysis.gaps
        ],
        "variance": [
            {**_plain(dataclasses.asdict(each.setting)), **_plain(each.components)} for each in analysis.variance
        ],
        "information": {name: _plain(found) | {"key": found.key} for name, found in analysis.measured},
        "ratios": [
            {
                **_place(each.law.setting),
                "ratios": [_plain(one) | {"inside": one in each.inside} for one in each.ratios],
                "reason": each.reason,
            }
            for each in analysis.ratios
        ],
        "notes": list(analysis.notes),
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
    lines = [f"IPC*: images per class at which a distilled set is worth all the noisy data{_RIVALS[analysis.rival]}"]
    for item in analysis.crossovers:
        bounds = [each for each in analysis.bounds if each.setting == item.setting]
        ranges = "; ".join(f"{each.form} [{_number(each.lower)}, {_number(each.upper)}]" for each in bounds)
        lines.append(f"  {_name(item.setting)}: {_crossover(item.crossover)}; bounds {ranges}")
    lines += [f"  ({sentence})" for sentence in dict.fromkeys(each.reason for each in analysis.bounds if each.reason)]
    lines += [f"  {sentence}" for sentence in analysis.notes]
    lines += ["", "Scaling law  IPC* = a (1 - rate)^-b"]
    lines += [f"  {_name(law.setting)}: {law.fit.sentence}" for law in analysis.laws]
    lines += ["", *_measured(analysis)]
    lines += ["", "Coverage of the bounds"]
    lines += [f"  {form}: {_coverage(each)}" for form, each in analysis.coverage.items()]
    lines += ["", "Noise rate from crossovers, each rate left out in turn"]
    lines += [f"  {_name(each.setting)}: {_study(each)}" for each in analysis.rates]
    lines += ["", "Gap (distilled minus full-data accuracy) against the share of wrong labels, rank correlation"]
    lines += _gaps(analysis) or ["  It needs three rates or label sets with a full-data baseline."]
    lines += ["", "Where the variance of the accuracy is from", *_variance(analysis)]
    return "\n".join(lines)


def _gaps(analysis: Analysis) -> list[str]:
    """Return one line for every order that exists."""
    return [
        f"  {_name(each.setting)}, IPC {each.setting.ipc}: rho = {each.correlation.rho:.2f} over {each.correlation.n} "
        f"(p = {each.correlation.p_value:.2g})"
        for each in analysis.gaps
        if each.correlation.rho is not None and each.correlation.p_value is not None
    ]


def _measured(analysis: Analysis) -> Iterator[str]:
    """Yield what was measured, and the combinations beside the a of every law."""
    yield "Information, and I_min / (r I_clean) beside a"
    for name, found in analysis.measured:
        reference = found.reference
        yield (
            f"  {name}: {reference['network']} trained on {found.data['train_images']} clean labels for "
            f"{counted(int(reference['epochs']), 'epoch')}, test accuracy {100 * reference['accuracy']:.1f} %; "
            f"measured on {reference['samples']} held-out samples"
        )
        yield from (f"    {_symbol(value)}: {describe(value)}" for value in found.values)
    triple = ", ".join(f"{SYMBOLS[quantity]} by {name}" for quantity, name in DEFAULT.items())
    if analysis.measured:
        yield f"  Bounds take {triple}, unless given: {WHY_DEFAULT}."
        if any(_has_gradient(found) for _, found in analysis.measured):
            yield f"  {RELATIVE}"
    for each in analysis.ratios:
        yield from _ratios(each)


def _ratios(each: LawRatios) -> Iterator[str]:
    fit = each.law.fit
    a = f"a = {_interval(fit.a)}" if fit.exists else "no a"
    inside = f"; {len(each.inside)} of {len(each.ratios)} combinations inside" if fit.exists and each.ratios else ""
    yield f"  {_name(each.law.setting)}: {a}{inside}. {each.reason}".rstrip()
    for one in each.ratios:
        mark = "inside" if one in each.inside else "outside" if fit.exists else ""
        names = f"{one.i_min} / ({one.redundancy} x {one.i_clean})"
        yield f"    {names:58}{_number(one.value):>8} [{_number(one.low)} to {_number(one.high)}]  {mark}".rstrip()


def _symbol(value: Value) -> str:
    return f"{SYMBOLS[value.quantity]} by {value.estimator}" + (f", {value.method}" if value.method else "")


def _has_gradient(found: Measurement) -> bool:
    value = found.value("i_clean", "gradient")
    return value is not None and value.estimate is not None


def _variance(analysis: Analysis) -> Iterator[str]:
    """Yield one line per method and kind of noise, averaged over its settings, and what is not identified."""
    groups: dict[str, list[SettingComponents]] = {}
    for each in analysis.variance:
        groups.setdefault(f"{each.setting.dataset}, {each.setting.noise}, {each.setting.method}", []).append(each)
    for name, members in groups.items():
        parts = []
        for index, level in enumerate(LEVELS):
            known = [each.components.components[index].variance for each in members]
            known = [value for value in known if not math.isnan(value)]
            if known:
                parts.append(f"{level} {100 * math.sqrt(float(np.mean(known))):.2f}")
        said = f"standard deviations in points: {', '.join(parts)}" if parts else "one value each, so no variance"
        reasons = " ".join(dict.fromkeys(each.components.reason for each in members if each.components.reason))
        yield f"  {name} ({counted(len(members), 'setting')}): {said}. {reasons}".rstrip()
    if not groups:
        yield "  No selected trial has a score on this split."


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
