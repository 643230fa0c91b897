"""The crossover IPC*: the fewest images per class with which distilled data are worth all the noisy data.

``IPC*(tau)`` is the smallest IPC at which the distilled accuracy reaches that of training on all the data (its last
epoch) under the same noise. Between two IPCs that were run, the difference of the accuracies is taken to be linear in
log IPC. A difference is formed within a noise draw, where both sides saw the same wrong labels; draws on which full
training did not run are left out.

A crossover below the smallest IPC run, or above the largest, is censored: it is known to lie beyond, and no further.
Resamples of the bootstrap are censored in the same way, so an end of the interval can be 0 or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.fits.resample import Array, Size, counts, ends, generator, means, shortfall, size
from analysis.fits.series import Listing, Series, joined, series
from analysis.scores import Setting

Censored = Literal["none", "left", "right"]

NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Crossover:
    """The IPC at which a curve reaches a level.

    Attributes:
        value: Images per class; the smallest IPC run if ``left`` censored, the largest if ``right``; nan if there is
            nothing to compare.
        low: Lower end of its interval; 0 if that lies below the smallest IPC run, nan without an interval.
        high: Upper end; infinite if that lies above the largest IPC run, nan without an interval.
        censored: ``left``: the level was already reached at ``value``, so the truth is at most that; ``right``: it was
            not reached at ``value``, so the truth is larger; ``none``: it was reached in between.
        n: Number of noise draws (or of seeds of a single draw) behind it.
        reason: What limits it, in sentences; empty if nothing.
    """

    value: float
    low: float
    high: float
    censored: Censored
    n: int
    reason: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is a value, censored or not."""
        return not math.isnan(self.value)

    @property
    def is_measured(self) -> bool:
        """Whether there is a value that is not censored."""
        return self.is_known and self.censored == "none"


@dataclass(frozen=True, slots=True)
class SeriesCrossover:
    """The crossover of one series.

    Attributes:
        setting: What was run; its ``ipc`` is None.
        rate: Share of wrong labels (:class:`analysis.fits.series.Series`).
        crossover: Where distilled data become worth all the data.
        runs: Names of the runs that its scores are from.
    """

    setting: Setting
    rate: float | None
    crossover: Crossover
    runs: tuple[str, ...] = ()


def crossovers(
    frame: pd.DataFrame,
    split: str = "test",
    *,
    rival: str = "none",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Listing[SeriesCrossover]:
    """Return the crossover of every series of a frame.

    Args:
        frame: The result table.
        split: The split that was scored.
        rival: Full-data baseline: ``none`` for its last epoch, ``early_stopped`` for its early-stopped score.
        confidence: Coverage of the intervals, in (0, 1).
        num_resamples: Resamples of the paired bootstrap.
        seed: Seed of the bootstrap.
    """
    found = series(frame, split, rival)
    items = (
        SeriesCrossover(
            item.setting,
            item.rate,
            series_crossover(item, generator(seed, "crossover", item.setting), confidence, num_resamples),
            item.runs,
        )
        for item in found
    )
    return Listing(tuple(items), found.reason)


def series_crossover(
    item: Series, rng: np.random.Generator, confidence: float = 0.95, num_resamples: int = NUM_RESAMPLES
) -> Crossover:
    """Return the crossover of one series with its full-data baseline."""
    if not item.by_ipc:
        return _unknown(item.reason)
    if item.full is None:
        return _unknown(joined("No full-data baseline has the same data, noise and evaluation network.", item.reason))
    baseline: dict[int | None, list[float]] = {}
    for (draw, _), repeats in item.full.sample.items():
        baseline.setdefault(draw, []).append(float(np.mean(repeats)))
    matched = [key for key in item.replicates if key[0] in baseline]
    if not matched:
        return _unknown(joined("No noise draw has both a distilled set and a full-data baseline.", item.reason))
    level = np.array([np.mean(baseline[draw]) for draw, _ in matched], dtype=np.float64)
    differences = item.table(matched) - level[:, None]
    of = size(matched)
    taken = counts(matched, "draws", num_resamples, rng)
    left_out = len({draw for draw, _ in item.replicates}) - len({draw for draw, _ in matched})
    note = joined(
        _size_sentence(of),
        shortfall(of, confidence),
        f"{left_out} noise draw(s) without a baseline left out." if left_out else "",
    )
    return crossover(item.ipcs, differences, taken, of, confidence, joined(note, item.reason))


def crossover(
    ipcs: Sequence[int], differences: Array, taken: Array, of: Size, confidence: float = 0.95, reason: str = ""
) -> Crossover:
    """Return where the mean difference first reaches zero.

    Args:
        ipcs: Images per class, ascending, K of them.
        differences: Distilled minus baseline accuracy of every replicate, [R, K]; nan where not run.
        taken: Counts of the resamples, [B, R] (:func:`analysis.fits.resample.counts`).
        of: Size of the resampled data.
        confidence: Coverage of the interval.
        reason: Carried over into the result.
    """
    point = first_reached(ipcs, means(differences, np.ones((1, len(differences)))))
    resampled = first_reached(ipcs, means(differences, taken))
    return as_crossover(ipcs, float(point[0]), ends(resampled, of, confidence), of.n, reason)


def as_crossover(
    ipcs: Sequence[int], place: float, interval: tuple[float, float], n: int, reason: str = ""
) -> Crossover:
    """Return a crossover from log IPCs in which infinities stand for censoring.

    A lower end above the IPCs that were run becomes the largest of them, an upper end below them the smallest.
    """
    if math.isnan(place):
        return _unknown(reason)
    first, last = float(ipcs[0]), float(ipcs[-1])
    low = last if interval[0] == math.inf else math.exp(interval[0])
    high = first if interval[1] == -math.inf else math.exp(interval[1])
    if place == -math.inf:
        return Crossover(first, low, high, "left", n, reason)
    if place == math.inf:
        return Crossover(last, low, high, "right", n, reason)
    return Crossover(math.exp(place), low, high, "none", n, reason)


def first_reached(ipcs: Sequence[int], heights: Array) -> Array:
    """Return the log IPC at which each curve first reaches zero, interpolated linearly in log IPC.

    Args:
        ipcs: Images per class, ascending, K of them.
        heights: [B, K]; nan where there is no point, which the interpolation skips.

    Returns:
        [B]; -inf if the first point is at or above zero, inf if none is, nan if a curve has no point.
    """
    place = np.full(len(heights), math.inf)
    before, last = np.full(len(heights), math.nan), np.full(len(heights), math.nan)
    for x, height in zip(np.log(np.asarray(ipcs, dtype=np.float64)), heights.T, strict=True):
        hit = (height >= 0) & (place == math.inf)
        place[hit & np.isnan(last)] = -math.inf
        inside = hit & ~np.isnan(last)
        share = -last[inside] / (height[inside] - last[inside])
        place[inside] = before[inside] + share * (x - before[inside])
        present = ~np.isnan(height)
        before[present], last[present] = x, height[present]
    return np.where(np.isnan(last), math.nan, place)


def _unknown(reason: str) -> Crossover:
    return Crossover(math.nan, math.nan, math.nan, "none", 0, reason)


def _size_sentence(of: Size) -> str:
    if of.freedom < 1:
        return "One replicate only: no interval."
    return "One noise draw only: the interval covers distillation on that draw." if of.within else ""
