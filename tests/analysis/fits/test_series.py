from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.fits.series import by_noise, series

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


def test_a_series_has_its_scores_by_ipc_and_its_baseline(sweep: pd.DataFrame) -> None:
    found = series(sweep)
    item = next(it for it in found if it.setting.method == "datm+tad" and it.setting.noise_rate == 0.3)
    assert item.ipcs == (1, 10, 50)
    assert item.replicates == [(0, 0), (1, 0), (2, 0)]
    assert item.full is not None
    assert item.full.setting.noise_rate == 0.3
    assert item.table([(1, 0), (9, 9)])[0, 2] == np.mean(item.by_ipc[50].sample[1, 0])
    assert np.isnan(item.table([(9, 9)])).all()
    assert item.reason == ""
    assert len(found) == 9


def test_cells_without_a_score_are_counted(sweep: pd.DataFrame) -> None:
    found = series(sweep)
    item = next(it for it in found if it.setting.method == "datm" and it.setting.noise_rate == 0.6)
    assert item.reason == "1 of 9 cells without a score on the test set."


def test_a_series_of_failed_cells_says_so(make_frame: MakeFrame, row: MakeRow) -> None:
    failed = {"outcome": "failed", "accuracy": None, "split": None, "eval_backbone": None, "is_selected": False}
    frame = make_frame([row(cell=f"c{i}", base_method="datm", ipc=i, noise_rate=0.4, **failed) for i in (1, 10)])
    (item,) = series(frame)
    assert item.ipcs == ()
    assert item.reason == "None of 2 cells has a score on the test set."
    assert (item.rate, item.setting.ipc) == (0.4, None)


def test_joined_runs_and_averaged_cells_are_named(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"base_method": "datm", "noise_seed": 0}
    rows = [
        row(run="a", cell="x", ipc=1, accuracy=0.4, **common),
        row(run="b", cell="y", ipc=1, accuracy=0.6, **common),
        row(run="b", cell="z", ipc=10, accuracy=0.7, **common),
    ]
    (item,) = series(make_frame(rows))
    assert item.reason == (
        "Rows of 2 runs are joined: a and b. "
        "Cells that differ in something unnamed, such as a hyper-parameter, are averaged at IPC 1."
    )


def test_the_rate_is_the_realised_one(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"base_method": "datm", "ipc": 1, "noise_rate": 0.4, "accuracy": 0.5}
    rows = [row(cell=f"c{i}", noise_seed=i, noise_rate_realised=0.19 + 0.02 * i, **common) for i in (0, 1)]
    (item,) = series(make_frame(rows))
    assert item.rate == np.mean([0.19, 0.21])
    (plain,) = series(make_frame([row(cell="c", **common)]))
    assert plain.rate == 0.4


def test_an_empty_table_is_a_sentence(sweep: pd.DataFrame) -> None:
    for frame in (sweep.iloc[:0], pd.DataFrame()):
        assert series(frame).reason == "The result table is empty, so there is nothing to fit."
        assert len(series(frame)) == 0
    only_full = sweep[sweep["base_method"] == "full"]
    assert series(only_full).reason == "The result table holds no distilled set and no coreset."


def test_no_noise_is_the_rate_zero_of_every_kind(make_frame: MakeFrame, row: MakeRow) -> None:
    def cell(noise: str, method: str) -> dict[str, Any]:
        return row(cell=noise + method, noise=noise, base_method=method, ipc=1, accuracy=0.5)

    kinds = [("none", "datm"), ("symmetric", "datm"), ("asymmetric", "datm"), ("none", "dm")]
    groups = by_noise(series(make_frame([cell(*kind) for kind in kinds])).items)
    sizes = {(key.noise, key.base_method): [it.setting.noise for it in items] for key, items in groups.items()}
    assert sizes == {
        ("symmetric", "datm"): ["none", "symmetric"],
        ("asymmetric", "datm"): ["none", "asymmetric"],
        ("none", "dm"): ["none"],
    }
