"""What single sections of the report say: noise rates, where the spread comes from, and tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.analyze import Analysis, LawRates
from analysis.figures.bounds import NO_CROSSOVER
from analysis.fits.nested import LEVELS, SettingComponents, setting_components
from analysis.fits.rates import RateEstimate
from analysis.names import NOT_AVAILABLE, counted, listed, percent
from analysis.scores import Setting, select_on
from analysis.trials import Cell, num_stopped, tuned
from analysis.tuning import Importance, Plot, Search, choosing, importance, parallel_plot, read_space, searches

PLOT_BYTES = 2 * 2**20
"""Lines of parallel axes that a report embeds."""
BYTES_OF_A_LINE = 600
OPEN_PLOTS = 2
"""Searches that are shown at once; more are folded away."""


@dataclass(frozen=True)
class RateRow:
    """One estimate of a noise rate in texts."""

    law: str
    rate: str
    rate_key: float
    estimate: str
    estimate_key: float
    interval: str
    error: str
    error_key: float


@dataclass(frozen=True)
class SpreadLevel:
    """The standard deviation (0..1) that one level adds; nan if the run cannot tell it from the level before."""

    deviation: float
    freedom: int

    @property
    def is_known(self) -> bool:
        """Whether the level is identified."""
        return not math.isnan(self.deviation)


@dataclass(frozen=True)
class SpreadRow:
    """The spread of one setting by level, and the number of values behind it."""

    setting: Setting
    n: int
    levels: list[SpreadLevel]


@dataclass(frozen=True)
class SearchSection:
    """One search with its drawing and what mattered."""

    title: str
    search: Search
    plot: Plot | None
    importance: Importance
    sentence: str
    split: str
    is_open: bool

    @property
    def num_unscored(self) -> int:
        """Trials without a score."""
        return len(self.search.trials) - len(self.search.scored)


def rates_section(analysis: Analysis) -> dict[str, Any]:
    """Return the noise rates that crossovers give, each from the other rates, with a sentence per method."""
    if not any(item.crossover.is_known for item in analysis.crossovers):
        return {"rows": [], "sentences": [], "reason": analysis.reason or NO_CROSSOVER}
    studies = [(law, law.study) for law in analysis.rates if law.study is not None]
    rows = [
        _rate_row(law, estimate)
        for law, study in studies
        for estimate in study.estimates
        if not (math.isnan(estimate.estimate) and math.isnan(estimate.low))
    ]
    sentences = [_rate_sentence(law) for law in analysis.rates]
    return {"rows": rows, "sentences": list(dict.fromkeys(sentences)), "reason": ""}


def spread_section(frame: pd.DataFrame, split: str) -> dict[str, Any]:
    """Return the variance components of every setting with replicates, pooled in a sentence."""
    found = setting_components(frame, split)
    known = [item for item in found if item.components.n > 1]
    rows = [_spread_row(item) for item in known]
    notes = dict.fromkeys(item.components.reason for item in known if item.components.reason)
    shown = [i for i, level in enumerate(LEVELS) if any(row.levels[i].is_known for row in rows)]
    return {
        "rows": rows,
        "levels": [(i, LEVELS[i]) for i in shown],
        "lead": _spread_lead(known),
        "notes": list(notes),
        "reason": found.reason,
    }


def tuning_section(runs: Sequence[Path], frame: pd.DataFrame, found: Sequence[Cell], split: str) -> dict[str, Any]:
    """Return all that the section on tuning shows: searches, their drawings, and the optimism of choosing."""
    chosen_on = select_on(frame)
    space = {name: values for run in runs for name, values in read_space(run).items()}
    made = searches(found, space, chosen_on, split) if chosen_on is not None else []
    shown: list[SearchSection] = []
    bytes_left, num_left_out = PLOT_BYTES, 0
    for search in made:
        bytes_left -= BYTES_OF_A_LINE * len(search.trials)
        if bytes_left < 0:
            num_left_out += 1
            continue
        what = importance(search)
        title = " · ".join(part for part in _place(search.setting) if part)
        sentence, is_open = _importance_sentence(search, what), len(shown) < OPEN_PLOTS
        shown.append(SearchSection(title, search, parallel_plot(search), what, sentence, split, is_open))
    gap = choosing(found, chosen_on, split)
    return {
        "cells": tuned(found),
        "num_stopped": num_stopped(found),
        "searches": shown,
        "num_left_out": num_left_out,
        "choosing": gap.sentence if gap is not None else "",
    }


def _place(setting: Setting) -> tuple[str, ...]:
    ipc = "" if setting.ipc is None else f"IPC {setting.ipc}"
    return (setting.method, ipc, setting.dataset, setting.noise_label, setting.networks)


def _law(law: LawRates) -> str:
    return " · ".join(part for part in (law.setting.dataset, law.setting.noise, law.setting.method) if part)


def _rate_row(law: LawRates, estimate: RateEstimate) -> RateRow:
    ends, known = (percent(estimate.low), percent(estimate.high)), percent(estimate.estimate)
    is_bounded = estimate.censored == "none" and not math.isnan(estimate.low)
    says = {"left": f"at least {ends[0]}", "right": f"at most {ends[1]}", "none": known}
    return RateRow(
        law=_law(law),
        rate=percent(estimate.rate),
        rate_key=estimate.rate,
        estimate=says[estimate.censored],
        estimate_key=estimate.estimate,
        interval=("says nothing" if estimate.is_vacuous else " to ".join(ends)) if is_bounded else NOT_AVAILABLE,
        error=percent(estimate.error),
        error_key=estimate.error,
    )


def _rate_sentence(law: LawRates) -> str:
    if law.study is None:
        return law.reason
    study, name = law.study, _law(law)
    if not study.num_errors:
        return f"{name}: no estimate. {study.reason}".strip()
    verdict = (
        "closer than guessing the mean of the other rates"
        if study.mean_error < study.guess_error
        else "no better than guessing the mean of the other rates, so that the estimate carries no information"
    )
    alpha = f"{study.alpha.value:.3g}"
    if study.alpha.is_bounded:
        alpha += f" ({study.alpha.low:.3g} to {study.alpha.high:.3g})"
    return (
        f"{name}: mean absolute error {percent(study.mean_error)} points over "
        f"{counted(study.num_errors, 'rate')}, {verdict} ({percent(study.guess_error)} points). One distilled image is "
        f"worth α = {alpha} clean samples. {study.reason}"
    ).strip()


def _spread_row(item: SettingComponents) -> SpreadRow:
    levels = [SpreadLevel(math.sqrt(part.variance), part.freedom) for part in item.components.components]
    return SpreadRow(item.setting, item.components.n, levels)


def _spread_lead(known: Sequence[SettingComponents]) -> str:
    """Return the shares of all variances together, over the settings in which the same levels are identified."""
    groups: dict[tuple[int, ...], list[SettingComponents]] = {}
    for item in known:
        levels = tuple(i for i, part in enumerate(item.components.components) if not math.isnan(part.variance))
        groups.setdefault(levels, []).append(item)
    groups = {levels: items for levels, items in groups.items() if len(levels) > 1}
    if not groups:
        return ""
    levels, items = max(groups.items(), key=lambda group: len(group[1]))
    sums = [math.fsum(item.components.components[i].variance for item in items) for i in levels]
    freedom = [sum(item.components.components[i].freedom for item in items) for i in levels]
    if not sum(sums):
        return ""
    named = zip((LEVELS[i] for i in levels), sums, freedom, strict=True)
    shares = listed(f"{100 * part / sum(sums):.0f} % from the {level} ({free} df)" for level, part, free in named)
    return f"Of the variance within a setting, pooled over {counted(len(items), 'setting')}: {shares}."


def _importance_sentence(search: Search, found: Importance) -> str:
    if found.reason:
        return found.reason
    studies = counted(search.num_cells, "study").replace("studys", "studies")
    above = [share.name for share in found.shares if share.stands_out]
    basis = (
        f"Share of the variance of the scores on {search.select_on} that each parameter explains on its own "
        f"(functional ANOVA of {found.num_trials} trials of {studies}, fixed seed)."
    )
    caution = " The sampler tries good regions more often, so the trials are no even sample of the space."
    if not above:
        return f"No parameter stands out from chance. {basis}{caution}"
    verb = "stands" if len(above) == 1 else "stand"
    return f"{listed(above)} {verb} out from chance. {basis}{caution}"
