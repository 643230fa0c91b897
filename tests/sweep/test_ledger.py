"""The ledger: a trial is finished when its part is there whole, and each run folder has one driver."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.results import Outcome, read_rows
from ddnl_ray.sweep.ledger import Finished, Ledger, mark_selected, trial_name
from ddnl_ray.sweep.schema import SweepFile

Row = dict[str, Any]
MakeRow = Callable[..., Row]

HOLD = """
import sys
from pathlib import Path
from ddnl_ray.sweep.ledger import Ledger
with Ledger(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "run")


@pytest.fixture
def publish(ledger: Ledger, row: MakeRow) -> Callable[..., Finished]:
    """Publish a trial with one row per accuracy."""

    def publish(cell: str, number: int, *accuracies: float | None, **values: Any) -> Finished:
        name = trial_name(cell, number)
        return ledger.publish(
            name, [row(cell, name, a, eval_seed=i, **values) for i, a in enumerate(accuracies)], "val_noisy"
        )

    return publish


def selected(frame: pd.DataFrame) -> set[str]:
    return set(frame[frame["is_selected"]]["trial"])


def test_a_published_trial_is_there(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    assert not ledger.has("c-0003")
    assert ledger.finished() == {}
    assert ledger.frame() is None
    assert ledger.consolidate() is None
    made = publish("c", 3, 0.25, 0.75, params=json.dumps({"lr_img": 3.5}), wall_s=2.0)
    assert made == Finished("c-0003", {"lr_img": 3.5}, Outcome.OK, "", 0.5, {}, 2.0)
    assert ledger.has("c-0003")
    assert ledger.read("c-0003") == made
    assert ledger.finished() == {"c-0003": made}


def test_parameters_survive_to_the_last_bit(publish: Callable[..., Finished]) -> None:
    params = {"lr_img": 0.1 + 0.2, "lr_lr": 1e-300, "iterations": 3, "batch_syn": None, "pix_init": "real"}
    assert publish("c", 0, 0.5, params=json.dumps(params)).params == params


def test_publishing_drops_the_checkpoint(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    folder = ledger.run / "trials" / "c-0000"
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"x")
    (folder / "card.json").write_bytes(b"{}")
    publish("c", 0, 0.5)
    assert [path.name for path in folder.iterdir()] == ["card.json"]


def test_the_value_is_the_mean_over_the_selected_scores_on_the_selection_split(ledger: Ledger, row: MakeRow) -> None:
    rows = [
        row("c", "c-0000", 0.2, eval_backbone="convnet1"),
        row("c", "c-0000", 0.6, eval_backbone="convnet2"),
        row("c", "c-0000", 0.9, split="test"),
        row("c", "c-0000", 0.99, is_selected=False),
        row("c", "c-0000", 0.1, iteration=1, is_selected=False, is_final=False),
        row("c", "c-0000", 0.3, iteration=2, is_selected=False, is_final=False),
        row("c", "c-0000", 0.7, iteration=2, is_selected=False, is_final=False, split="test"),
    ]
    made = ledger.publish("c-0000", rows, "val_noisy")
    assert made.value == pytest.approx(0.4)
    assert made.looks == {1: 0.1, 2: 0.3}
    assert ledger.publish("c-0000", rows, "test").value == pytest.approx(0.9)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.OK])
def test_a_trial_without_a_score_says_why(ledger: Ledger, row: MakeRow, outcome: Outcome) -> None:
    empty = row(
        "c", "c-0000", None, split=None, is_final=False, is_selected=False, outcome=outcome, message="so it was"
    )
    made = ledger.publish("c-0000", [empty], "val_noisy")
    assert (made.outcome, made.message, made.value, made.looks) == (outcome, "so it was", None, {})
    assert (made.trial in ledger.settled()) == outcome.is_settled
    frame = ledger.consolidate()
    assert frame is not None
    assert selected(frame) == set()


def test_a_score_that_is_not_a_number_is_none(publish: Callable[..., Finished]) -> None:
    assert publish("c", 0, float("nan")).value is None


def test_the_best_trial_of_each_cell_is_marked(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    publish("a", 0, 0.4, 0.4)
    publish("a", 1, 0.1, 0.9)  # the mean counts
    publish("a", 2, 0.3)
    publish("b", 0, 0.2)
    frame = ledger.frame()
    assert frame is not None
    assert selected(frame) == {"a-0001", "b-0000"}
    assert frame["is_final"].all()


def test_looks_at_the_best_trial_are_not_selected(ledger: Ledger, row: MakeRow) -> None:
    look = row("a", "a-0000", 0.9, iteration=1, is_selected=False, is_final=False)
    ledger.publish("a-0000", [look, row("a", "a-0000", 0.4)], "val_noisy")
    frame = ledger.frame()
    assert frame is not None
    assert frame[frame["is_selected"]]["iteration"].tolist() == [3]


def test_ties_go_to_the_earlier_trial(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    for number in (2, 0, 1):
        publish("a", number, 0.5)
    frame = ledger.frame()
    assert frame is not None
    assert selected(frame) == {"a-0000"}


def test_the_best_trial_is_chosen_on_the_selection_split(row: MakeRow) -> None:
    frame = pd.DataFrame(
        [
            row("a", "a-0000", 0.9, split="test"),
            row("a", "a-0000", 0.1),
            row("a", "a-0001", 0.2, split="test"),
            row("a", "a-0001", 0.3),
        ]
    )
    frame.attrs["select_on"] = "val_noisy"
    assert selected(mark_selected(frame)) == {"a-0001"}
    frame.attrs["select_on"] = "test"
    assert selected(mark_selected(frame)) == {"a-0000"}
    assert frame["is_selected"].all(), "the given frame was changed"


def test_a_failed_trial_is_never_the_best(ledger: Ledger, row: MakeRow, publish: Callable[..., Finished]) -> None:
    empty = row("a", "a-0000", None, split=None, is_final=False, is_selected=False, outcome="failed")
    ledger.publish("a-0000", [empty], "val_noisy")
    publish("a", 1, 0.01)
    frame = ledger.frame()
    assert frame is not None
    assert selected(frame) == {"a-0001"}


def test_the_consolidated_table_is_the_parts(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    publish("a", 0, 0.4, 0.5)
    publish("b", 0, 0.2)
    frame = ledger.consolidate()
    written = read_rows(ledger.run / "results.parquet")
    assert frame is not None
    pd.testing.assert_frame_equal(written, frame)
    assert written.attrs["select_on"] == "val_noisy"
    assert list(written["trial"]) == ["a-0000", "a-0000", "b-0000"]


def test_the_order_in_which_trials_end_does_not_change_the_table(tmp_path: Path, row: MakeRow) -> None:
    tables = []
    for order in ([0, 1, 2], [2, 0, 1]):
        one = Ledger(tmp_path / f"run{order[0]}")
        for number in order:
            name = trial_name("a", number)
            one.publish(name, [row("a", name, 0.1 * number)], "val_noisy")
        one.consolidate()
        tables.append((one.run / "results.parquet").read_bytes())
    assert tables[0] == tables[1]


def test_cells_that_left_the_plan_stay_on_disk_and_out_of_the_table(
    ledger: Ledger, publish: Callable[..., Finished]
) -> None:
    publish("gone", 0, 0.9)
    publish("kept", 0, 0.1)
    publish("kept", 1, 0.2)
    publish("kept", 2, 0.3)
    ledger.write_summary({"cells": {"kept": 2}})
    frame = ledger.consolidate()
    assert frame is not None
    assert set(frame["trial"]) == {"kept-0000", "kept-0001"}
    assert selected(frame) == {"kept-0001"}
    assert set(ledger.finished()) == {"gone-0000", "kept-0000", "kept-0001", "kept-0002"}
    ledger.write_summary({"cells": {"kept": 2, "gone": 1}})
    again = ledger.consolidate()
    assert again is not None
    assert "gone-0000" in set(again["trial"])


def test_half_written_files_are_ignored(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    """What a killed writer leaves has another name than a part."""
    publish("a", 0, 0.5)
    whole = (ledger.parts / "a-0000.parquet").read_bytes()
    (ledger.parts / ".a-0001.parquet.0a1b2c3d.tmp").write_bytes(whole[: len(whole) // 2])
    assert set(ledger.finished()) == {"a-0000"}
    assert not ledger.has("a-0001")
    frame = ledger.consolidate()
    assert frame is not None
    assert set(frame["trial"]) == {"a-0000"}


def test_a_writer_that_dies_leaves_the_old_part_or_none(
    ledger: Ledger, publish: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("a", 0, 0.5)
    before = (ledger.parts / "a-0000.parquet").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    for number in (0, 1):
        with pytest.raises(OSError, match="disk full"):
            publish("a", number, 0.9)
    assert (ledger.parts / "a-0000.parquet").read_bytes() == before
    assert [path.name for path in ledger.parts.iterdir()] == ["a-0000.parquet"]


def test_a_damaged_part_is_named(ledger: Ledger, publish: Callable[..., Finished]) -> None:
    publish("a", 0, 0.5)
    path = ledger.parts / "a-0000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=rf"{path} is not a readable Parquet file"):
        ledger.finished()


def test_a_run_folder_says_what_it_runs(ledger: Ledger, sweep: Callable[..., SweepFile]) -> None:
    read = sweep("budget.experts=1")
    ledger.open(read)
    assert SweepFile.model_validate(yaml.safe_load((ledger.run / "sweep.yaml").read_text())) == read
    ledger.open(sweep("budget.experts=2"))
    assert yaml.safe_load((ledger.run / "sweep.yaml").read_text())["budget"]["experts"] == 2


def test_a_strangers_folder_is_refused_and_left_alone(ledger: Ledger, sweep: Callable[..., SweepFile]) -> None:
    ledger.run.mkdir()
    (ledger.run / "thesis.tex").write_text("x")
    message = (
        rf"^{ledger.run} exists and is not a run folder \(it holds 'thesis\.tex' and no sweep\.yaml\); choose another"
    )
    with pytest.raises(RequestError, match=message):
        ledger.open(sweep())
    with pytest.raises(RequestError, match=message), ledger.lock():
        pass
    assert [path.name for path in ledger.run.iterdir()] == ["thesis.tex"]


def test_a_folder_with_hidden_files_only_is_taken(ledger: Ledger, sweep: Callable[..., SweepFile]) -> None:
    with ledger.lock():
        (ledger.run / ".DS_Store").write_text("x")
        ledger.open(sweep())


def test_a_second_driver_is_refused_until_the_first_is_gone_however_it_ends(ledger: Ledger) -> None:
    command = [sys.executable, "-c", HOLD, str(ledger.run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert ledger.is_locked()
        message = rf"^another `ddnl sweep` is running on {ledger.run}; wait for it, or use another --name$"
        with pytest.raises(RequestError, match=message), ledger.lock():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not ledger.is_locked()
    with ledger.lock():
        assert ledger.is_locked()
    assert not ledger.is_locked()
