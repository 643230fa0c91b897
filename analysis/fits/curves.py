"""Accuracy curves acc(IPC): means with bootstrap bands, the saturating fit, and the IPC of saturation.

``IPC_sat`` is the smallest IPC within ``epsilon`` of the highest mean accuracy of the curve, interpolated linearly in
log IPC. If the largest IPC that was run is alone within ``epsilon``, the curve is still rising and the value is
censored: the truth is larger. ``SaturatingFit.ipc_within`` is its extrapolated counterpart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fits.crossover import NUM_RESAMPLES, Crossover, as_crossover, first_reached
from analysis.fits.resample import Array, Size, counts, ends, generator, means, shortfall, size
from analysis.fits.saturating import SaturatingFit, fit_saturating
from analysis.fits.series import Listing, Series, joined, series
from analysis.scores import Setting
from ddnl_ray.errors import RequestError


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The accuracy at one IPC.

    Attributes:
        ipc: Images per class.
        mean: Mean accuracy over replicates, 0..1.
        low: Lower end of the bootstrap interval; nan without one.
        high: Upper end.
        n: Resampled units behind the interval: noise draws, or replicates where draws are held fixed.
        within: There is one noise draw only, and the interval holds for it.
    """

    ipc: int
    mean: float
    low: float
    high: float
    n: int
    within: bool


@dataclass(frozen=True, slots=True)
class AccuracyCurve:
    """The accuracy curve of one series.

    Attributes:
        setting: What was run; its ``ipc`` is None.
        points: By IPC, ascending; empty if no cell has a score.
        fit: The saturating curve.
        saturation: The IPC of saturation.
        epsilon: How far below the maximum that is, as an accuracy.
        reason: What limits the points, in sentences; empty if nothing.
    """

    setting: Setting
    points: tuple[CurvePoint, ...]
    fit: SaturatingFit
    saturation: Crossover
    epsilon: float
    reason: str


def accuracy_curves(
    frame: pd.DataFrame,
    split: str = "test",
    *,
    epsilon: float = 0.01,
    over: str = "draws",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Listing[AccuracyCurve]:
    """Return the accuracy curve of every series of a frame.

    Args:
        frame: The result table.
        split: The split that was scored.
        epsilon: Distance from the maximum that counts as saturated, an accuracy in (0, 1).
        over: ``draws``: bands over noise draws; ``seeds``: noise draws are strata, and the seeds within them are
            resampled (:func:`analysis.fits.resample.counts`).
        confidence: Coverage of the bands, pointwise.
        num_resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Raises:
        RequestError: ``epsilon`` or ``over`` is out of range.
    """
    if not 0 < epsilon < 1:
        raise RequestError(f"epsilon must be an accuracy between 0 and 1 but got {epsilon}; use for example 0.01")
    found = series(frame, split)
    items = (
        accuracy_curve(item, generator(seed, "curve", item.setting), epsilon, over, confidence, num_resamples)
        for item in found
    )
    return Listing(tuple(items), found.reason)


def accuracy_curve(
    item: Series,
    rng: np.random.Generator,
    epsilon: float = 0.01,
    over: str = "draws",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> AccuracyCurve:
    """Return the accuracy curve of one series (see :func:`accuracy_curves`)."""
    replicates = item.replicates
    values = item.table(replicates)
    of = size(replicates, over)
    taken = counts(replicates, over, num_resamples, rng)
    mean, resampled = means(values, np.ones((1, len(values))))[0], means(values, taken)
    points = []
    for i, ipc in enumerate(item.ipcs):
        here = size([key for key, value in zip(replicates, values[:, i], strict=True) if value == value], over)
        low, high = ends(resampled[:, i], here, confidence)
        points.append(CurvePoint(ipc, float(mean[i]), low, high, here.n, here.within))
    weights = (~np.isnan(values)).sum(axis=0).astype(np.float64)
    return AccuracyCurve(
        setting=item.setting,
        points=tuple(points),
        fit=fit_saturating(item.ipcs, mean, weights, resampled, of, confidence),
        saturation=saturation(item.ipcs, mean, resampled, of, epsilon, confidence),
        epsilon=epsilon,
        reason=joined(_size_sentence(of, over), shortfall(of, confidence), item.reason),
    )


def saturation(
    ipcs: tuple[int, ...], mean: Array, resampled: Array, of: Size, epsilon: float, confidence: float = 0.95
) -> Crossover:
    """Return the smallest IPC within ``epsilon`` of the curve's maximum.

    Args:
        ipcs: Images per class, ascending, K of them.
        mean: Mean accuracy at each, [K].
        resampled: Means of every resample, [B, K].
        of: Size of the resampled data.
        epsilon: Distance from the maximum.
        confidence: Coverage of the interval.
    """
    if len(ipcs) < 2:
        text = f"Saturation needs at least two IPCs, but {len(ipcs)} has a score."
        return Crossover(math.nan, math.nan, math.nan, "none", 0, text)
    place = float(_saturated(ipcs, mean[None], epsilon)[0])
    text = "The accuracy still rises at the largest IPC run." if place == math.inf else ""
    return as_crossover(ipcs, place, ends(_saturated(ipcs, resampled, epsilon), of, confidence), of.n, text)


def _saturated(ipcs: tuple[int, ...], means_: Array, epsilon: float) -> Array:
    """Return the log IPC of saturation of every row of [B, K]; inf where only the last point is within reach."""
    complete = np.asarray(~np.isnan(means_).any(axis=1))
    level = np.where(complete[:, None], means_, -math.inf).max(axis=1) - epsilon
    place = first_reached(ipcs, means_ - np.where(complete, level, math.nan)[:, None])
    rising = np.asarray((means_[:, :-1] < level[:, None]).all(axis=1))
    place[rising & complete] = math.inf
    return place


def _size_sentence(of: Size, over: str) -> str:
    if of.n == 0:
        return ""
    if of.freedom < 1:
        return "One replicate only: no bands." if over == "draws" else "One seed per noise draw: no bands over seeds."
    return "One noise draw only: the bands cover distillation on that draw." if of.within else ""
