"""All parts in one file, against reading every part: the same results, whatever happened to the pack."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.results import Outcome, read_rows, write_frame
from ddnl_ray.sweep import pack
from ddnl_ray.sweep.ledger import Finished, Ledger, mark_selected, trial_name

Row = Callable[..., dict[str, Any]]


def plain_finished(ledger: Ledger) -> dict[str, Finished]:
    """Read every part by itself, with pandas."""
    found = {}
    for path in sorted(ledger.parts.glob("*.parquet")):
        frame = read_rows(path)
        on_split = frame[frame["split"] == frame.attrs["select_on"]]
        scored = on_split[on_split["is_selected"]]
        value = float(scored["accuracy"].mean()) if len(scored) else None
        looks = on_split[~on_split["is_selected"] & ~on_split["is_final"]]
        first = frame.iloc[0]
        found[path.stem] = Finished(
            trial=path.stem,
            params={} if first["params"] == "{}" else {"lr": 0.5},
            outcome=Outcome(first["outcome"]),
            message=str(first["message"] or ""),
            value=value if value is not None and math.isfinite(value) else None,
            looks={int(row.iteration): float(row.accuracy) for row in looks.itertuples()},
            wall_s=float(frame["wall_s"].max()),
        )
    return found


def plain_table(ledger: Ledger, path: Path) -> bytes:
    """Write the table from every part, with pandas; return the file."""
    wanted = ledger.wanted()
    paths = sorted(ledger.parts.glob("*.parquet"))
    frames = [read_rows(path) for path in paths if wanted is None or path.stem in wanted]
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs = dict(frames[0].attrs)
    write_frame(path, mark_selected(frame), frame.attrs["select_on"])
    return path.read_bytes()


@pytest.fixture
def publish(row: Row) -> Callable[..., None]:
    """Publish a trial of many shapes: looks, several networks, no score, scores that are not numbers."""

    def publish(ledger: Ledger, cell: str, number: int, draw: random.Random) -> None:
        name = trial_name(cell, number)
        kind = draw.choice(["scores", "scores", "looks", "empty", "nan", "null"])
        about = {"params": draw.choice(["{}", '{"lr": 0.5}']), "wall_s": draw.random()}
        about["noise_rate"] = draw.choice([0.0, None])
        rows = [
            row(cell, name, draw.random(), eval_seed=seed, split=split, **about)
            for seed in range(draw.choice([1, 5, 9]))
            for split in ("val_noisy", "test")
        ]
        looks = [
            row(cell, name, draw.random(), iteration=at, is_final=False, is_selected=False, **about) for at in (1, 2)
        ]
        none = {"split": None, "is_final": False, "is_selected": False, "iteration": None, "message": "so it was"}
        shapes = {
            "scores": rows,
            "looks": looks + rows,
            "empty": [row(cell, name, None, **none, **about, outcome=draw.choice(["oom", "failed", "timeout"]))],
            "nan": [row(cell, name, float("nan"), loss=float("nan"), **about), *rows],
            "null": [row(cell, name, None, **about), *rows],
        }
        ledger.publish(name, shapes[kind], "val_noisy")

    return publish


@pytest.mark.parametrize("seed", range(4))
def test_the_pack_changes_nothing(
    tmp_path: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Parts come, are replaced and go; the pack is written early and late, and damaged."""
    monkeypatch.setattr(pack, "MANY", 5)
    draw, ledger = random.Random(seed), Ledger(tmp_path / "run")
    cells = ["a", "a-b", "a.b", "b"]
    for _ in range(12):
        for _ in range(draw.choice([1, 3, 9])):
            publish(ledger, draw.choice(cells), draw.randrange(12), draw)
        event = draw.choice(["nothing", "gone", "cut", "no pack", "summary"])
        if event == "gone":
            draw.choice(sorted(ledger.parts.glob("*.parquet"))).unlink()
        elif event == "cut" and ledger.pack.path.is_file():
            whole = bytearray(ledger.pack.path.read_bytes())
            place = draw.randrange(len(whole))
            whole[place] ^= 0xFF
            ledger.pack.path.write_bytes(bytes(whole[: draw.choice([len(whole), place])]))
        elif event == "no pack":
            ledger.pack.path.unlink(missing_ok=True)
        elif event == "summary":
            ledger.write_summary({"cells": {"a": 12, "a-b": 3, "b": 12}})
        plain = plain_finished(ledger)
        found = ledger.finished()
        assert list(found) == list(plain)
        for name, theirs in plain.items():
            ours = found[name]
            np.testing.assert_equal((ours.looks, ours.value), (theirs.looks, theirs.value))
            assert (ours.params, ours.outcome, ours.message, ours.wall_s) == (
                *(theirs.params, theirs.outcome, theirs.message, theirs.wall_s),
            )
        written = ledger.refresh() is not None
        assert written == bool(plain.keys() & (ledger.wanted() or plain).keys())
        if written:
            assert (ledger.run / "results.parquet").read_bytes() == plain_table(ledger, tmp_path / "plain.parquet")


def test_a_part_that_is_in_the_pack_is_not_read_again(
    tmp_path: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MANY", 5)
    ledger, draw, read = Ledger(tmp_path / "run"), random.Random(0), list[str]()
    plain = pack.read_table

    def note(path: Path, columns: Any = None) -> Any:
        read.append(path.stem)
        return plain(path, columns)

    monkeypatch.setattr(pack, "read_table", note)
    for number in range(7):
        publish(ledger, "a", number, draw)
    for again in (7, 0, 0):
        read.clear()
        ledger.refresh()
        assert len(read) == again
    publish(ledger, "a", 3, draw)
    publish(ledger, "a", 9, draw)
    read.clear()
    assert len(Ledger(ledger.run).finished()) == 8
    assert sorted(read) == ["a-0003", "a-0009"]


def test_a_part_damaged_after_it_was_packed_is_named(
    tmp_path: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MANY", 1)
    ledger = Ledger(tmp_path / "run")
    publish(ledger, "a", 0, random.Random(0))
    ledger.finished()
    path = ledger.parts / "a-0000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=rf"{path} is not a readable Parquet file"):
        ledger.finished()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_may_only_be_read_is_read(
    tmp_path: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MANY", 1)
    ledger = Ledger(tmp_path / "run")
    publish(ledger, "a", 0, random.Random(0))
    ledger.run.chmod(0o555)
    assert list(ledger.finished()) == ["a-0000"]
    ledger.run.chmod(0o755)
