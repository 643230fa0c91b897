"""How scores are laid out in the accuracy figure: panels, curves, and what is drawn beside each curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.names import EARLY_STOPPED, LABEL_SETS, NOISES, rank, rate_name
from analysis.scores import Score, Setting, full_data_score
from analysis.statistics import Interval, nested

Series = tuple[str, float | None, str | None]
Points = list[tuple[int, Interval]]


@dataclass
class Curve:
    """One noise rate (or label set) in one panel.

    Attributes:
        points: (IPC, accuracy) in the order of IPC.
        full: Full-data training at its last epoch.
        early: Full-data training, early stopped.
        random: (IPC, accuracy) of coresets of random real images.
    """

    points: Points = field(default_factory=list)
    full: Interval | None = None
    early: Interval | None = None
    random: Points = field(default_factory=list)


@dataclass
class Panel:
    """One method on one data set under one kind of noise.

    Attributes:
        key: The setting without noise rate, label set and IPC.
        curves: By noise rate or label set.
    """

    key: Setting
    curves: dict[Series, Curve]


def accuracy_panels(found: Sequence[Score], confidence: float = 0.95) -> list[Panel]:
    """Sort scores into panels.

    What was run without noise belongs to every kind of noise, as its rate zero: it is repeated in each of
    these panels and has one of its own only if its method was run without noise alone.

    Args:
        found: The result of :func:`analysis.scores.scores`.
        confidence: Coverage of the intervals.
    """
    bases = {score.setting.base_method for score in found} - {"full"}
    drawn = bases - {"random"} or bases
    chosen = [score for score in found if score.setting.base_method in drawn]
    panels: dict[Setting, Panel] = {}
    for score in chosen:
        key, series = _panel_key(score.setting), _series(score.setting)
        curves = panels.setdefault(key, Panel(key, {})).curves
        if series not in curves:
            curves[series] = _empty_curve(found, score, confidence)
        if score.setting.ipc is not None:
            curves[series].points.append((score.setting.ipc, nested(score.sample, confidence)))
    merged = [panel for key, panel in panels.items() if not _joins_others(key, panels)]
    for panel in merged:
        clean = panels.get(replace(panel.key, noise="none"))
        if clean is not None:
            panel.curves = {**clean.curves, **panel.curves}
    return merged


def _panel_key(setting: Setting) -> Setting:
    return replace(setting, noise_rate=None, label_set=None, ipc=None)


def _joins_others(key: Setting, panels: dict[Setting, Panel]) -> bool:
    return key.noise == "none" and any(other != key and replace(other, noise="none") == key for other in panels)


def _series(setting: Setting) -> Series:
    return (setting.noise, setting.noise_rate, setting.label_set)


def _empty_curve(found: Sequence[Score], score: Score, confidence: float) -> Curve:
    """Return a curve without points of its own, with what is drawn beside it."""
    full = full_data_score(found, score.setting, "none")
    early = full_data_score(found, score.setting, EARLY_STOPPED)
    here = replace(score.setting, base_method="random", variant="none", ipc=None)
    is_random = score.setting.base_method == "random"
    beside = [other for other in found if other.setting.base_method == "random" and not is_random]
    random = [
        (other.setting.ipc, nested(other.sample, confidence))
        for other in beside
        if other.setting.ipc is not None and replace(other.setting, ipc=None) == here
    ]
    return Curve(
        full=nested(full.sample, confidence) if full else None,
        early=nested(early.sample, confidence) if early else None,
        random=random,
    )


def series_order(series: Series) -> tuple[Any, ...]:
    """Sort key: rates by size, then label sets in their order."""
    noise, rate, label_set = series
    return (
        label_set is not None,
        rank(label_set, LABEL_SETS),
        -1.0 if rate is None else rate,
        rank(noise, NOISES),
    )


def series_setting(key: Setting, series: Series) -> Setting:
    """Return the setting (without IPC) of one curve of a panel."""
    noise, rate, label_set = series
    return replace(key, noise=noise, noise_rate=rate, label_set=label_set, ipc=None)


def series_name(series: Series) -> str:
    """Return what the legend calls a series: the rate, the label set, or ``"no noise"``."""
    noise, rate, label_set = series
    if label_set is not None:
        return label_set
    return "no noise" if noise == "none" else f"{rate_name(rate)} noise".strip()
