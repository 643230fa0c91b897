"""The accuracy gap as a signal of label quality: distilled minus full-data accuracy against the noise rate.

The source proposes the gap as a measure that needs no clean labels. Here its rank correlation with the true rate is
reported over the label sets (or rates) of one data set, method and IPC, with the number of them: over the five label
sets of CIFAR-10N even a perfect order has p = 2 / 120.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.fits.resample import Array
from analysis.fits.series import Listing, by_noise, series
from analysis.scores import Setting
from analysis.statistics import Interval, paired

_EXACT_UP_TO = 8
"""Numbers of pairs for which all orders are counted."""


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's rank correlation.

    Attributes:
        rho: In [-1, 1]; None if it is undefined.
        p_value: Two-sided, exact up to 8 pairs; None where rho is.
        n: Number of pairs.
        reason: Why it is undefined; empty if it is not.
    """

    rho: float | None
    p_value: float | None
    n: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AccuracyGap:
    """Distilled minus full-data accuracy in one setting.

    Attributes:
        setting: The distilled side.
        rate: Share of wrong labels (:class:`analysis.fits.series.Series`).
        gap: The paired difference; n is 0 if nothing matches.
    """

    setting: Setting
    rate: float | None
    gap: Interval


@dataclass(frozen=True, slots=True)
class GapCorrelation:
    """The correlation of the gap at one IPC; rate and label set of ``setting`` are None."""

    setting: Setting
    correlation: RankCorrelation


def accuracy_gaps(
    frame: pd.DataFrame, split: str = "test", rival: str = "none", confidence: float = 0.95
) -> Listing[AccuracyGap]:
    """Return the gap of every setting that has a full-data baseline, in the order of tables."""
    found = series(frame, split, rival)
    gaps = [
        AccuracyGap(score.setting, item.rate, paired(score.sample, item.full.sample, confidence))
        for item in found
        if item.full is not None
        for score in item.by_ipc.values()
    ]
    nothing = "No series has a full-data baseline with the same data, noise and evaluation network."
    return Listing(tuple(gaps), found.reason or ("" if gaps else nothing))


def gap_correlations(
    gaps: Sequence[AccuracyGap], measure: Callable[[AccuracyGap], float | None] | None = None
) -> Listing[GapCorrelation]:
    """Correlate gap and noise over the rates or label sets of one data set, kind of noise, method and IPC.

    Args:
        gaps: As :func:`accuracy_gaps` gives them.
        measure: What the gap is set against, for example the kappa of a label set; None leaves a gap out. By default
            the rate.
    """
    results = []
    for setting, members in by_noise(gaps).items():
        pairs = [(gap.gap.mean, gap.rate if measure is None else measure(gap)) for gap in members if gap.gap.n]
        known = [(gap, value) for gap, value in pairs if value is not None]
        correlation = rank_correlation([gap for gap, _ in known], [value for _, value in known])
        results.append(GapCorrelation(setting, correlation))
    results.sort(key=lambda item: item.setting.order)
    return Listing(tuple(results), "" if results else "There is no accuracy gap to correlate.")


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> RankCorrelation:
    """Return Spearman's rank correlation of pairs; ties share their mean rank.

    Undefined for fewer than three pairs, or if one side is constant.
    """
    n = len(x)
    if n < 3:
        return RankCorrelation(None, None, n, f"A rank correlation needs at least three pairs, but there are {n}.")
    ranks_x, ranks_y = _centred_ranks(x), _centred_ranks(y)
    norm = math.sqrt(float(ranks_x @ ranks_x) * float(ranks_y @ ranks_y))
    if norm == 0:
        return RankCorrelation(None, None, n, "One side is constant, so there is no order to compare.")
    rho = float(ranks_x @ ranks_y) / norm
    if n > _EXACT_UP_TO:
        return RankCorrelation(rho, float(stats.spearmanr(x, y).pvalue), n)
    orders = np.array(list(itertools.permutations(ranks_y)))
    return RankCorrelation(rho, float((np.abs(orders @ ranks_x) / norm >= abs(rho) - 1e-9).mean()), n)


def _centred_ranks(values: Sequence[float]) -> Array:
    ranks = stats.rankdata(values)
    return np.asarray(ranks - ranks.mean(), dtype=np.float64)
