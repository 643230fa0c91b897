"""A run beside the numbers that a paper prints: what differs, by how much, and which cells must not be compared.

Our number is that of the last iteration of the trial that was chosen in each cell, on the test split: evaluation
repeats are averaged within a replicate, then replicates (noise draw and seed). The join is on data set, noise, rate,
label set, method and IPC. Where a paper has several networks for a cell, those nearest to ours are taken; where it has
only the other kind of class-dependent noise (``asymmetric``, ``pairflip``), that is. What then differs is a reason not
to compare (:mod:`analysis.protocol`), never one to hide a number.

The rate of human labels is what it is, so they are joined by label set alone. Cells that a paper prints twice with the
same number are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.protocol import Protocol, ProtocolOf, Reason, network_reasons, reasons
from analysis.published import COMPARED, PAPERS, Accuracy, Paper, accuracies
from analysis.scores import Setting, records, setting_of
from analysis.statistics import Interval, Replicate, nested, standard_error
from ddnl_ray.errors import require_known
from ddnl_ray.results import Outcome

Row = dict[str, Any]
CLASS_DEPENDENT = frozenset({"asymmetric", "pairflip"})


@dataclass(frozen=True, slots=True)
class Line:
    """One number of ours beside one that is printed.

    Attributes:
        run: Name of the run.
        setting: What was run.
        ours: Our mean (0..1) with its interval.
        printed: The printed cell.
        tables: The tables that print this number.
        difference: Ours minus theirs (0..1); nan if theirs cannot be read.
        z: The difference over its standard error; nan if there is none.
        errors: Which standard errors ``z`` has: ``both``, ``ours`` (it is then too far from 0), or "" without ``z``.
        reasons: Why the two are not comparable.
    """

    run: str
    setting: Setting
    ours: Interval
    printed: Accuracy
    tables: tuple[int, ...]
    difference: float
    z: float
    errors: str
    reasons: tuple[Reason, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether nothing known speaks against the comparison."""
        return not self.reasons


@dataclass(frozen=True)
class Comparison:
    """A run, or several, beside a paper.

    Attributes:
        paper: The paper's name.
        confidence: Coverage of our intervals.
        lines: In the order of tables.
        missing: Our settings that the paper has no cell for, wholly or in one of our configurations, each with its run.
        num_printed: How many cells the paper prints.
        num_reached: How many of them have a number of ours.
        with_all: Whether ``z`` is shown for what is not comparable, too.
    """

    paper: str
    confidence: float
    lines: tuple[Line, ...]
    missing: tuple[tuple[str, Setting], ...]
    num_printed: int
    num_reached: int
    with_all: bool = False

    def z(self, line: Line) -> float:
        """Return the z-score to show: nan for what is not comparable, unless all are asked for."""
        return line.z if line.is_comparable or self.with_all else math.nan


@dataclass(frozen=True)
class Run:
    """The results of one run.

    Attributes:
        name: Its name.
        frame: The result table.
        protocol_of: From a row to how it was made; None if the run does not say.
    """

    name: str
    frame: pd.DataFrame
    protocol_of: ProtocolOf | None


@dataclass(frozen=True)
class _Group:
    """What replicates have in common, and their accuracies."""

    run: str
    setting: Setting
    protocol: Protocol | None
    sample: dict[Replicate, list[float]]


def compare(runs: Iterable[Run], paper: str, confidence: float = 0.95, with_all: bool = False) -> Comparison:
    """Return the results of runs beside the numbers of a paper.

    Args:
        runs: The runs; they are not pooled.
        paper: A name of :data:`analysis.published.COMPARED`.
        confidence: Coverage of our intervals, in (0, 1).
        with_all: Whether ``z`` is shown for what is not comparable, too.

    Raises:
        RequestError: The paper is unknown or prints no tables, or ``confidence`` lies outside (0, 1).
    """
    require_known("paper", paper, COMPARED)
    cells = accuracies(paper)
    lines: list[Line] = []
    missing: list[tuple[str, Setting]] = []
    reached: set[Accuracy] = set()
    for run in runs:
        for setting, rows in _settings(run.frame):
            candidates = counterparts(setting, cells)
            groups = _groups(run, setting, rows) if candidates else []
            matches = [_configurations(group.protocol, candidates) for group in groups]
            for group, matched in zip(groups, matches, strict=True):
                reached.update(matched)
                lines += [_line(group, same, PAPERS[paper], confidence) for same in _by_number(matched)]
            if not all(matches) or not matches:
                missing.append((run.name, setting))
    lines.sort(key=lambda line: line.setting.order)
    return Comparison(paper, confidence, tuple(lines), tuple(missing), len(cells), len(reached), with_all)


def counterparts(setting: Setting, cells: Iterable[Accuracy]) -> list[Accuracy]:
    """Return the printed cells of a setting, those of the nearest networks; [] if there is none."""
    same = [cell for cell in cells if _is_counterpart(setting, cell)]
    same = [cell for cell in same if cell.noise == setting.noise] or same
    nearest = min((_distance(setting, cell) for cell in same), default=0)
    return [cell for cell in same if _distance(setting, cell) == nearest]


def _is_counterpart(setting: Setting, cell: Accuracy) -> bool:
    """Return whether a printed cell has our data, noise, method and IPC, whatever its networks."""
    ours = (setting.dataset, setting.base_method, setting.variant, setting.ipc)
    theirs = (cell.dataset, cell.base_method, cell.variant.removesuffix("_partial"), cell.ipc)
    if ours != theirs:
        return False
    if not (setting.noise == cell.noise or {setting.noise, cell.noise} == CLASS_DEPENDENT):
        return False
    if cell.noise == "natural":
        return setting.label_set == cell.label_set
    return math.isclose(setting.noise_rate or 0.0, cell.noise_rate, abs_tol=1e-9)


def _distance(setting: Setting, cell: Accuracy) -> int:
    """Return how many networks differ."""
    return len(network_reasons(setting, cell))


def _settings(frame: pd.DataFrame) -> list[tuple[Setting, list[Row]]]:
    """Return the settings in the order of tables, each with its rows at the last iteration of the chosen trials."""
    is_ok = frame["outcome"].eq(Outcome.OK.value)
    chosen = set(frame.loc[(frame["is_selected"].eq(True) & is_ok).fillna(False).astype(bool), "trial"])
    keep = frame["is_final"].eq(True) & is_ok & frame["split"].eq("test") & frame["accuracy"].notna()
    keep &= frame["trial"].isin(chosen)
    grouped: dict[Setting, list[Row]] = {}
    for row in records(frame[keep.fillna(False).astype(bool)]):
        grouped.setdefault(setting_of(row), []).append(row)
    return sorted(grouped.items(), key=lambda item: item[0].order)


def _groups(run: Run, setting: Setting, rows: list[Row]) -> list[_Group]:
    """Return the rows of a setting apart by how they were made."""
    protocols: dict[str, Protocol | None] = {}
    samples: dict[Protocol | None, dict[Replicate, list[float]]] = {}
    for row in rows:
        if row["trial"] not in protocols:
            protocols[row["trial"]] = run.protocol_of(row) if run.protocol_of is not None else None
        sample = samples.setdefault(protocols[row["trial"]], {})
        sample.setdefault((row["noise_seed"], row["seed"]), []).append(float(row["accuracy"]))
    return [_Group(run.name, setting, protocol, sample) for protocol, sample in samples.items()]


def _configurations(protocol: Protocol | None, cells: Sequence[Accuracy]) -> list[Accuracy]:
    """Return the cells of our configuration: that of an ablation where ours is one, else the method as it is."""
    fitting = [cell for cell in cells if not cell.settings or (protocol is not None and protocol.satisfies(cell))]
    if protocol is not None and any(protocol.deviates(cell) for cell in fitting):
        return [cell for cell in fitting if cell.settings]
    return fitting


def _by_number(cells: Sequence[Accuracy]) -> list[list[Accuracy]]:
    """Return the cells with those together that print the same number for the same networks."""
    together: dict[tuple[Any, ...], list[Accuracy]] = {}
    for cell in cells:
        number = (cell.mean, cell.backbone, cell.eval_backbone, cell.noise)
        together.setdefault(number, []).append(cell)
    return list(together.values())


def _line(group: _Group, cells: Sequence[Accuracy], paper: Paper, confidence: float) -> Line:
    ours = nested(group.sample, confidence)
    # An ablation says which settings it has, so its cell knows the most.
    cell = max(cells, key=lambda one: len(one.settings))
    cell = replace(cell, note=" ".join(dict.fromkeys(one.note for one in cells if one.note)))
    difference = ours.mean - cell.mean if cell.mean is not None else math.nan
    error, errors = standard_error(group.sample), "ours"
    if cell.std is not None and paper.repeats is not None:
        error, errors = math.hypot(error, cell.std / math.sqrt(paper.repeats)), "both"
    z = difference / error if error > 0 else math.nan
    return Line(
        run=group.run,
        setting=group.setting,
        ours=ours,
        printed=cell,
        tables=tuple(sorted({one.table for one in cells})),
        difference=difference,
        z=z,
        errors="" if math.isnan(z) else errors,
        reasons=reasons(group.setting, len(group.sample), group.protocol, cell, paper),
    )
