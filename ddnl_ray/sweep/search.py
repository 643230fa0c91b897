"""One Optuna study per cell, as a pure function of what earlier trials of the cell have shown.

Trial ``k`` of a cell is suggested from the results of its trials ``0 .. k - parallel`` and from nothing else, whatever
the order in which a cluster happens to finish them. A sweep that was killed and started again therefore asks for the
same trials, and ends with the same table. Up to ``parallel`` trials of a cell run at once; other cells fill the rest of
the machine.

The same holds for early stopping: the thresholds that a trial must pass at its rungs are fixed when it is suggested.

Differs from the original: asynchronous successive halving (Li et al., MLSys 2020) compares with whatever has been
reported so far, so its decisions depend on timing; here they depend on the trials that the suggestion saw.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddnl_ray.robust import compose
from ddnl_ray.seeds import SeedTree
from ddnl_ray.sweep.plan import Cell
from ddnl_ray.sweep.schema import SearchSection, SpaceSection, StopperSection


@dataclass(frozen=True)
class Shown:
    """What an earlier trial of the cell has shown.

    Attributes:
        params: Its suggested parameters.
        value: Mean accuracy on the selection split; None where it failed.
        looks: Iteration to accuracy on the selection split.
    """

    params: Mapping[str, Any]
    value: float | None
    looks: Mapping[int, float]


def suggest(
    cell: Cell, number: int, shown: Sequence[Shown], pending: Sequence[Mapping[str, Any]], search: SearchSection
) -> dict[str, Any]:
    """Return the searched parameters of trial ``number`` of a cell.

    Trial 0 is the recipe's own setting where that lies in the space, so a search cannot end below it on the selection
    split.

    Args:
        cell: The cell; a cell without a space has one trial, at its recipe's values.
        number: Which trial, from 0.
        shown: Trials ``0 .. number - parallel``, in order.
        pending: Parameters of the trials between those and this one.
        search: Sampler and split.
    """
    if not cell.space:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: distribution(space) for name, space in cell.space.items()}
    settings = compose(cell.config.method).settings(cell.config.params)
    default = {name: settings.value(name) for name in cell.space}
    if number == 0 and all(_holds(distributions[name], value) for name, value in default.items()):
        return default
    seed = SeedTree.root(cell.config.seed).child("search", cell.name, number).entropy() % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: Any
        if search.sampler == "random":
            sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=5)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in shown:
            study.add_trial(ended_trial(cell.space, trial.params, trial.value))
        for params in pending:
            running = optuna.trial.TrialState.RUNNING
            study.add_trial(optuna.trial.create_trial(state=running, params=dict(params), distributions=distributions))
        return dict(study.ask(distributions).params)


def rungs(stopper: StopperSection | None, iterations: int, shown: Sequence[Shown]) -> dict[int, float]:
    """Return, per rung, the accuracy on the selection split that a trial must reach to go on.

    Rungs lie at ``grace * reduction_factor ** j`` below the last iteration. A trial goes on where it is among the best
    ``1 / reduction_factor`` of the earlier trials that reached the rung; where none has, everything goes on.
    """
    if stopper is None:
        return {}
    floors = {}
    rung = stopper.grace
    while rung < iterations:
        values = [trial.looks[rung] for trial in shown if rung in trial.looks]
        floors[rung] = float(np.quantile(values, 1 - 1 / stopper.reduction_factor)) if values else 0.0
        rung *= stopper.reduction_factor
    return floors


def distribution(space: SpaceSection) -> Any:
    """Return the Optuna distribution of a range."""
    from optuna import distributions

    if space.uniform is not None:
        return distributions.FloatDistribution(*space.uniform)
    if space.log_uniform is not None:
        return distributions.FloatDistribution(*space.log_uniform, log=True)
    if space.int_uniform is not None:
        return distributions.IntDistribution(*space.int_uniform)
    return distributions.CategoricalDistribution(space.choice)


def _holds(distribution: Any, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def ended_trial(
    space: Mapping[str, SpaceSection],
    params: Mapping[str, Any],
    value: float | None,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Return a trial that has ended as Optuna keeps it; one without a value has failed."""
    import optuna

    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state=states.FAIL if value is None else states.COMPLETE,
        params=dict(params),
        distributions={name: distribution(item) for name, item in space.items()},
        value=value,
        user_attrs=dict(attributes or {}),
    )
