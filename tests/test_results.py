"""The result table: its columns are fixed, and reading refuses what is not ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.results import FORMAT_VERSION, SCHEMA, SPLITS, Outcome, read_rows, read_run, write_frame, write_rows

COLUMNS = """run cell trial dataset noise noise_rate noise_rate_realised label_set noise_seed base_method variant ipc
backbone eval_backbone seed eval_seed iteration split accuracy accuracy_best loss is_final is_selected params outcome
message wall_s peak_memory_bytes device config_hash expert_key code_version format_version finished_at"""


def row(**changes: Any) -> dict[str, Any]:
    values = {"run": "r", "trial": "t", "ipc": 10, "accuracy": 0.5, "is_final": True, "format_version": FORMAT_VERSION}
    return values | changes


def test_columns_outcomes_and_splits_are_frozen() -> None:
    assert COLUMNS.split() == SCHEMA.names
    assert [str(o) for o in Outcome] == ["ok", "diverged", "nonfinite", "oom", "failed", "stopped", "timeout"]
    assert SPLITS == ("val_noisy", "val_clean", "test")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_sentence(outcome: Outcome) -> None:
    assert outcome.sentence[0].isupper()
    assert outcome.sentence.endswith(".")


def test_what_a_rerun_could_change_is_not_settled() -> None:
    settled = {outcome for outcome in Outcome if outcome.is_settled}
    assert settled == {Outcome.OK, Outcome.DIVERGED, Outcome.NONFINITE, Outcome.STOPPED}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "parts" / "p.parquet"
    write_rows(path, [row(), row(ipc=None, accuracy=None, outcome=Outcome.FAILED, extra="dropped")], "val_clean")
    frame = read_rows(path)
    assert os.listdir(path.parent) == ["p.parquet"]
    assert list(frame.columns) == SCHEMA.names
    assert frame.attrs["select_on"] == "val_clean"
    assert frame["ipc"].dtype == pd.Int64Dtype()
    assert frame["ipc"].tolist() == [10, pd.NA]
    assert frame["outcome"].fillna("").tolist() == ["", "failed"]
    assert frame["accuracy"][0] == 0.5
    assert pd.isna(frame["accuracy"][1])


def test_a_frame_round_trips_through_a_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(), row(ipc=None)], "test")
    first = read_rows(tmp_path / "a.parquet")
    write_frame(tmp_path / "b.parquet", first, "test")
    pd.testing.assert_frame_equal(read_rows(tmp_path / "b.parquet"), first)


def test_no_rows_are_a_table_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [], "val_noisy")
    assert len(read_rows(tmp_path / "a.parquet")) == 0


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(CorruptFileError, match=r"a\.parquet is not a readable Parquet file"):
        read_rows(path)
    with pytest.raises(CorruptFileError, match="is not a readable Parquet file"):
        read_rows(tmp_path / "absent.parquet")
    pq.write_table(pa.table({name: pa.array([], type=SCHEMA.field(name).type) for name in SCHEMA.names[2:]}), path)
    with pytest.raises(
        CorruptFileError, match=r"lacks the column\(s\) cell, run: it is no result file of this version"
    ):
        read_rows(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(format_version=99)], "val_noisy")
    with pytest.raises(CorruptFileError, match=rf"has format version 99; this ddnl reads version {FORMAT_VERSION}"):
        read_rows(tmp_path / "a.parquet")


def test_run_folders(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is not a run folder: it has neither results\.parquet nor sweep\.yaml"):
        read_run(tmp_path)
    (tmp_path / "sweep.yaml").write_text("name: x\n")
    with pytest.raises(RequestError, match="has no results yet: no trial has finished"):
        read_run(tmp_path)
    write_rows(tmp_path / "results.parquet", [row()], "val_noisy")
    assert read_run(tmp_path)["run"].tolist() == ["r"]
