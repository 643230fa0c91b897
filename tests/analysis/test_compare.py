from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.compare import Comparison, Line, Run, compare
from analysis.compare_tables import to_json, to_latex, to_markdown, to_text
from analysis.protocol import Change, Protocol
from analysis.statistics import standard_error
from ddnl_ray.errors import RequestError

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]

FULL_SIZE = Protocol(
    noise_map=None,
    zca=True,
    recipe_zca=True,
    width=128,
    usual_width=128,
    held_out=0.0,
    selected_on="test",
    changes=(),
)
"""Nothing speaks against comparing it with TAD."""
DATM = {"dataset": "cifar10", "noise_rate": 0.4, "base_method": "datm", "ipc": 10}
ACCURACIES = (0.58, 0.60, 0.62)


@pytest.fixture
def against(make_frame: MakeFrame, row: MakeRow) -> Callable[..., Comparison]:
    """Compare three noise draws of a setting, two repeats each, with a paper."""

    def make(
        paper: str = "tad",
        protocol: Protocol | None = FULL_SIZE,
        draws: int = 3,
        with_all: bool = False,
        **values: Any,
    ) -> Comparison:
        rows = [
            row(cell=f"c{i}", trial=f"t{i}", noise_seed=i, eval_seed=j, accuracy=ACCURACIES[i] + shift, **DATM | values)
            for i in range(draws)
            for j, shift in enumerate((-0.01, 0.01))
        ]
        how = None if protocol is None else lambda _: protocol
        return compare([Run("mine", make_frame(rows), how)], paper, with_all=with_all)

    return make


def only(comparison: Comparison) -> Line:
    (line,) = comparison.lines
    return line


def kinds(comparison: Comparison) -> list[str]:
    return [reason.kind for reason in only(comparison).reasons]


def test_repeats_are_averaged_within_a_draw_and_draws_give_interval_and_error(
    against: Callable[..., Comparison],
) -> None:
    comparison = against()
    line = only(comparison)
    assert line.reasons == ()
    assert (line.ours.n, line.ours.mean, line.printed.mean, line.tables) == (3, pytest.approx(0.6), 0.582, (1,))
    assert line.ours.half == pytest.approx(4.302652729911275 * 0.02 / math.sqrt(3))
    assert line.difference == pytest.approx(0.018)
    assert (line.z, line.errors) == (pytest.approx(0.018 / (0.02 / math.sqrt(3))), "ours")
    assert comparison.z(line) == line.z
    assert (comparison.num_printed, comparison.num_reached, comparison.missing) == (365, 1, ())


def test_both_errors_are_in_z_where_the_paper_tells_its_repeats(against: Callable[..., Comparison]) -> None:
    line = only(against("sgr_tiat", dataset="cifar100"))
    assert (line.printed.mean, line.printed.std) == (0.406, 0.004)
    expected = (0.6 - 0.406) / math.sqrt(0.02**2 / 3 + 0.004**2 / 5)
    assert (line.z, line.errors) == (pytest.approx(expected), "both")


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert standard_error({(0, 0): [0.1, 0.3], (1, 0): [0.4], (2, 0): [0.6]}) == pytest.approx(
        np.std([0.2, 0.4, 0.6], ddof=1) / math.sqrt(3)
    )
    assert standard_error({(0, 0): [0.1, 0.3]}) == pytest.approx(0.1)
    assert math.isnan(standard_error({(0, 0): [0.1]}))
    assert math.isnan(standard_error({}))


BUDGET = Change("budget", "budget.experts", "5", "100")
ASYMMETRIC = {"noise": "asymmetric", "noise_rate": 0.4}
RDC = {"base_method": "idm", "variant": "rdc", "backbone": "resnet18", "eval_backbone": "resnet18"}
RDC_SIZE = replace(FULL_SIZE, recipe_zca=False, width=64, usual_width=64)
PAIRFLIP = {**RDC, "noise": "pairflip"}

REASONS = [
    ("noise_map", "ours ddlnl, the paper's tad", "tad", replace(FULL_SIZE, noise_map="ddlnl"), ASYMMETRIC),
    (
        *("noise_map", "ours superclass, the paper's not told for cifar100", "sgr_tiat"),
        *(replace(FULL_SIZE, noise_map="superclass"), {**ASYMMETRIC, "dataset": "cifar100"}),
    ),
    ("noise_map", "ours pairflip, the paper's tad", "tad", FULL_SIZE, {"noise": "pairflip"}),
    (
        *("noise_map", "ours ddlnl, the paper's pairflip", "rdc"),
        *(replace(RDC_SIZE, noise_map="ddlnl"), {**RDC, **ASYMMETRIC}),
    ),
    ("backbone", "distilled with convnet4, the paper with convnet3", "tad", FULL_SIZE, {"backbone": "convnet4"}),
    ("eval_backbone", "trained resnet18 on the set", "tad", FULL_SIZE, {"eval_backbone": "resnet18"}),
    ("width", "convnet3 of width 32 instead of 128", "tad", replace(FULL_SIZE, width=32), {}),
    ("width", "width 64 instead of 32", "rdc", replace(RDC_SIZE, zca=False), {**PAIRFLIP, "base_method": "accdd"}),
    ("data", "data.subset 2500 instead of all", "tad", Change("data", "data.subset", "2500", "all"), {}),
    ("data", "10 % of the training images held out", "tad", replace(FULL_SIZE, held_out=0.1), {}),
    ("budget", "budget.experts 5 instead of 100", "tad", BUDGET, {}),
    ("settings", "datm.lr_y searched instead of 2", "tad", Change("settings", "datm.lr_y", "searched", "2"), {}),
    (
        *("selection", "ours on val_noisy, 10 % of the training images, the paper's on test", "tad"),
        *(replace(FULL_SIZE, selected_on="val_noisy", held_out=0.1), {}),
    ),
    ("whitening", "our images are not whitened, the paper's whitened", "tad", replace(FULL_SIZE, zca=False), {}),
    ("whitening", "our images are not whitened", "rdc", replace(RDC_SIZE, zca=False), PAIRFLIP),
    ("whitening", "our images are whitened", "tad", replace(FULL_SIZE, recipe_zca=False), {}),
    ("unrecorded", "sweep.yaml is missing", "tad", None, {}),
]


@pytest.mark.parametrize(("kind", "text", "paper", "protocol", "values"), REASONS)
def test_every_reason_is_given_alone_and_withholds_z(
    against: Callable[..., Comparison],
    kind: str,
    text: str,
    paper: str,
    protocol: Protocol | Change | None,
    values: Mapping[str, Any],
) -> None:
    if isinstance(protocol, Change):
        protocol = replace(FULL_SIZE, changes=(protocol,))
    comparison = against(paper, protocol, **values)
    assert kinds(comparison) == [kind]
    line = only(comparison)
    assert text in line.reasons[0].text
    assert not math.isnan(line.difference)
    assert math.isnan(comparison.z(line))
    assert against(paper, protocol, with_all=True, **values).z(line) == line.z != 0


def test_few_replicates_are_a_reason(against: Callable[..., Comparison]) -> None:
    assert kinds(against(draws=3)) == []
    assert only(against(draws=2)).reasons[0].text == "replicates: 2 replicates, fewer than 3"
    line = only(against(draws=1))
    assert (line.ours.within, line.ours.n, line.reasons[0].kind) == (True, 2, "replicates")
    assert line.reasons[0].text == "replicates: 1 replicate, fewer than 3"


@pytest.mark.parametrize(
    ("paper", "protocol", "values"),
    [
        ("rdc", RDC_SIZE, PAIRFLIP),
        ("rdc", replace(RDC_SIZE, width=32, zca=False), {**PAIRFLIP, "base_method": "accdd"}),
        ("tad", replace(FULL_SIZE, noise_map="tad"), ASYMMETRIC),
        ("tad", FULL_SIZE, {"noise": "none", "noise_rate": 0.0}),
        ("sgr_tiat", FULL_SIZE, {"base_method": "full", "ipc": None, "dataset": "cifar100", "backbone": "resnet18"}),
    ],
)
def test_nothing_speaks_against_what_is_alike(
    against: Callable[..., Comparison], paper: str, protocol: Protocol, values: Mapping[str, Any]
) -> None:
    assert kinds(against(paper, protocol, **values)) == []


def test_human_labels_are_joined_by_their_set(against: Callable[..., Comparison]) -> None:
    values = {"dataset": "cifar10n", "noise": "natural", "noise_rate": 0.40208, "base_method": "mtt"}
    line = only(against(label_set="worse", **values))
    assert (line.printed.noise_rate, line.reasons) == (0.4021, ())
    assert against(label_set="aggre", **values).lines == ()


def test_the_nearest_networks_are_taken(against: Callable[..., Comparison]) -> None:
    table6 = {**RDC, "noise": "pairflip", "ipc": 50}
    line = only(against("rdc", RDC_SIZE, **table6 | {"eval_backbone": "convnet3"}))
    assert (line.tables, line.printed.mean) == ((6,), pytest.approx(0.5746))
    lines = against("rdc", RDC_SIZE, **table6).lines
    assert [(line.tables, line.printed.mean) for line in lines] == [((1,), 0.5555), ((6,), pytest.approx(0.5777))]
    assert all(line.is_comparable for line in lines)


def test_a_number_that_is_printed_twice_is_one_line(against: Callable[..., Comparison]) -> None:
    comparison = against(dataset="cifar100", variant="tad", base_method="att")
    assert (only(comparison).tables, comparison.num_reached) == ((1, 4), 2)


ABLATED = (("tad.consistency_weight", 0.1), ("tad.loops", "outer"))
OUTER = Change("settings", "tad.loops", "outer", "both")


def test_a_configuration_meets_its_row_of_the_ablation(against: Callable[..., Comparison]) -> None:
    values = {**ASYMMETRIC, "variant": "tad", "ipc": 50}
    base = replace(FULL_SIZE, noise_map="tad")
    whole = only(against(protocol=replace(base, settings=(ABLATED[0], ("tad.loops", "both"))), **values))
    assert (whole.tables, whole.printed.row, whole.reasons) == ((1, 3), "F", ())
    outer = only(against(protocol=replace(base, settings=ABLATED, changes=(OUTER,)), **values))
    assert (outer.tables, outer.printed.row, outer.printed.mean, outer.reasons) == ((3,), "D", 0.673, ())
    # A configuration without a row is set beside the whole method, and marked.
    weights = (("tad.consistency_weight", 0.5), ("tad.loops", "outer"))
    other = only(against(protocol=replace(base, settings=weights, changes=(OUTER,)), **values))
    assert (other.printed.row, other.printed.variant, [r.kind for r in other.reasons]) == ("", "tad", ["settings"])


def test_configurations_of_a_grid_are_not_pooled(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [
        row(cell=f"{name}{i}", trial=f"{name}{i}", noise_seed=i, accuracy=0.5 + shift, params=f'"{name}"', **DATM)
        for name, shift in (("a", 0.0), ("b", 0.1))
        for i in range(3)
    ]
    changed = replace(FULL_SIZE, changes=(BUDGET,))
    run = Run("mine", make_frame(rows), lambda row: FULL_SIZE if row["params"] == '"a"' else changed)
    lines = compare([run], "tad").lines
    assert [(line.ours.mean, line.is_comparable) for line in lines] == [(0.5, True), (pytest.approx(0.6), False)]


def test_only_the_last_iteration_of_the_chosen_trial_on_the_test_split_counts(
    make_frame: MakeFrame, row: MakeRow
) -> None:
    common = {**DATM, "cell": "c", "noise_seed": 0}
    rows = [
        row(trial="t0", accuracy=0.5, is_selected=False, **common),  # final, of the chosen trial
        row(trial="t0", accuracy=0.9, is_final=False, iteration=200, **common),
        row(trial="t0", accuracy=0.1, split="val_noisy", **common),
        row(trial="t1", accuracy=0.2, is_selected=False, **common),
        row(trial="t2", accuracy=0.3, outcome="failed", **common),
    ]
    line = only(compare([Run("mine", make_frame(rows), None)], "tad"))
    assert (line.ours.n, line.ours.mean) == (1, 0.5)
    assert math.isnan(line.z)
    assert line.errors == ""


def test_settings_without_a_counterpart_are_named(against: Callable[..., Comparison]) -> None:
    comparison = against(dataset="digits")
    assert (comparison.lines, len(comparison.missing)) == ((), 1)
    for render in (to_text, to_markdown, to_latex):
        text = render(comparison)
        assert "No cell of mine has a counterpart in the paper." in text
        assert "datm IPC 10" in text
    (named,) = to_json(comparison)["without_counterpart"]
    assert (named["run"], named["dataset"], named["ipc"]) == ("mine", "digits", 10)


def test_an_unreadable_cell_is_shown_with_its_note(against: Callable[..., Comparison]) -> None:
    comparison = against(dataset="cifar100", ipc=1, base_method="mtt", variant="tad", noise_rate=0.2, with_all=True)
    line = only(comparison)
    assert (line.printed.mean, line.printed.reading) == (None, "unreadable")
    assert math.isnan(line.difference)
    text = to_text(comparison)
    assert "unreadable" in text
    assert f"1) reading, unreadable: {line.printed.note}" in text
    assert json.loads(json.dumps(to_json(comparison), allow_nan=False))["lines"][0]["theirs"]["mean"] is None


def test_runs_are_not_pooled(make_frame: MakeFrame, row: MakeRow) -> None:
    frame = make_frame([row(cell="c", trial="t", noise_seed=0, accuracy=0.5, **DATM)])
    comparison = compare([Run(name, frame, lambda _: FULL_SIZE) for name in ("a", "b")], "tad")
    assert [line.run for line in comparison.lines] == ["a", "b"]
    assert to_text(comparison).splitlines()[2].startswith("run  data set")


def test_text_shows_what_is_not_comparable_in_brackets(against: Callable[..., Comparison]) -> None:
    marked = to_text(against(protocol=replace(FULL_SIZE, width=32))).splitlines()
    assert marked[2].split("  ")[0] == "data set"
    assert marked[4].endswith("60.0 ± 5.0  58.2 ± 0.4  1          (+1.8)  –  1")
    assert "1) width: convnet3 of width 32 instead of 128." in marked
    assert "1 line, 0 comparable; 1 of the 365 cells that the paper prints are reached." in marked
    plain = to_text(against()).splitlines()
    assert plain[4].endswith("60.0 ± 5.0  58.2 ± 0.4  1            +1.8  +1.6")
    assert any(line.startswith("z: the difference over our standard error alone") for line in plain)


def test_markdown_and_latex(against: Callable[..., Comparison]) -> None:
    comparison = against("sgr_tiat", dataset="cifar100")
    assert (
        to_markdown(comparison).splitlines()[4].startswith("| cifar100 | symmetric 40 % | datm | 10 | convnet3 | 3 |")
    )
    latex = to_latex(comparison)
    assert latex.count("{") == latex.count("}")
    assert r"60.0 $\pm$ 5.0 & 40.6 $\pm$ 0.4 & 1 & +19.4" in latex
    assert r"std over $\surd$5" in latex


def test_json_holds_both_sides(against: Callable[..., Comparison]) -> None:
    said = json.loads(json.dumps(to_json(against(protocol=replace(FULL_SIZE, width=32))), allow_nan=False))
    (line,) = said["lines"]
    assert (said["paper"], said["printed"], said["reached"]) == ("tad", 365, 1)
    assert (line["base_method"], line["variant"], line["ipc"]) == ("datm", "none", 10)
    assert (line["ours"]["n"], line["theirs"]["mean"], line["theirs"]["tables"]) == (3, 0.582, [1])
    assert (line["comparable"], line["z"], line["z_errors"]) == (False, None, None)
    assert line["reasons"] == [{"kind": "width", "text": "width: convnet3 of width 32 instead of 128"}]


def test_an_unknown_paper_names_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"unknown paper 'sgr': did you mean 'sgr_tiat'\? Known: rdc, sgr_tiat, tad"):
        compare([], "sgr")
    with pytest.raises(RequestError, match="unknown paper 'denoise_wild'"):
        compare([], "denoise_wild")
