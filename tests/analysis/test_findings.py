from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.findings import Verdict, comparisons, findings

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def pairs(row: MakeRow) -> Callable[..., list[dict[str, Any]]]:
    """A function that gives rows of full training at 50 % (early stopped 70 %) and of a method by IPC."""

    def make(by_ipc: dict[int, list[float]], **values: Any) -> list[dict[str, Any]]:
        common = {"noise_rate": 0.4} | values
        n = max(map(len, by_ipc.values()))
        full = [
            row(cell=f"f{i}", base_method="full", noise_seed=i, accuracy=0.5, accuracy_best=0.7, **common)
            for i in range(n)
        ]
        return full + [
            row(cell=f"d{ipc}{i}", base_method="datm", ipc=ipc, noise_seed=i, accuracy=accuracy, **common)
            for ipc, accuracies in by_ipc.items()
            for i, accuracy in enumerate(accuracies)
        ]

    return make


def test_sentences_state_difference_interval_and_n(make_frame: MakeFrame, pairs: Callable[..., Any]) -> None:
    rows = pairs({1: [0.30, 0.31, 0.32], 10: [0.60, 0.61, 0.62], 50: [0.3, 0.5, 0.7]})
    assert findings(make_frame(rows)) == [
        "Against full-data training (last epoch), of 3 distilled settings: "
        "1 higher, 1 lower and 1 with no difference found.",
        "Against full-data training (early stopped), of 3 distilled settings: "
        "0 higher, 2 lower and 1 with no difference found.",
        "digits, symmetric 40 %, datm on convnet3 against full-data training (last epoch): "
        "higher at IPC 10 (+11.0 [+8.5 to +13.5] points, n = 3); "
        "lower at IPC 1 (−19.0 [−21.5 to −16.5] points, n = 3); "
        "no difference found at IPC 50 (0.00 [−49.7 to +49.7] points, n = 3).",
        "digits, symmetric 40 %, datm on convnet3 against full-data training (early stopped): "
        "lower at IPC 1 (−39.0 [−41.5 to −36.5] points, n = 3) and "
        "IPC 10 (−9.0 [−11.5 to −6.5] points, n = 3); "
        "no difference found at IPC 50 (−20.0 [−69.7 to +29.7] points, n = 3).",
        "Each interval, in brackets in sentences, covers one paired difference with 95 % confidence: "
        "if no difference were real, about 0.3 of these 6 would exclude zero by chance.",
    ]


def test_one_replicate_claims_only_retraining(make_frame: MakeFrame, pairs: Callable[..., Any]) -> None:
    rows = [
        row | {"eval_seed": i, "accuracy": row["accuracy"] + i / 500} for i in (0, 1, 2) for row in pairs({1: [0.6]})
    ]
    said = findings(make_frame(rows))
    assert "n = 3 retrainings of one replicate" in said[2]
    assert said[-1].startswith("Where there is one replicate, the interval covers retraining only")


def test_one_value_gives_no_verdict(make_frame: MakeFrame, pairs: Callable[..., Any]) -> None:
    frame = make_frame(pairs({1: [0.9]}))
    assert {item.verdict for item in comparisons(frame)} == {Verdict.NO_INTERVAL}
    said = findings(frame)
    assert said[0].endswith("0 higher, 0 lower, 0 with no difference found and 1 without enough replicates to say.")
    assert said[2].endswith("(last epoch): no interval at IPC 1 (+40.0 points, n = 1).")
    assert len(said) == 4


def test_without_a_matched_replicate_nothing_is_claimed(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [
        row(cell="f", base_method="full", noise_seed=0, accuracy=0.5),
        row(cell="d", base_method="datm", ipc=1, noise_seed=1, accuracy=0.9),
    ]
    (comparison,) = comparisons(make_frame(rows))
    assert comparison.verdict is Verdict.UNMATCHED
    said = findings(make_frame(rows))
    assert said[1] == "No score of full-data training (early stopped) exists to compare with."
    assert said[2].endswith("no matched replicate at IPC 1.")


def test_rates_and_data_sets_are_never_mixed(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [
        row(cell="f", base_method="full", noise_rate=0.2, accuracy=0.5),
        row(cell="d", base_method="datm", ipc=1, noise_rate=0.4, accuracy=0.9),
    ]
    assert findings(make_frame(rows)) == [
        "No `full` cell has the data, noise and evaluation network of a distilled set: nothing is compared."
    ]


def test_coresets_are_no_distilled_sets(sweep: pd.DataFrame) -> None:
    assert {item.setting.base_method for item in comparisons(sweep)} == {"datm"}
    coresets = sweep[sweep["base_method"].isin(["full", "random"])]
    assert findings(coresets) == ["No distilled set has a score on the test set, so there is nothing to compare."]


def test_verdicts_follow_the_means_of_the_synthetic_sweep(sweep: pd.DataFrame) -> None:
    verdicts = {
        (item.rival, item.setting.noise_rate, item.setting.method, item.setting.ipc): item.verdict
        for item in comparisons(sweep)
    }
    assert verdicts["none", 0.0, "datm", 1] is Verdict.LOWER
    assert verdicts["none", 0.6, "datm+tad", 10] is Verdict.HIGHER
    assert verdicts["early_stopped", 0.3, "datm", 1] is Verdict.LOWER
    assert len(verdicts) == 2 * 3 * 2 * 3


def test_missing_parts_are_a_sentence(sweep: pd.DataFrame) -> None:
    assert findings(sweep[sweep["base_method"] != "full"]) == [
        "The sweep has no scored `full` cell, so distilled sets are not compared with full-data training."
    ]
    assert findings(sweep.iloc[:0]) == [
        "No selected trial has a score on the test set, so there is nothing to compare."
    ]
