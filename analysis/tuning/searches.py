"""The trials of searched cells, those of one setting together, with the ranges they were drawn from.

Trials and scores come from the result table, which is made of the ledger and is complete whenever a report is. The
studies in ``studies.journal`` are a copy of the same for Optuna's tools: a run that was interrupted may lack it. Ranges
come from the resolved sweep file; where it names none, they are those of the values that were tried.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.scores import Setting
from analysis.trials import Cell, Row
from ddnl_ray.results import Outcome

FEW_VALUES = 4
"""A parameter without a known range that has no more distinct numbers than this is shown as a choice."""

MAX_BANDS = 7
"""An axis of integers has a tick at each of so many."""

Space = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Axis:
    """The range of one parameter.

    Attributes:
        name: The parameter.
        low: Lower end of a numeric range; nan for a choice.
        high: Upper end.
        is_log: Whether the range is even on the logarithmic scale.
        is_int: Whether its values are integers.
        choices: The values of a choice as texts; empty for a numeric range.
    """

    name: str
    low: float = math.nan
    high: float = math.nan
    is_log: bool = False
    is_int: bool = False
    choices: tuple[str, ...] = ()

    def place(self, value: Any) -> float:
        """Return where a value lies on the axis, 0 at the lower end and 1 at the upper one."""
        if self.choices:
            return (self.choices.index(value_text(value)) + 0.5) / len(self.choices)
        if self.is_banded:
            return (float(value) - self.low + 0.5) * self.step
        low, high, at = (math.log(x) if self.is_log else x for x in (self.low, self.high, float(value)))
        return (at - low) / (high - low) if high > low else 0.5

    @property
    def step(self) -> float:
        """Distance of neighbouring values on the axis; 0 where they lie dense."""
        if self.choices:
            return 1 / len(self.choices)
        return 1 / (self.high - self.low + 1) if self.is_banded else 0.0

    @property
    def is_banded(self) -> bool:
        """Whether it has few integers, each of which gets a band of its own."""
        return self.is_int and not self.is_log and self.high - self.low < MAX_BANDS

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts along the axis, the lowest first."""
        if self.choices:
            return [(self.place(choice), choice) for choice in self.choices]
        if self.is_banded:
            values = [float(value) for value in range(int(self.low), int(self.high) + 1)]
        elif self.is_log:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            inner = [10.0**power for power in decades if self.low * 1.5 < 10.0**power < self.high / 1.5]
            values = [self.low, *inner, self.high]
        else:
            values = [self.low, (self.low + self.high) / 2, self.high]
        return [(self.place(value), value_text(value)) for value in values]


@dataclass(frozen=True, slots=True)
class Searched:
    """One trial of a search.

    Attributes:
        cell: Its cell.
        number: Its number in the cell, from 0.
        outcome: How it ended.
        params: The searched parameters.
        score: Mean accuracy on the selection split, 0..1; None without one.
        accuracy: The same on the split that the report is about.
        is_best: Whether it is the one of its cell that was chosen.
        relative: ``score`` minus the mean score of the trials of its cell; None without a score.
    """

    cell: Cell
    number: int
    outcome: Outcome
    params: dict[str, Any]
    score: float | None
    accuracy: float | None
    is_best: bool
    relative: float | None


@dataclass(frozen=True, slots=True)
class Search:
    """The trials of all cells of one setting.

    Attributes:
        setting: What was searched.
        axes: The searched parameters of which more than one value was tried.
        constant: Those of which one value was tried.
        trials: By cell, then in their order.
        select_on: The split of the scores.
        num_cells: Number of cells, that is of studies.
    """

    setting: Setting
    axes: tuple[Axis, ...]
    constant: dict[str, Any]
    trials: tuple[Searched, ...]
    select_on: str
    num_cells: int

    @property
    def scored(self) -> list[Searched]:
        """The trials that have a score."""
        return [trial for trial in self.trials if trial.score is not None]

    @property
    def is_pooled(self) -> bool:
        """Whether trials of several cells are shown together, so that scores are relative to their cell."""
        return self.num_cells > 1


def read_space(run: Path) -> dict[str, dict[str, Any]]:
    """Return ``search.space`` of the sweep file of a run; empty where there is none that can be read."""
    path = run / "sweep.yaml"
    try:
        search = yaml.safe_load(path.read_text())["search"]
        return dict(search["space"] or {})
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def searches(found: Iterable[Cell], space: Space, select_on: str, split: str = "test") -> list[Search]:
    """Return the searches behind cells with more than one trial, in the order of tables.

    Args:
        found: The cells of a run.
        space: Range by parameter, as in the sweep file.
        select_on: The split of the scores.
        split: The split that the report is about.
    """
    groups: dict[Setting, list[Cell]] = {}
    for cell in found:
        if len(cell.trials) > 1:
            groups.setdefault(cell.setting, []).append(cell)
    made = (_search(setting, cells, space, select_on, split) for setting, cells in groups.items())
    return [search for search in made if search.axes]


def mean_score(rows: Sequence[Row], split: str) -> float | None:
    """Return the mean accuracy of a trial on a split over all networks, as its study was told; None without one.

    Rows without an evaluation seed are looks on the way. Where the last iteration was scored beside a chosen one, the
    chosen one counts.
    """
    scored = [row for row in rows if row["split"] == split and row["eval_seed"] is not None]
    chosen = [row for row in scored if not row["is_final"]] or scored
    values = [row["accuracy"] for row in chosen if row["accuracy"] is not None and row["outcome"] == Outcome.OK]
    return math.fsum(values) / len(values) if values else None


def value_text(value: Any) -> str:
    """Return a parameter's value as people write it, with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _search(setting: Setting, cells: list[Cell], space: Space, select_on: str, split: str) -> Search:
    settings = [_params(rows) for cell in cells for rows in cell.trials.values()]
    tried = {name: [params[name] for params in settings if name in params] for name in _names(settings)}
    ranges = {_local(name, setting, tried): limits for name, limits in space.items()}
    searched = (
        [name for name in ranges if name in tried] if ranges else [name for name in tried if _differs(tried[name])]
    )
    axes = tuple(_axis(name, tried[name], ranges.get(name, {})) for name in searched if _differs(tried[name]))
    constant = {name: tried[name][0] for name in searched if not _differs(tried[name])}
    trials = tuple(trial for cell in cells for trial in _trials(cell, searched, select_on, split))
    return Search(setting, axes, constant, trials, select_on, len(cells))


def _trials(cell: Cell, names: Sequence[str], select_on: str, split: str) -> list[Searched]:
    scores = {trial: mean_score(rows, select_on) for trial, rows in cell.trials.items()}
    known = [score for score in scores.values() if score is not None]
    middle = math.fsum(known) / len(known) if known else math.nan
    made = []
    for number, (trial, rows) in enumerate(cell.trials.items()):
        params, score = _params(rows), scores[trial]
        made.append(
            Searched(
                cell=cell,
                number=number,
                outcome=Outcome(rows[0]["outcome"]),
                params={name: params.get(name) for name in names},
                score=score,
                accuracy=mean_score(rows, split),
                is_best=trial == cell.selected,
                relative=None if score is None else score - middle,
            )
        )
    return made


def _axis(name: str, values: Sequence[Any], limits: Mapping[str, Any]) -> Axis:
    """Return the axis of a parameter, wide enough for every value that was tried."""
    numbers = [float(value) for value in values if _is_number(value)]
    if "choice" in limits or len(numbers) < len(values):
        known = [value_text(value) for value in limits.get("choice", [])]
        return Axis(name, choices=tuple(dict.fromkeys([*known, *sorted(map(value_text, values))])))
    kind = next((kind for kind in ("uniform", "log_uniform", "int_uniform") if kind in limits), None)
    if kind is None and len(set(numbers)) <= FEW_VALUES:
        return Axis(name, choices=tuple(value_text(value) for value in sorted(set(values))))
    ends = [*numbers, *(float(end) for end in limits.get(kind or "", ()))]
    is_log = kind == "log_uniform" and min(ends) > 0
    return Axis(name, min(ends), max(ends), is_log, is_int=_is_int(kind, values))


def _is_int(kind: str | None, values: Sequence[Any]) -> bool:
    return kind == "int_uniform" or (kind is None and all(isinstance(value, int) for value in values))


def _params(rows: Sequence[Row]) -> dict[str, Any]:
    return dict(json.loads(rows[0]["params"])) if rows[0]["params"] else {}


def _names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for params in settings for name in params))


def _local(name: str, setting: Setting, tried: Mapping[str, Any]) -> str:
    """Return the name in the result table of a parameter of the sweep file, whose base method is left out there."""
    return name if name in tried else name.removeprefix(f"{setting.base_method}.")


def _differs(values: Sequence[Any]) -> bool:
    return len({json.dumps(value) for value in values}) > 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
