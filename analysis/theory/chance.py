"""Which number of images per class is the first to beat chance.

A one-sided t test over seeds at every number of images per class, corrected for their number by Holm (1979), A
simple sequentially rejective multiple test procedure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics import holm
from analysis.theory.estimate import Floats
from ddnl_ray.errors import RequestError


@dataclass(frozen=True, slots=True)
class Threshold:
    """The smallest number of images per class whose accuracy beats chance.

    Attributes:
        ipc: Images per class.
        p_value: Its p-value after Holm's correction.
        is_censored: No smaller number was run, so the threshold may lie lower.
    """

    ipc: int
    p_value: float
    is_censored: bool


def first_above_chance(accuracies: Mapping[int, ArrayLike], chance: float, level: float = 0.05) -> Threshold:
    """Return the smallest number of images per class whose mean accuracy beats chance.

    Args:
        accuracies: Test accuracies of the seeds, in [0, 1], by images per class; at least two seeds each.
        chance: Accuracy of the best constant prediction: the share of the largest class of the test set.
        level: Bound on the probability of any false claim.

    Raises:
        RequestError: ``chance`` or ``level`` lies outside (0, 1).
        ValueError: No accuracies, fewer than two seeds, an accuracy out of range, or none beats chance.
    """
    for name, rate in (("chance", chance), ("level", level)):
        if not 0 < rate < 1:
            raise RequestError(f"{name} must lie between 0 and 1 but got {rate}; pass a fraction, not a percentage")
    if not accuracies:
        raise ValueError(
            "few-shot thresholding is of accuracies by images per class but got none; run a sweep over them"
        )
    ladder = sorted(accuracies)
    adjusted = np.array(holm([_p_value(ipc, np.asarray(accuracies[ipc], dtype=np.float64), chance) for ipc in ladder]))
    beating = np.flatnonzero(adjusted <= level)
    if len(beating) == 0:
        raise ValueError(
            f"no number of images per class of {ladder} beats chance ({chance:.4g}) at level {level} (smallest "
            f"adjusted p-value {adjusted.min():.3g}); run more images per class, or more seeds"
        )
    return Threshold(ladder[beating[0]], float(adjusted[beating[0]]), is_censored=bool(beating[0] == 0))


def _p_value(ipc: int, seeds: Floats, chance: float) -> float:
    if seeds.ndim != 1 or len(seeds) < 2:
        raise ValueError(
            f"a test over seeds needs at least 2 accuracies but {ipc} images per class has shape {list(seeds.shape)}; "
            "run more seeds"
        )
    if not ((seeds >= 0) & (seeds <= 1)).all():
        raise ValueError(
            f"accuracies must lie in [0, 1] but {ipc} images per class has {seeds.tolist()}; pass fractions"
        )
    if np.ptp(seeds) == 0:
        return 0.0 if seeds[0] > chance else 1.0
    error = float(seeds.std(ddof=1)) / math.sqrt(len(seeds))
    return float(stats.t.sf((float(seeds.mean()) - chance) / error, len(seeds) - 1))
