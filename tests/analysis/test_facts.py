"""Facts are kept run by run, and sizes that differ are said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.analyze import Information, analyze
from analysis.analyze_output import to_text
from analysis.facts import NO_SIZE, Facts, RunFacts, Size
from ddnl_ray.errors import RequestError

TWO = Facts({"small": RunFacts({"digits": 400}, {"digits": 10}), "whole": RunFacts({"digits": 1293}, {"digits": 10})})


def test_two_runs_of_one_data_set_keep_their_sizes() -> None:
    both = Facts({"small": TWO.runs["small"]}) | Facts({"whole": TWO.runs["whole"]})
    assert both == TWO
    assert both.size("digits", ["small"]).samples == 400
    assert both.size("digits", ["whole"]).samples == 1293


def test_a_series_of_both_has_no_size() -> None:
    mixed = TWO.size("digits", ["small", "whole"])
    assert (mixed.samples, mixed.classes) == (None, None)
    assert mixed.reason.startswith("Runs of 400 and 1293 training images are joined in one series")
    assert TWO.size("digits", ["other"]).reason == NO_SIZE
    assert TWO.size("cifar10", ["small"]).reason == NO_SIZE


def test_two_runs_of_one_name_and_different_sizes_are_refused() -> None:
    one, two = Facts({"x": TWO.runs["small"]}), Facts({"x": TWO.runs["whole"]})
    with pytest.raises(RequestError, match=r"two runs are called 'x'.*400 \(digits\) and 1293 \(digits\)"):
        one | two
    assert one | one == one


def test_facts_are_read_under_the_name_of_the_result_table(tmp_path: Path) -> None:
    size = {"dataset": "digits", "train_images": 400, "classes": 10}
    (tmp_path / "summary.json").write_text(json.dumps({"data": [size]}))
    found = Facts.of(tmp_path, pd.DataFrame({"run": ["mine", "mine"]}))
    assert found == Facts({"mine": RunFacts({"digits": 400}, {"digits": 10})})
    (tmp_path / "summary.json").unlink()
    assert Facts.of(tmp_path, pd.DataFrame({"run": ["mine"]})).size("digits", []).reason == NO_SIZE


def test_bounds_are_those_of_the_run_of_the_series(
    make_frame: Callable[..., pd.DataFrame], row: Callable[..., dict[str, Any]]
) -> None:
    """Two runs with different methods; then the same method in both."""

    def rows(run: str, method: str) -> list[dict[str, Any]]:
        common = {"run": run, "noise_rate": 0.5, "noise_rate_realised": 0.5, "noise_seed": 0}
        cells = [row(cell=f"{run}-{ipc}", base_method=method, ipc=ipc, accuracy=0.1 * ipc, **common) for ipc in (1, 9)]
        return [row(cell=f"{run}-f", base_method="full", accuracy=0.5, **common), *cells]

    apart = analyze(make_frame([*rows("small", "datm"), *rows("whole", "mtt")]), TWO, Information())
    upper = {each.setting.method: each.upper for each in apart.bounds}
    assert upper == {"datm": pytest.approx(400 * 0.5 / 10), "mtt": pytest.approx(1293 * 0.5 / 10)}
    joined = analyze(make_frame([*rows("small", "datm"), *rows("whole", "datm")]), TWO, Information())
    assert "Runs of 400 and 1293 training images are joined in one series" in to_text(joined)
    assert joined.rates[0].study is None


def test_human_labels_are_of_the_images_of_their_data_set() -> None:
    matrix = [[0.9, 0.1], [0.2, 0.8]]
    facts = Facts({"run": RunFacts({"cifar10": 2250}, {"cifar10": 10}, {("natural", None, "worse"): matrix})})
    assert facts.size("cifar10n", ["run"]) == Size(2250, 10)
    assert facts.transition(["run"], "natural", 0.402, "worse") == matrix  # results have the realised rate
