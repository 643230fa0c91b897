"""Which parameters mattered: functional ANOVA of the trials' scores, beside what chance alone gives.

F. Hutter, H. Hoos and K. Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014, as
Optuna implements it: a random forest is fitted to the scores, and a parameter's share is that part of the forest's
variance which the parameter explains on its own.

Differs from the original: the shares of a forest that is fitted to noise also add up to one. So the scores are
shuffled within their cells and the shares are computed again; a parameter stands out where its share exceeds the
largest that any shuffle gave it. Cells that are pooled differ in their noise draw: each one's mean score is taken off
first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.tuning.searches import Axis, Search, value_text

MIN_TRIALS = 10
"""Fewer scored trials support no number."""
NUM_SHUFFLES = 19
"""A share above all of 19 shuffles has p = 0.05."""
NUM_TREES = 16
SEED = 0


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the scores' variance that one parameter explains.

    Attributes:
        name: The parameter.
        share: In [0, 1]; those of a search add up to 1.
        chance: The largest share that the parameter has with shuffled scores.
    """

    name: str
    share: float
    chance: float

    @property
    def stands_out(self) -> bool:
        """Whether the share exceeds what chance gives."""
        return self.share > self.chance


@dataclass(frozen=True, slots=True)
class Importance:
    """The importance of the parameters of one search.

    Attributes:
        shares: The largest first; empty where the trials support none.
        num_trials: Trials with a score.
        reason: Why there are no shares; empty if there are.
    """

    shares: tuple[Share, ...]
    num_trials: int
    reason: str = ""


def importance(search: Search) -> Importance:
    """Return the importance of the parameters of a search, the same for the same trials.

    Args:
        search: With at least one axis.
    """
    trials = search.scored
    num = len(trials)
    if num < MIN_TRIALS:
        what = "trial with a score says" if num == 1 else "trials with a score say"
        return Importance((), num, f"{num} {what} little about which parameter matters; it takes {MIN_TRIALS} or more.")
    if len(search.axes) == 1:
        return Importance((), num, f"Only {search.axes[0].name} varied: there is nothing to compare it with.")
    values = np.array([trial.relative for trial in trials], dtype=np.float64)
    if np.ptp(values) == 0:
        return Importance((), num, "All trials have the same score: no parameter made a difference.")
    params = [{axis.name: _plain(axis, trial.params[axis.name]) for axis in search.axes} for trial in trials]
    found = _shares(search.axes, params, values)
    rng = np.random.default_rng(SEED)
    groups = [np.flatnonzero(row) for row in _by_cell(search)]
    chance = dict.fromkeys(found, 0.0)
    for _ in range(NUM_SHUFFLES):
        shuffled = values.copy()
        for rows in groups:
            shuffled[rows] = values[rng.permutation(rows)]
        for name, share in _shares(search.axes, params, shuffled).items():
            chance[name] = max(chance[name], share)
    shares = [Share(name, share, chance[name]) for name, share in found.items()]
    return Importance(tuple(sorted(shares, key=lambda each: -each.share)), num)


def _shares(axes: Sequence[Axis], params: Sequence[dict[str, Any]], values: Any) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {axis.name: _distribution(axis) for axis in axes}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=SEED))
    study.add_trials(
        [
            optuna.trial.create_trial(params=own, distributions=distributions, value=float(value))
            for own, value in zip(params, values, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=NUM_TREES, seed=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    shares = {str(name): float(share) for name, share in found.items()}
    return shares if all(map(math.isfinite, shares.values())) else dict.fromkeys(shares, 0.0)


def _distribution(axis: Axis) -> Any:
    from optuna import distributions

    if axis.choices:
        return distributions.CategoricalDistribution(axis.choices)
    if axis.is_int:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.is_log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.is_log)


def _plain(axis: Axis, value: Any) -> Any:
    return value_text(value) if axis.choices else int(value) if axis.is_int else float(value)


def _by_cell(search: Search) -> list[Any]:
    """Return, for every cell, which of the scored trials are its own."""
    owners = [(trial.cell.noise_seed, trial.cell.seed, id(trial.cell)) for trial in search.scored]
    return [np.array([owner == cell for owner in owners]) for cell in dict.fromkeys(owners)]
