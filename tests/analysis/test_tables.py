from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.statistics import nested
from analysis.tables import accuracy_table, to_json, to_latex, to_markdown, to_text
from ddnl_ray.errors import RequestError

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]

COLUMNS = [
    *(
        "dataset",
        "noise",
        "noise_rate",
        "label_set",
        "base_method",
        "variant",
        "ipc",
        "backbone",
        "eval_backbone",
    ),
    *("split", "n", "mean", "low", "high"),
]


@pytest.fixture
def small(make_frame: MakeFrame, row: MakeRow) -> pd.DataFrame:
    """Three replicates of datm, and one replicate of full training with two retrainings."""
    datm = [
        row(cell=f"d{i}", base_method="datm", ipc=10, noise_rate=0.3, noise_seed=i, accuracy=accuracy)
        for i, accuracy in enumerate((0.5, 0.6, 0.7))
    ]
    full = [
        row(cell="f", base_method="full", noise_rate=0.3, noise_seed=0, eval_seed=i, accuracy=0.4 + 0.1 * i)
        for i in (0, 1)
    ]
    return make_frame(datm + full)


def test_text_is_aligned_and_says_what_it_shows(small: pd.DataFrame) -> None:
    assert to_text(accuracy_table(small)).splitlines() == [
        "Accuracy on the test set in %: mean ± half of the 95 % interval over n replicates "
        "(noise draw and seed). Selected on val_noisy (held-out data with noisy labels).",
        "",
        "data set  noise           method             IPC  network    n  accuracy (%)",
        "--------  --------------  -----------------  ---  --------  --  ------------",
        "digits    symmetric 30 %  full (last epoch)    –  convnet3  2†   45.0 ± 63.5",
        "digits    symmetric 30 %  datm                10  convnet3   3   60.0 ± 24.8",
        "",
        "† One replicate only: n counts retrainings on the same distilled set, and the interval does not "
        "cover the noise draw or the distillation.",
    ]


def test_rows_have_the_documented_fields_and_values(small: pd.DataFrame) -> None:
    rows = to_json(accuracy_table(small))
    assert [list(row) for row in rows] == [COLUMNS, COLUMNS]
    expected = nested({(i, 0): [value] for i, value in enumerate((0.5, 0.6, 0.7))})
    assert rows[1] == {
        **{
            "dataset": "digits",
            "noise": "symmetric",
            "noise_rate": 0.3,
            "label_set": None,
            "base_method": "datm",
        },
        **{
            "variant": "none",
            "ipc": 10,
            "backbone": "convnet3",
            "eval_backbone": "convnet3",
            "split": "test",
        },
        **{"n": 3, "mean": expected.mean, "low": expected.low, "high": expected.high},
    }


def test_json_has_null_and_never_nan(make_frame: MakeFrame, row: MakeRow) -> None:
    table = accuracy_table(make_frame([row(cell="f", base_method="full", accuracy=0.5, accuracy_best=0.6)]))
    assert math.isnan(table[0].low)
    last, early = json.loads(json.dumps(to_json(table), allow_nan=False))
    assert (last["variant"], last["mean"], last["n"], last["low"], last["high"]) == (
        "none",
        0.5,
        1,
        None,
        None,
    )
    assert (early["variant"], early["mean"], early["ipc"], early["noise_rate"]) == (
        "early_stopped",
        0.6,
        None,
        None,
    )


def test_a_single_value_shows_no_interval(make_frame: MakeFrame, row: MakeRow) -> None:
    text = to_text(accuracy_table(make_frame([row(cell="d", base_method="datm", ipc=1, accuracy=0.5)])))
    assert text.splitlines()[-1].endswith(" 1          50.0")


def test_selection_on_the_test_set_is_loud_everywhere(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [row(cell="d", base_method="datm", ipc=1, accuracy=0.5)]
    for render in (to_text, to_markdown, to_latex):
        assert "WARNING: selected on the test set" in render(accuracy_table(make_frame(rows, select_on="test")))
        assert "selected on the test set" not in render(accuracy_table(make_frame(rows)))
    frame = make_frame(rows)
    frame.attrs.clear()
    assert "is not recorded" in to_text(accuracy_table(frame))


def test_markdown_has_one_line_per_row_and_escapes_bars(make_frame: MakeFrame, row: MakeRow) -> None:
    table = accuracy_table(make_frame([row(cell="d", dataset="a|b", base_method="datm", ipc=1, accuracy=0.5)]))
    header, rule, line = to_markdown(table).splitlines()[2:]
    assert header == "| data set | noise | method | IPC | network | n | accuracy (%) |"
    assert rule == "| :--- | :--- | :--- | ---: | :--- | ---: | ---: |"
    assert line == r"| a\|b | symmetric | datm | 1 | convnet3 | 1 | 50.0 |"


def test_latex_escapes_what_tex_would_read(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"cell": "d", "base_method": "datm", "ipc": 1}
    rows = [
        row(dataset="my_set&co", variant="two_stage_knn", eval_seed=i, accuracy=0.5 + i / 10, **common) for i in (0, 1)
    ]
    text = to_latex(accuracy_table(make_frame(rows)))
    assert r"my\_set\&co & symmetric & knn\textgreater{}datm & 1 & convnet3 & 2$^\dagger$ & 55.0 $\pm$ 63.5 \\" in text
    assert r"\begin{tabular}{lllrlrr}" in text
    assert r"95 \% interval" in text
    assert re.search(r"(?<!\\)[%&_#]", text.replace(" & ", "")) is None
    assert text.count("{") == text.count("}")


def test_hidden_differences_are_footnoted(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [row(cell=cell, base_method="datm", ipc=1, noise_seed=0, accuracy=0.5) for cell in "ab"]
    table = accuracy_table(make_frame(rows))
    assert table.marks(0) == "†‡"
    assert "‡ Averages cells that differ" in to_text(table)


def test_early_stopped_full_training_is_a_row_of_its_own(sweep: pd.DataFrame) -> None:
    table = accuracy_table(sweep)
    full = {(row.noise_rate, row.variant): row for row in table if row.base_method == "full"}
    assert full[0.6, "none"].mean == pytest.approx(0.431, abs=0.02)
    assert full[0.6, "early_stopped"].mean == pytest.approx(0.797, abs=0.02)
    assert len(table) == 3 * (2 + 3 * 3)


def test_a_failed_replicate_lowers_n(sweep: pd.DataFrame) -> None:
    n = {(row.noise_rate, row.method, row.ipc): row.n for row in accuracy_table(sweep)}
    assert n[0.6, "datm", 50] == 2
    assert {value for key, value in n.items() if key != (0.6, "datm", 50)} == {3}


def test_other_splits_and_confidences(sweep: pd.DataFrame) -> None:
    assert {row.split for row in accuracy_table(sweep, split="val_noisy")} == {"val_noisy"}
    wide, narrow = accuracy_table(sweep, confidence=0.99)[0], accuracy_table(sweep, confidence=0.5)[0]
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(RequestError, match=r"confidence must lie between 0 and 1 but got 1\.5"):
        accuracy_table(sweep, confidence=1.5)


def test_networks_are_told_apart(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"cell": "d", "base_method": "datm", "ipc": 1, "accuracy": 0.5}
    table = accuracy_table(make_frame([row(eval_backbone=name, **common) for name in ("convnet3", "resnet18")]))
    assert [row.networks for row in table] == ["convnet3", "convnet3 → resnet18"]


def test_no_row_is_said_in_a_sentence(sweep: pd.DataFrame) -> None:
    for frame in (sweep.iloc[:0], sweep[sweep["outcome"] != "ok"]):
        table = accuracy_table(frame)
        assert len(table) == 0
        assert to_json(table) == []
        for render in (to_text, to_markdown, to_latex):
            assert "No selected trial has a score on the test set." in render(table)
    assert "No selected trial has a score on val_clean" in to_text(accuracy_table(sweep, split="val_clean"))
