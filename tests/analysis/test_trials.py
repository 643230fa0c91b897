from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import previews as module
from analysis.previews import grouped, previews
from analysis.trials import cells, costs, failures, num_stopped, tuned
from ddnl_ray.results import Outcome

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


def test_the_winning_values_of_what_differed_are_listed(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [
        row(
            cell="c",
            trial=str(i),
            base_method="datm",
            ipc=1,
            accuracy=0.5,
            is_selected=i == 1,
            params=json.dumps({"lr": 10.0**-i, "same": 3, "aug": ["none", "dsa"][i]}),
        )
        for i in (0, 1)
    ]
    (found,) = tuned(cells(make_frame(rows)))
    assert found.best == {"lr": 0.1, "aug": "dsa"}
    assert found.text == "lr = 0.1, aug = dsa"
    assert len(found.cell.trials) == 2


def test_cells_without_a_search_are_not_listed(sweep: pd.DataFrame) -> None:
    found = tuned(cells(sweep))
    assert {item.cell.setting.method for item in found} == {"datm+tad"}
    assert len(found) == 27
    assert found[0].text == "tad.consistency_weight = 0.2, tad.top_k = 100"


def test_failures_are_grouped_by_cell_outcome_and_message(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"base_method": "datm", "ipc": 1, "split": None, "accuracy": None, "is_selected": None}
    oom = {"outcome": "oom", "message": "CUDA out of memory"}
    rows = [
        row(cell="a", trial="1", **common, **oom),
        row(cell="a", trial="2", **common, **oom),
        row(cell="a", trial="3", **common | {"outcome": "failed", "message": None}),
        row(cell="b", trial="4", **common | {"outcome": "stopped", "noise_seed": 1}),
        row(cell="c", trial="5", **common | {"outcome": "stopped", "noise_seed": 2}),
        row(
            cell="c",
            trial="6",
            **common | {"split": "test", "accuracy": 0.5, "is_selected": True, "noise_seed": 2},
        ),
    ]
    found = cells(make_frame(rows))
    listed = {(item.outcome, item.message, item.num_trials, item.cell.noise_seed) for item in failures(found)}
    assert listed == {
        (Outcome.OOM, "CUDA out of memory", 2, None),
        (Outcome.FAILED, "", 1, None),
        (Outcome.STOPPED, "", 1, 1),
    }
    assert num_stopped(found) == 2


def test_a_trial_costs_once_however_many_rows_it_has(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"cell": "c", "base_method": "datm", "ipc": 1, "accuracy": 0.5}
    rows = [row(trial="1", wall_s=10.0, eval_seed=i, **common) for i in range(3)]
    rows.append(row(trial="2", wall_s=5.0, peak_memory_bytes=None, **common))
    (cost,) = costs(cells(make_frame(rows)))
    assert (cost.method, cost.num_trials, cost.wall_s, cost.peak_memory_bytes) == ("datm", 2, 15.0, 2**28)


def test_previews_of_selected_trials_are_embedded(run_folder: Path, sweep: pd.DataFrame) -> None:
    found = previews(run_folder, sweep)
    assert len(found) == 27
    assert [item.setting.base_method for item in found[-9:]] == ["random"] * 9
    assert all((item.data_uri or "").startswith("data:image/png;base64,") for item in found)
    assert {item.num_repeats for item in found} == {2}
    groups = grouped(found)
    assert [group.title for group in groups] == [
        f"{method} · IPC 1 · digits · convnet3" for method in ("datm", "datm+tad", "random")
    ]
    assert [item.setting.noise_label for item in groups[0].first] == [
        "no noise",
        "symmetric 30 %",
        "symmetric 60 %",
    ]
    assert {item.noise_seed for item in groups[0].first} == {0}
    assert [item.noise_seed for item in groups[0].others] == [1, 2] * 3


def test_the_caption_is_of_this_trial(run_folder: Path, sweep: pd.DataFrame) -> None:
    item = next(item for item in previews(run_folder, sweep) if item.setting.method == "datm+tad")
    trial = Path(item.path).parent.name
    rows = sweep[(sweep["trial"] == trial) & (sweep["split"] == "test")]
    assert item.accuracy == pytest.approx(rows["accuracy"].mean())


def test_pictures_beyond_the_limit_are_linked(
    run_folder: Path, sweep: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(next(run_folder.glob("trials/*/preview.png")).read_bytes())
    monkeypatch.setattr(module, "EMBEDDED_BYTES", 2 * size)
    found = previews(run_folder, sweep)
    assert [item.data_uri is not None for item in found[:4]] == [True, True, False, False]
    assert (run_folder / found[3].path).is_file()


def test_a_run_without_pictures_has_no_previews(tmp_path: Path, sweep: pd.DataFrame) -> None:
    assert previews(tmp_path, sweep) == []
    assert grouped([]) == []
