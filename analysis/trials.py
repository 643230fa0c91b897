"""What happened to the trials of a sweep: the parameters that won, what failed, what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.scores import Setting, records, setting_of
from ddnl_ray.results import Outcome

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """The rows of one cell.

    Attributes:
        setting: What was run; its evaluation network is that of the first row.
        noise_seed: The noise draw.
        seed: The seed of distillation and evaluation.
        trials: Rows by trial, in the order of the table.
        selected: The selected trial; None if no trial has a score.
    """

    setting: Setting
    noise_seed: int | None
    seed: int | None
    trials: dict[str, list[Row]]
    selected: str | None

    @property
    def replicate(self) -> str:
        """The two seeds in words."""
        return f"noise seed {_or_dash(self.noise_seed)}, seed {_or_dash(self.seed)}"


@dataclass(frozen=True, slots=True)
class Tuned:
    """The winning values of the parameters that differ among the trials of a cell."""

    cell: Cell
    best: dict[str, Any]

    @property
    def text(self) -> str:
        """The parameters as ``name = value``, separated by commas."""
        return ", ".join(f"{name} = {_value(value)}" for name, value in self.best.items())


@dataclass(frozen=True, slots=True)
class Failure:
    """Trials of one cell that ended in the same way without a score."""

    cell: Cell
    outcome: Outcome
    message: str
    num_trials: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What the trials of one method cost.

    Attributes:
        method: The method string; both readings of ``full`` are one method.
        num_trials: How many trials ran.
        wall_s: Seconds in all trials together.
        peak_memory_bytes: The largest peak of any trial; None if none was measured.
    """

    method: str
    num_trials: int
    wall_s: float
    peak_memory_bytes: int | None


def cells(frame: pd.DataFrame) -> list[Cell]:
    """Return the cells of a frame in the order of tables."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in records(frame):
        grouped.setdefault((row["run"], row["cell"]), []).append(row)
    return sorted(map(_cell, grouped.values()), key=_cell_order)


def tuned(found: Iterable[Cell]) -> list[Tuned]:
    """Return the winning parameters of every cell that has a selected trial and trials that differ."""
    results = []
    for cell in found:
        names = _differing([rows[0] for rows in cell.trials.values()])
        if names and cell.selected is not None:
            best = _parameters(cell.trials[cell.selected][0])
            results.append(Tuned(cell, {name: best.get(name) for name in names}))
    return results


def failures(found: Iterable[Cell]) -> list[Failure]:
    """Return how trials failed, by cell, outcome and message.

    A trial that the stopper ended has not failed; it is listed only if its cell has no score at all.
    """
    listed = []
    for cell in found:
        endings: dict[tuple[Outcome, str], set[str]] = {}
        for trial, rows in cell.trials.items():
            outcome = Outcome(rows[0]["outcome"])
            expected = {Outcome.OK, Outcome.STOPPED} if cell.selected else {Outcome.OK}
            if outcome not in expected:
                endings.setdefault((outcome, rows[0]["message"] or ""), set()).add(trial)
        listed += [Failure(cell, outcome, text, len(names)) for (outcome, text), names in endings.items()]
    return listed


def num_stopped(found: Iterable[Cell]) -> int:
    """Return how many trials the stopper ended."""
    return sum(rows[0]["outcome"] == Outcome.STOPPED for cell in found for rows in cell.trials.values())


def costs(found: Iterable[Cell]) -> list[Cost]:
    """Return the cost of every method, in the order of cells; a trial counts once, not once per row."""
    by_method: dict[str, list[list[Row]]] = {}
    for cell in found:
        name = cell.setting.method.removesuffix(" (last epoch)")
        by_method.setdefault(name, []).extend(cell.trials.values())
    return [
        Cost(
            method=name,
            num_trials=len(trials),
            wall_s=sum(max((row["wall_s"] or 0.0) for row in rows) for rows in trials),
            peak_memory_bytes=max(row["peak_memory_bytes"] or 0 for rows in trials for row in rows) or None,
        )
        for name, trials in by_method.items()
    ]


def _cell(rows: list[Row]) -> Cell:
    trials: dict[str, list[Row]] = {}
    for row in rows:
        trials.setdefault(row["trial"], []).append(row)
    selected = [row["trial"] for row in rows if row["is_selected"] and row["outcome"] == Outcome.OK]
    first = rows[0]
    return Cell(setting_of(first), first["noise_seed"], first["seed"], trials, selected[0] if selected else None)


def _cell_order(cell: Cell) -> tuple[Any, ...]:
    seeds = (cell.noise_seed, cell.seed)
    return (cell.setting.order, *(-1 if seed is None else seed for seed in seeds))


def _differing(trials: list[Row]) -> list[str]:
    """Return the names of the parameters that are not the same in all trials."""
    settings = [_parameters(row) for row in trials]
    names = dict.fromkeys(name for parameters in settings for name in parameters)
    return [name for name in names if len({json.dumps(parameters.get(name)) for parameters in settings}) > 1]


def _parameters(row: Row) -> dict[str, Any]:
    return dict(json.loads(row["params"])) if row["params"] else {}


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _or_dash(seed: int | None) -> str:
    return "–" if seed is None else str(seed)
