"""The ledger: a trial is finished when its part file is renamed into place, and only then."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.files import read_json, write_atomic, write_json
from ddnl_ray.results import SCHEMA, SIMULATED, Outcome, as_frame, read_table, rows_table, write_table
from ddnl_ray.sweep.pack import PART, SELECT_ON, Pack
from ddnl_ray.sweep.schema import SweepFile


def trial_name(cell: str, number: int) -> str:
    """Return the name of trial ``number`` of a cell."""
    return f"{cell}-{number:04d}"


@dataclass(frozen=True)
class Finished:
    """A trial in the ledger.

    Attributes:
        trial: Its name.
        params: All hyper-parameters of its method.
        outcome: How it ended.
        message: In words, where it did not end well.
        value: Mean accuracy on the selection split over all networks; None where it has no score.
        looks: Iteration to accuracy on the selection split while distilling.
        wall_s: Its duration.
    """

    trial: str
    params: Mapping[str, Any]
    outcome: Outcome
    message: str
    value: float | None
    looks: Mapping[int, float]
    wall_s: float


class Ledger:
    """The results of a run folder.

    Args:
        run: The run folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.parts = run / "parts"
        self.pack = Pack(self.parts, run / ".parts.parquet")

    def publish(self, trial: str, rows: list[dict[str, Any]], select_on: str) -> Finished:
        """Record a trial that has ended, then drop its checkpoint, unless only its time was up."""
        table = rows_table(rows)
        write_table(self.parts / f"{trial}.parquet", table, select_on)
        finished = summarise(trial, table, select_on)
        if finished.outcome is not Outcome.TIMEOUT:
            (self.run / "trials" / trial / "checkpoint.safetensors").unlink(missing_ok=True)
        return finished

    def has(self, trial: str) -> bool:
        """Return whether a trial is in the ledger."""
        return (self.parts / f"{trial}.parquet").is_file()

    def read(self, trial: str) -> Finished:
        """Return a trial of the ledger."""
        return summarise(trial, *read_table(self.parts / f"{trial}.parquet", _SUMMARY))

    def finished(self) -> dict[str, Finished]:
        """Return every trial of the ledger by name."""
        table = self.pack.rows(_SUMMARY)
        parts, splits = (table.column(name).to_pylist() for name in (PART, SELECT_ON))
        starts = [i for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
        found = {}
        for start, end in itertools.pairwise([*starts, len(parts)]):
            trial = parts[start].removesuffix(".parquet")
            found[trial] = summarise(trial, table.slice(start, end - start), splits[start])
        return found

    def settled(self) -> set[str]:
        """Return the names of the trials that would not be run again."""
        return {name for name, result in self.finished().items() if result.outcome.is_settled}

    def frame(self) -> pd.DataFrame | None:
        """Return the rows of the run's trials, each cell's best trial marked; None where none has ended.

        Parts of cells that the sweep no longer has (its file was changed) stay on disk and are left out.
        """
        found = self._marked()
        return as_frame(*found) if found is not None else None

    def consolidate(self) -> pd.DataFrame | None:
        """Write ``results.parquet`` from the parts; return its rows."""
        found = self.refresh()
        return as_frame(*found) if found is not None else None

    def refresh(self) -> tuple[pa.Table, str] | None:
        """Write ``results.parquet`` from the parts; return its rows as a table, with the split of selection."""
        found = self._marked()
        if found is not None:
            write_table(self.run / "results.parquet", *found)
        return found

    def _marked(self) -> tuple[pa.Table, str] | None:
        """Return the rows of the sweep's trials, with the split of selection; None where none has ended."""
        table, wanted = self.pack.rows(), self.wanted()
        if wanted is not None:
            names = pa.array([f"{trial}.parquet" for trial in wanted], pa.string())
            table = table.filter(pc.is_in(table[PART], names))
        if not len(table):
            return None
        select_on = str(table[SELECT_ON][0])
        frame = table.select(["cell", "trial", "split", "is_selected", "accuracy"]).to_pandas()
        frame.attrs["select_on"] = select_on
        selected = pa.array(mark_selected(frame)["is_selected"], pa.bool_(), from_pandas=True)
        table = table.select(SCHEMA.names)
        for number, field in enumerate(SCHEMA):
            if field.name == "is_selected":
                table = table.set_column(number, field, selected)
            elif pa.types.is_floating(field.type):
                column = table.column(number)
                empty = pa.scalar(None, field.type)
                table = table.set_column(number, field, pc.if_else(pc.is_nan(column), empty, column))
        return table.combine_chunks(), select_on

    def open(self, sweep: SweepFile) -> None:
        """Make the run folder, or check that it is one of ours, and write the resolved sweep into it.

        Raises:
            RequestError: The folder holds something else.
        """
        self._require_ours()
        text = yaml.safe_dump(sweep.model_dump(exclude_none=True, mode="json"), sort_keys=False)
        write_atomic(self.run / "sweep.yaml", text.encode())

    def _require_ours(self) -> None:
        if (self.run / SIMULATED).is_file():
            raise RequestError(f"{self.run} holds a simulation; choose another --out or --name for real results")
        strangers = [p.name for p in self.run.iterdir() if p.name[0] != "."] if self.run.is_dir() else []
        if strangers and not (self.run / "sweep.yaml").is_file():
            raise RequestError(
                f"{self.run} exists and is not a run folder (it holds {strangers[0]!r} and no sweep.yaml); "
                "choose another --out"
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run folder; it is given up when the process ends, however it ends.

        Raises:
            RequestError: Another driver holds it, or it is not a run folder.
        """
        self._require_ours()
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RequestError(
                    f"another `ddnl sweep` is running on {self.run}; wait for it, or use another --name"
                ) from error
            yield

    def is_locked(self) -> bool:
        """Return whether a driver holds the run folder."""
        try:
            with self.lock():
                return False
        except RequestError:
            return True

    def wanted(self) -> dict[str, str] | None:
        """Return the trials that the sweep has, each with its cell; None where no sweep has started here."""
        path = self.run / "summary.json"
        if not path.is_file():
            return None
        summary = read_json(path)
        if not isinstance(summary, dict) or not isinstance(summary.get("cells"), dict):
            raise CorruptFileError(f"{path} does not name the cells of its sweep; run the same `ddnl sweep` to go on")
        cells: dict[str, int] = summary["cells"]
        return {trial_name(cell, number): cell for cell, trials in cells.items() for number in range(trials)}

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.run / "summary.json", summary)


_SUMMARY = ["split", "is_selected", "is_final", "accuracy", "iteration", "params", "outcome", "message", "wall_s"]


def summarise(trial: str, table: pa.Table, select_on: str) -> Finished:
    """Return what the ledger knows of one trial's rows."""
    columns = {name: table.column(name).to_pylist() for name in _SUMMARY}
    accuracy = [math.nan if value is None else value for value in columns["accuracy"]]
    on_split = [row for row, split in enumerate(columns["split"]) if split == select_on]
    selected, final = columns["is_selected"], columns["is_final"]
    scores = np.array([accuracy[row] for row in on_split if selected[row]])
    known = ~np.isnan(scores)
    value = float(np.where(known, scores, 0.0).sum() / known.sum()) if known.any() else math.nan
    looks = {
        int(columns["iteration"][row]): float(accuracy[row]) for row in on_split if not selected[row] and not final[row]
    }
    return Finished(
        trial=trial,
        params=json.loads(columns["params"][0]),
        outcome=Outcome(columns["outcome"][0]),
        message=columns["message"][0] or "",
        value=value if math.isfinite(value) else None,
        looks=looks,
        wall_s=max((wall_s for wall_s in columns["wall_s"] if wall_s is not None), default=math.nan),
    )


def mark_selected(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep ``is_selected`` only on the trial of each cell that is best on the selection split.

    Ties go to the trial with the lower name, that is the earlier one.
    """
    frame = frame.copy()
    chosen = frame[frame["is_selected"] & (frame["split"] == frame.attrs["select_on"])]
    if not len(chosen):
        return frame
    values = chosen.groupby(["cell", "trial"], sort=True)["accuracy"].mean().reset_index()
    best = values.loc[values.groupby("cell")["accuracy"].idxmax(), ["cell", "trial"]]
    keep = frame["trial"].isin(set(best["trial"]))
    frame["is_selected"] = frame["is_selected"] & keep
    return frame
