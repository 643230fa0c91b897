"""The result table: its columns, and how part files become one table.

One row is one evaluation repeat: one network, trained once on one distilled set, scored on one split. A trial that
ended without a score has one row whose score columns are empty and whose ``outcome`` and ``message`` say why.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.files import write_atomic

FORMAT_VERSION = 1
SPLITS = ("val_noisy", "val_clean", "test")
_SELECT_ON = "ddnl_select_on"
SIMULATED = "simulated.json"
"""In a folder whose rows were not measured but simulated."""


class Outcome(StrEnum):
    """How a trial ended; ``sentence`` says it to a person."""

    OK = "ok"
    DIVERGED = "diverged"
    NONFINITE = "nonfinite"
    OOM = "oom"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMEOUT = "timeout"

    @property
    def sentence(self) -> str:
        """One sentence that tells a user what the outcome means."""
        return _SENTENCES[self]

    @property
    def is_settled(self) -> bool:
        """Whether running the same trial again could only give the same end."""
        return self in {Outcome.OK, Outcome.DIVERGED, Outcome.NONFINITE, Outcome.STOPPED}

    @property
    def is_failure(self) -> bool:
        """Whether a trial that was to run to its end did not."""
        return self not in {Outcome.OK, Outcome.STOPPED}


_SENTENCES = {
    Outcome.OK: "The trial ran to its end.",
    Outcome.DIVERGED: "The matching loss stayed above its threshold, so no update was ever accepted.",
    Outcome.NONFINITE: "The matching loss or the synthetic set became infinite or not a number.",
    Outcome.OOM: "The device ran out of memory.",
    Outcome.FAILED: "The trial raised an error.",
    Outcome.STOPPED: "The stopper ended the trial early: others of its cell were better at the same iteration.",
    Outcome.TIMEOUT: "The trial passed its time budget.",
}

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("cell", pa.string()),
        ("trial", pa.string()),
        ("dataset", pa.string()),
        ("noise", pa.string()),
        ("noise_rate", pa.float64()),
        ("noise_rate_realised", pa.float64()),
        ("label_set", pa.string()),
        ("noise_seed", pa.int64()),
        ("base_method", pa.string()),
        ("variant", pa.string()),
        ("ipc", pa.int64()),
        ("backbone", pa.string()),
        ("eval_backbone", pa.string()),
        ("seed", pa.int64()),
        ("eval_seed", pa.int64()),
        ("iteration", pa.int64()),
        ("split", pa.string()),
        ("accuracy", pa.float64()),
        ("accuracy_best", pa.float64()),
        ("loss", pa.float64()),
        ("is_final", pa.bool_()),
        ("is_selected", pa.bool_()),
        ("params", pa.string()),
        ("outcome", pa.string()),
        ("message", pa.string()),
        ("wall_s", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("device", pa.string()),
        ("config_hash", pa.string()),
        ("expert_key", pa.string()),
        ("code_version", pa.string()),
        ("format_version", pa.int64()),
        ("finished_at", pa.string()),
    ]
)


def rows_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows, one mapping of column to value each, as a table of :data:`SCHEMA`; what a row lacks is null."""
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], select_on: str) -> None:
    """Write rows atomically as Parquet; a column that a row lacks is null.

    Args:
        path: The file to write.
        rows: One mapping per row, column to value.
        select_on: The split on which iterations and trials were chosen; kept in the file's metadata, so that every
            table made of the file can say so.
    """
    write_table(path, rows_table(rows), select_on)


def write_frame(path: Path, frame: pd.DataFrame, select_on: str) -> None:
    """Write a frame with the columns of :data:`SCHEMA` atomically as Parquet (see :func:`write_rows`)."""
    write_table(path, pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False), select_on)


def write_table(path: Path, table: pa.Table, select_on: str) -> None:
    """Write an Arrow table of :data:`SCHEMA` atomically as Parquet (see :func:`write_rows`)."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_SELECT_ON: select_on}), buffer)
    write_atomic(path, buffer.getvalue())


def read_rows(path: Path) -> pd.DataFrame:
    """Read one result file (``results.parquet`` or a part).

    Returns:
        A frame with the columns of :data:`SCHEMA`, nullable integers, and ``attrs["select_on"]``.

    Raises:
        CorruptFileError: The file is not Parquet, lacks columns or has other types, or has another format version.
    """
    return as_frame(*read_table(path))


def read_table(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, str]:
    """Read some columns of a result file (None: all of :data:`SCHEMA`), and the split that it was selected on.

    Raises:
        CorruptFileError: As :func:`read_rows`.
    """
    names = columns or SCHEMA.names
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(SCHEMA.names) - set(file.schema_arrow.names))
            if missing:
                raise CorruptFileError(
                    f"{path} lacks the column(s) {', '.join(missing)}: it is no result file of this version of ddnl; "
                    f"{_ANOTHER_NAME}"
                )
            table = file.read([*names, "format_version"], use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptFileError(
            f"{path} is not a readable Parquet file ({' '.join(str(error).split())}); delete it and run the same "
            "`ddnl sweep` to have it made again"
        ) from error
    versions = set(table.column("format_version").to_pylist())
    if versions - {FORMAT_VERSION}:
        found = ", ".join(sorted(map(str, versions)))
        raise CorruptFileError(
            f"{path} has format version {found}; this ddnl reads version {FORMAT_VERSION}: use the ddnl that wrote it, "
            f"or {_ANOTHER_NAME}"
        )
    metadata = table.schema.metadata or {}
    return _as_schema(path, table, names), metadata.get(_SELECT_ON.encode(), b"val_noisy").decode()


def as_frame(table: pa.Table, select_on: str) -> pd.DataFrame:
    """Return a table of :data:`SCHEMA` as a frame (see :func:`read_rows`)."""
    types = {pa.int64(): pd.Int64Dtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=types.get)
    frame.attrs["select_on"] = select_on
    return frame


_ANOTHER_NAME = "run the sweep again with `ddnl sweep FILE --name` and another name"


def _as_schema(path: Path, table: pa.Table, names: list[str]) -> pa.Table:
    """Return columns of :data:`SCHEMA` in its types; metadata is left out."""
    columns, wanted = [], [SCHEMA.field(name) for name in names]
    for own in wanted:
        try:
            columns.append(table.column(own.name).cast(own.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise CorruptFileError(
                f"{path}: the column {own.name} holds {table.column(own.name).type} where {own.type} should be; "
                f"{_ANOTHER_NAME}"
            ) from error
    return pa.Table.from_arrays(columns, schema=pa.schema(wanted))


def read_run(run: Path) -> pd.DataFrame:
    """Read ``results.parquet`` of a run folder (see :func:`read_rows`).

    Raises:
        RequestError: The folder is not a run folder, is that of a simulation, or no trial of it has finished.
    """
    if (run / SIMULATED).is_file():
        raise RequestError(f"{run} holds a simulation and no results: its accuracies were made up")
    if (run / "results.parquet").is_file():
        return read_rows(run / "results.parquet")
    if (run / "sweep.yaml").is_file():
        raise RequestError(f"{run} has no results yet: no trial has finished. Run the same `ddnl sweep` to go on")
    raise RequestError(
        f"{run} is not a run folder: it has neither results.parquet nor sweep.yaml; `ddnl sweep` makes one"
    )
