"""Nested replicates: where the spread comes from, means over them, and the price of choosing on the test set.

A noise draw holds expert buffers, a buffer holds distilled sets, and a set holds evaluations. The seed 0 of two noise
draws names two different distillations, so levels are nested, never crossed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fits.crossover import NUM_RESAMPLES
from analysis.fits.resample import Array, counts, ends, means, size
from analysis.fits.series import Listing, joined
from analysis.names import listed, split_name
from analysis.scores import Setting, headline_rows, records, select_on, setting_of
from analysis.statistics import Interval, Replicate, Sample, nested
from ddnl_ray.errors import RequestError

LEVELS = ("noise draw", "expert buffer", "distillation", "evaluation")
_COLUMNS = ("noise_seed", "expert_key", "seed", "eval_seed")


@dataclass(frozen=True, slots=True)
class Component:
    """The variance that one level adds.

    Attributes:
        level: Name of the level.
        raw: Moment estimate, which may be negative; nan if the level is not identified.
        variance: The same, at least 0.
        share: Of the sum of all variances; nan if it is not identified or the sum is 0.
        num_groups: Number of groups at this level, over all groups above.
        freedom: Degrees of freedom, ``num_groups`` minus the groups of the level above.
    """

    level: str
    raw: float
    variance: float
    share: float
    num_groups: int
    freedom: int


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """The variance components of one sample.

    Attributes:
        components: By level, the outermost first.
        mean: Mean of all values; nan without any.
        n: Number of values.
        reason: Which levels are not identified; empty if all are.
    """

    components: tuple[Component, ...]
    mean: float
    n: int
    reason: str


@dataclass(frozen=True, slots=True)
class SettingComponents:
    """The variance components of one setting."""

    setting: Setting
    components: VarianceComponents


@dataclass(frozen=True, slots=True)
class Optimism:
    """What choosing the epoch added to the accuracy of one setting.

    Attributes:
        setting: What was run.
        gain: ``accuracy_best - accuracy``, over replicates.
        reason: Why it is not the optimism of choosing on the scored split, or what else limits it.
    """

    setting: Setting
    gain: Interval
    reason: str


def variance_components(
    paths: Sequence[Sequence[Hashable]], values: Sequence[float], levels: Sequence[str] = LEVELS
) -> VarianceComponents:
    """Return the variance components of nested data by the method of moments (analysis of variance).

    The mean squares of a hierarchical classification are set equal to their expectations, whose coefficients follow
    the group sizes (Searle, Casella and McCulloch, 1992, section 5.3); with balanced data these are the textbook
    estimates. The innermost level is the values themselves.

    Args:
        paths: Labels of every value from the outermost level to the last but one, [N][len(levels) - 1].
        values: [N].
        levels: Names of the levels.

    Returns:
        A level with as many groups as the one above cannot be told from it: it is not identified (nan), and its
        variance is part of that of the next level outwards. With one group at the outermost level, its variance is
        not in the data at all.

    Raises:
        RequestError: The lengths do not match.
    """
    if len(paths) != len(values) or any(len(path) != len(levels) - 1 for path in paths):
        raise RequestError(
            f"variance components need one path of {len(levels) - 1} labels per value, but got {len(paths)} paths "
            f"of {sorted({len(path) for path in paths})} labels and {len(values)} values"
        )
    if not len(values):
        nothing = tuple(Component(level, math.nan, math.nan, math.nan, 0, 0) for level in levels)
        return VarianceComponents(nothing, math.nan, 0, "There is no value, so no variance.")
    member = _membership(paths)
    num_groups = [int(row.max()) + 1 for row in member]
    freedom = [inner - outer for outer, inner in itertools.pairwise(num_groups)]
    active = [i + 1 for i, free in enumerate(freedom) if free > 0]
    raw = np.full(len(levels), math.nan)
    if active:
        raw[[i - 1 for i in active]] = _moments(member[[0, *active]], np.asarray(values, dtype=np.float64))
    variance = np.maximum(raw, 0.0)
    total = float(np.nansum(variance))
    share = variance / total if total > 0 else np.full(len(levels), math.nan)
    found = zip(levels, raw.tolist(), variance.tolist(), share.tolist(), num_groups[1:], freedom, strict=True)
    components = tuple(Component(*parts) for parts in found)
    return VarianceComponents(components, float(np.mean(values)), len(values), _unidentified(components))


def setting_components(frame: pd.DataFrame, split: str = "test") -> Listing[SettingComponents]:
    """Return the variance components of every setting, by the levels of :data:`LEVELS`.

    Args:
        frame: The result table.
        split: The split that was scored.
    """
    if frame.empty:
        return Listing((), "The result table is empty, so it has no variance.")
    groups: dict[Setting, list[tuple[tuple[Hashable, ...], float]]] = {}
    for row in records(headline_rows(frame, split)):
        path = tuple(row[name] for name in _COLUMNS[:-1])
        groups.setdefault(setting_of(row), []).append((path, float(row["accuracy"])))
    items = [
        SettingComponents(setting, variance_components([path for path, _ in rows], [value for _, value in rows]))
        for setting, rows in groups.items()
    ]
    items.sort(key=lambda item: item.setting.order)
    return Listing(tuple(items), "" if items else f"No selected trial has a score on {split_name(split)}.")


def bootstrap_mean(
    sample: Sample,
    rng: np.random.Generator,
    over: str = "seeds",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return the mean over replicates with its bootstrap interval.

    Args:
        sample: Evaluation repeats of every replicate; repeats are averaged.
        rng: Source of randomness.
        over: ``seeds``: stratified, noise draws are held and the seeds within them resampled; ``draws``: noise draws
            are resampled whole (:func:`analysis.fits.resample.counts`).
        confidence: Coverage, in (0, 1).
        num_resamples: Resamples of the bootstrap.

    Returns:
        n counts replicates (``seeds``) or noise draws (``draws``); the ends are nan if these do not vary. ``within``
        marks an interval that holds for one noise draw only.
    """
    replicates: list[Replicate] = list(sample)
    of = size(replicates, over)
    if not replicates:
        return Interval(0, math.nan, math.nan, math.nan)
    values = np.array([[float(np.mean(sample[key]))] for key in replicates])
    resampled = means(values, counts(replicates, over, num_resamples, rng))[:, 0]
    return Interval(of.n, float(values.mean()), *ends(resampled, of, confidence), within=of.within and of.freedom > 0)


def optimism(frame: pd.DataFrame, split: str = "test", confidence: float = 0.95) -> Listing[Optimism]:
    """Return how much higher the accuracy at the chosen epoch is than at the last one.

    Where the epoch was chosen on the very split that is scored, the gain is never negative and holds two parts: what
    early stopping gives on any data, and the optimism of choosing on the data that one reports. It is an upper bound
    of the second. Trials and iterations that were chosen on that split add more, which one frame cannot show.

    Args:
        frame: The result table.
        split: The split that was scored.
        confidence: Coverage of the intervals, in (0, 1).
    """
    if frame.empty:
        return Listing((), "The result table is empty, so nothing was chosen.")
    samples: dict[Setting, dict[Replicate, list[float]]] = {}
    rows = headline_rows(frame, split)
    for row in records(rows[rows["accuracy_best"].notna()]):
        sample = samples.setdefault(setting_of(row), {})
        sample.setdefault((row["noise_seed"], row["seed"]), []).append(row["accuracy_best"] - row["accuracy"])
    chosen = select_on(frame)
    where = "on a split that is not recorded" if chosen is None else f"on {split_name(chosen)}"
    note = "" if chosen == split else f"Epochs were chosen {where}: the gain of early stopping, not optimism."
    items = [
        Optimism(setting, gain, joined(note, "" if gain.is_bounded else "One value only: no interval."))
        for setting, gain in ((setting, nested(sample, confidence)) for setting, sample in samples.items())
    ]
    items.sort(key=lambda item: item.setting.order)
    return Listing(tuple(items), "" if items else f"No chosen epoch has a score on {split_name(split)}.")


def _membership(paths: Sequence[Sequence[Hashable]]) -> NDArray[np.int64]:
    """Return the group of every value at every level, [levels + 1, N]; row 0 is the whole, the last the values."""
    depth = len(paths[0])
    rows = []
    for level in range(depth + 1):
        prefixes = [tuple(path[:level]) for path in paths]
        index = {prefix: i for i, prefix in enumerate(dict.fromkeys(prefixes))}
        rows.append([index[prefix] for prefix in prefixes])
    return np.array([*rows, range(len(paths))], dtype=np.int64)


def _moments(member: NDArray[np.int64], values: Array) -> Array:
    """Return the moment estimates of every level below the whole, each of which refines the one above."""
    sizes = [np.bincount(row).astype(np.float64) for row in member]
    group_means = [np.bincount(row, values) / size_ for row, size_ in zip(member, sizes, strict=True)]
    num = len(member) - 1
    squares, expected = np.zeros(num), np.zeros((num, num))
    for i in range(1, num + 1):
        between = group_means[i][member[i]] - group_means[i - 1][member[i - 1]]
        squares[i - 1] = float(between @ between)
        # Of a value: 1 / (size of its group at this level) - 1 / (size of its group above).
        weight = 1 / sizes[i][member[i]] - 1 / sizes[i - 1][member[i - 1]]
        for k in range(i, num + 1):
            # The sum over groups h of size^2 times weight, written as a sum over values.
            expected[i - 1, k - 1] = float((sizes[k][member[k]] * weight).sum())
    return np.asarray(np.linalg.solve(expected, squares), dtype=np.float64)


def _unidentified(components: Sequence[Component]) -> str:
    merged: dict[str, list[str]] = {}
    outer = ""
    for component in components:
        if component.freedom > 0:
            outer = component.level
        else:
            merged.setdefault(outer, []).append(f"one {component.level}")
    alone = merged.pop("", [])
    return joined(
        f"There is {listed(alone)} only, so its variance is not in the data." if alone else "",
        *(f"Every {level} has {listed(inner)}, so their variances are one number." for level, inner in merged.items()),
    )
