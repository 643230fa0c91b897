from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.names import counted, duration, listed, method_name, noise_name, percent
from analysis.scores import Setting, full_data_score, headline_rows, scores

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("base", "variant", "name"),
    [
        ("datm", "none", "datm"),
        ("datm", "tad", "datm+tad"),
        ("datm", "sgr_tiat", "datm+sgr+tiat"),
        ("idm", "rdc", "idm+rdc"),
        ("datm", "two_stage_dividemix", "dividemix>datm"),
        ("mtt", "c2d", "c2d>mtt"),
        ("mtt", "l2b_dividemix", "l2b>mtt"),
        ("idm", "rdc_partial", "idm+rdc_partial"),
        ("full", "none", "full (last epoch)"),
        ("full", "early_stopped", "full (early stopped)"),
        ("full", "two_stage_lossmix", "lossmix>full (last epoch)"),
        ("full", "two_stage_lossmix_early_stopped", "lossmix>full (early stopped)"),
        ("full", "c2d", "c2d>full (last epoch)"),
        ("full", "l2b_dividemix_early_stopped", "l2b>full (early stopped)"),
    ],
)
def test_method_names(base: str, variant: str, name: str) -> None:
    assert method_name(base, variant) == name


def test_noise_names() -> None:
    assert noise_name("none", 0.0, None) == "no noise"
    assert noise_name("symmetric", 0.3, None) == "symmetric 30 %"
    assert noise_name("natural", 0.4021, "worse") == "natural (worse)"
    assert noise_name("natural", None, None) == "natural"


def test_numbers_as_text() -> None:
    assert [percent(value) for value in (0.1234, 1.0, float("nan"))] == ["12.3", "100.0", "–"]
    assert [percent(value, signed=True) for value in (0.05, -0.05, 0.0)] == ["+5.0", "−5.0", "0.00"]
    assert percent(-0.0004, signed=True) == "−0.04"
    assert [duration(value) for value in (0.25, 59, 61, 3599.9, 7800)] == [
        *("0.2 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 10 min"),
    ]
    assert (counted(1, "cell"), counted(0, "cell")) == ("1 cell", "0 cells")
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_headline_rows_are_selected_and_scored(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"cell": "c", "base_method": "datm", "ipc": 1, "accuracy": 0.5}
    frame = make_frame(
        [
            row(trial="chosen", **common),
            row(trial="other", **common | {"is_selected": False}),
            row(trial="elsewhere", **common | {"split": "val_noisy"}),
            row(trial="failed", **common | {"outcome": "failed", "accuracy": None, "is_selected": None}),
        ]
    )
    assert headline_rows(frame, "test")["trial"].tolist() == ["chosen"]
    assert headline_rows(frame)["trial"].tolist() == ["chosen", "elsewhere"]


def test_cells_that_differ_in_seeds_only_are_replicates(make_frame: MakeFrame, row: MakeRow) -> None:
    keys = [(noise_seed, seed) for noise_seed in (0, 1) for seed in (0, 1)]
    rows = [
        row(
            cell=f"c{key}",
            base_method="datm",
            ipc=1,
            noise_seed=key[0],
            seed=key[1],
            eval_seed=i,
            accuracy=0.1 * i,
        )
        for key in keys
        for i in (1, 2)
    ]
    (score,) = scores(make_frame(rows))
    assert score.sample == {key: [0.1, 0.2] for key in keys}
    assert score.setting.noise_rate is None
    assert not score.is_pooled


def test_cells_that_differ_in_something_hidden_are_marked(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"base_method": "datm", "ipc": 1, "noise_seed": 0}
    rows = [row(cell="a", accuracy=0.4, **common), row(cell="b", accuracy=0.6, **common)]
    (score,) = scores(make_frame(rows))
    assert score.is_pooled
    assert score.sample == {(0, 0): [0.4, 0.6]}


def test_full_has_a_last_epoch_and_an_early_stopped_score(make_frame: MakeFrame, row: MakeRow) -> None:
    common = {"cell": "c", "base_method": "full", "noise_seed": 0}
    frame = make_frame([row(accuracy=0.4, accuracy_best=0.7, **common)])
    assert [(score.setting.variant, score.sample) for score in scores(frame)] == [
        ("none", {(0, 0): [0.4]}),
        ("early_stopped", {(0, 0): [0.7]}),
    ]
    without = make_frame([row(accuracy=0.4, accuracy_best=None, **common)])
    assert [score.setting.variant for score in scores(without)] == ["none"]


def test_full_data_score_has_the_same_problem(sweep: pd.DataFrame) -> None:
    found = scores(sweep)
    setting = Setting("digits", "symmetric", 0.3, None, "datm", "tad", 10, "convnet3", "convnet3")
    full = full_data_score(found, setting, "none")
    assert full is not None
    assert (full.setting.base_method, full.setting.noise_rate) == ("full", 0.3)
    other = Setting("digits", "symmetric", 0.3, None, "datm", "tad", 10, "resnet18", "convnet3")
    assert full_data_score(found, other, "none") == full
    for unlike in ({"noise_rate": 0.4}, {"dataset": "cifar10"}, {"eval_backbone": "resnet18"}):
        values = {name: getattr(setting, name) for name in Setting.__dataclass_fields__}
        assert full_data_score(found, Setting(**values | unlike), "none") is None


def test_scores_are_in_the_order_of_tables(sweep: pd.DataFrame) -> None:
    names = [(score.setting.noise_label, score.setting.method, score.setting.ipc) for score in scores(sweep)]
    assert names[:4] == [
        ("no noise", "full (last epoch)", None),
        ("no noise", "full (early stopped)", None),
        ("no noise", "random", 1),
        ("no noise", "random", 10),
    ]
    assert [name for name, _, _ in names] == sorted(
        (name for name, _, _ in names), key=["no noise", "symmetric 30 %", "symmetric 60 %"].index
    )
    assert scores(sweep.sample(frac=1, random_state=1))[7].setting == scores(sweep)[7].setting
