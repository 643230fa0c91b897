"""The ledger: a trial is finished when its part file is renamed into place, and only then."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.files import read_json, write_atomic, write_json
from ddnl_ray.results import Outcome, read_rows, write_frame, write_rows
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

    def publish(self, trial: str, rows: list[dict[str, Any]], select_on: str) -> Finished:
        """Record a finished trial, then drop its checkpoint."""
        write_rows(self.parts / f"{trial}.parquet", rows, select_on)
        (self.run / "trials" / trial / "checkpoint.safetensors").unlink(missing_ok=True)
        return self.read(trial)

    def has(self, trial: str) -> bool:
        """Return whether a trial is in the ledger."""
        return (self.parts / f"{trial}.parquet").is_file()

    def read(self, trial: str) -> Finished:
        """Return a trial of the ledger."""
        frame = read_rows(self.parts / f"{trial}.parquet")
        return summarise(trial, frame)

    def finished(self) -> dict[str, Finished]:
        """Return every trial of the ledger by name."""
        return {path.stem: self.read(path.stem) for path in sorted(self.parts.glob("*.parquet"))}

    def settled(self) -> set[str]:
        """Return the names of the trials that would not be run again."""
        return {name for name, result in self.finished().items() if result.outcome.is_settled}

    def frame(self) -> pd.DataFrame | None:
        """Return the rows of the run's trials, each cell's best trial marked; None where none has ended.

        Parts of cells that the sweep no longer has (its file was changed) stay on disk and are left out.
        """
        wanted = self.wanted()
        paths = sorted(self.parts.glob("*.parquet"))
        frames = [read_rows(path) for path in paths if wanted is None or path.stem in wanted]
        if not frames:
            return None
        frame = pd.concat(frames, ignore_index=True)
        frame.attrs = dict(frames[0].attrs)
        return mark_selected(frame)

    def consolidate(self) -> pd.DataFrame | None:
        """Write ``results.parquet`` from the parts; return its rows."""
        frame = self.frame()
        if frame is not None:
            write_frame(self.run / "results.parquet", frame, frame.attrs["select_on"])
        return frame

    def open(self, sweep: SweepFile) -> None:
        """Make the run folder, or check that it is one of ours, and write the resolved sweep into it.

        Raises:
            RequestError: The folder holds something else.
        """
        self._require_ours()
        text = yaml.safe_dump(sweep.model_dump(exclude_none=True, mode="json"), sort_keys=False)
        write_atomic(self.run / "sweep.yaml", text.encode())

    def _require_ours(self) -> None:
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


def summarise(trial: str, frame: pd.DataFrame) -> Finished:
    """Return what the ledger knows of one trial's rows."""
    first = frame.iloc[0]
    select_on = frame.attrs["select_on"]
    on_split = frame[frame["split"] == select_on]
    scored = on_split[on_split["is_selected"]]
    value = float(scored["accuracy"].mean()) if len(scored) else None
    looks = on_split[~on_split["is_selected"] & ~on_split["is_final"]]
    return Finished(
        trial=trial,
        params=json.loads(first["params"]),
        outcome=Outcome(first["outcome"]),
        message=str(first["message"] or ""),
        value=value if value is not None and math.isfinite(value) else None,
        looks={int(row.iteration): float(row.accuracy) for row in looks.itertuples()},
        wall_s=float(frame["wall_s"].max()),
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
