from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.paper_tables import Filled, fill, named
from analysis.paper_tables.sources import Scale, Source
from analysis.statistics import holm, paired, paired_p

Row = dict[str, Any]
MakeSource = Callable[..., Source]
MakeCell = Callable[..., list[Row]]
DATM, TAD = (0.50, 0.52, 0.54), (0.55, 0.58, 0.58)


def at(filled: Filled, label: str, *heading: str) -> Any:
    """The only cell of a row and a column, or None."""
    found = [
        cell
        for (b, i, j), cell in filled.cells.items()
        if filled.grid.blocks[b].lines[i].label == label
        and (*filled.grid.heads[j].groups, filled.grid.heads[j].label) == heading
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_means_and_paired_differences_are_those_of_the_hand(source: MakeSource, cell: MakeCell) -> None:
    filled = fill(named("tad", "1"), [source([*cell("datm", "none", DATM), *cell("datm", "tad", TAD)])])
    mean = at(filled, "DATM", "IPC 10", "40 %")
    assert (mean.interval.n, mean.interval.mean) == (3, pytest.approx(0.52))
    assert mean.interval.half == pytest.approx(stats.t.ppf(0.975, 2) * 0.02 / math.sqrt(3))
    difference = at(filled, "DATM + TAD − DATM", "IPC 10", "40 %")
    gains = np.subtract(TAD, DATM)  # 5, 6 and 4 points.
    assert difference.interval.mean == pytest.approx(0.05)
    assert difference.interval.half == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3))
    assert difference.p == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    assert len(filled.cells) == 3


def test_p_values_of_a_table_are_one_family(source: MakeSource, cell: MakeCell) -> None:
    rows = [*cell("datm", "none", DATM), *cell("datm", "tad", TAD)]
    rows += [*cell("mtt", "none", DATM), *cell("mtt", "tad", (0.53, 0.52, 0.58))]
    filled = fill(named("tad", "table1"), [source(rows)])
    raw = [stats.ttest_1samp(np.subtract(own, DATM), 0).pvalue for own in (TAD, (0.53, 0.52, 0.58))]
    found = [at(filled, f"{name} + TAD − {name}", "IPC 10", "40 %").p for name in ("DATM", "MTT")]
    assert found == pytest.approx(holm(raw))
    assert filled.num_claims == 2


def test_a_difference_is_over_shared_replicates_only(source: MakeSource, cell: MakeCell) -> None:
    filled = fill(named("tad", "1"), [source([*cell("datm", "none", DATM), *cell("datm", "tad", TAD[:2])])])
    difference = at(filled, "DATM + TAD − DATM", "IPC 10", "40 %")
    assert (difference.interval.n, difference.interval.mean) == (2, pytest.approx(0.055))


def test_one_replicate_gives_a_difference_without_a_claim(source: MakeSource, cell: MakeCell) -> None:
    filled = fill(named("tad", "1"), [source([*cell("datm", "none", DATM[:1]), *cell("datm", "tad", TAD[:1])])])
    difference = at(filled, "DATM + TAD − DATM", "IPC 10", "40 %")
    assert difference.interval.mean == pytest.approx(0.05)
    assert math.isnan(difference.p)
    assert filled.num_claims == 0


def test_printed_numbers_stand_beside_ours(source: MakeSource, cell: MakeCell) -> None:
    filled = fill(named("tad", "1"), [source([*cell("datm", "none", DATM), *cell("datm", "tad", TAD)])])
    printed = sorted(round(own.mean, 4) for own in filled.printed.values())
    assert printed == [0.073, 0.582, 0.655]


def test_the_configurations_of_an_ablation_are_told_apart(source: MakeSource, cell: MakeCell) -> None:
    def configured(weight: float, loops: str, accuracy: float) -> list[Row]:
        params = f'{{"tad.consistency_weight": {weight}, "tad.loops": "{loops}"}}'
        both = (accuracy, accuracy + 0.02)
        return cell("datm", "tad", both, f"{weight}{loops}", params=params, noise="asymmetric", ipc=50)

    rows = cell("datm", "none", (0.5, 0.52), noise="asymmetric", ipc=50)
    for weight, loops, accuracy in ((0.1, "none", 0.51), (0, "outer", 0.53), (0.1, "outer", 0.54), (0.1, "both", 0.6)):
        rows += configured(weight, loops, accuracy)
    filled = fill(named("tad", "3"), [source(rows)])
    labels = ["A: DATM", "B: Reg.", "C: OL.", "D: Reg. + OL.", "E: OL. + IL.", "F: Reg. + OL. + IL."]
    found = [at(filled, label, "IPC 50", "Asym. 40 %") for label in labels]
    means = [None if one is None else round(one.interval.mean, 3) for one in found]
    assert means == [0.51, 0.52, 0.54, 0.55, None, 0.61]
    assert at(filled, "F − A", "IPC 50", "Asym. 40 %").interval.mean == pytest.approx(0.1)
    # Elsewhere the method is the one with both loops and the weight of 0.1, not the mean of its configurations.
    table1 = fill(named("tad", "1"), [source(rows)])
    whole = at(table1, "DATM + TAD", "IPC 50", "40 %")
    assert (whole.interval.mean, whole.is_pooled) == (pytest.approx(0.61), False)


def test_a_grid_over_anything_else_is_averaged_and_marked(source: MakeSource, cell: MakeCell) -> None:
    rows = [*cell("datm", "none", DATM, "a"), *cell("datm", "none", TAD, "b")]
    found = at(fill(named("tad", "1"), [source(rows)]), "DATM", "IPC 10", "40 %")
    assert found.is_pooled
    assert found.interval.mean == pytest.approx(np.mean([DATM, TAD]))


def test_other_ipcs_are_taken_where_the_runs_have_none_of_the_papers(source: MakeSource, cell: MakeCell) -> None:
    rows = cell("datm", "none", DATM, noise="asymmetric")
    filled = fill(named("tad", "3"), [source(rows)])
    assert filled.axes.ipcs == (10,)
    assert at(filled, "A: DATM", "IPC 10", "Asym. 40 %") is not None
    assert not filled.printed
    both = fill(named("tad", "3"), [source(rows + cell("datm", "none", DATM, noise="asymmetric", ipc=50))])
    assert both.axes.ipcs == (50,)


def test_clean_cells_stand_in_both_blocks_and_are_one_claim(source: MakeSource, cell: MakeCell) -> None:
    clean = [*cell("datm", "none", DATM, noise_rate=0.0), *cell("datm", "tad", TAD, noise="none", noise_rate=None)]
    alone = fill(named("tad", "1"), [source(clean)])
    assert {key[0] for key in alone.cells} == {0}
    noisy = cell("datm", "none", DATM, noise="asymmetric")
    filled = fill(named("tad", "1"), [source(clean + noisy)])
    assert {key[0] for key in filled.cells} == {1}
    both = fill(named("tad", "1"), [source(clean + noisy + cell("datm", "none", DATM))])
    assert {key[0] for key in both.cells} == {0, 1}
    assert both.num_claims == 1
    assert {cell.p for cell in both.cells.values() if cell.base} == {
        paired_p({(i, 0): [value] for i, value in enumerate(TAD)}, {(i, 0): [value] for i, value in enumerate(DATM)})
    }


def test_the_papers_network_is_preferred_and_others_are_named(source: MakeSource, cell: MakeCell) -> None:
    rows = cell("datm", "none", DATM) + cell("datm", "none", TAD, "v", eval_backbone="vgg11")
    rows += cell("full", "none", (0.7,), ipc=None)
    filled = fill(named("tad", "1"), [source(rows)])
    assert filled.networks["cifar10"] == ("convnet3", "convnet3")
    assert filled.left_out["cifar10"] == (("convnet3", "vgg11"),)
    assert at(filled, "DATM", "IPC 10", "40 %").interval.mean == pytest.approx(0.52)
    assert at(filled, "Full dataset", "IPC 10", "40 %").interval.mean == pytest.approx(0.7)


def test_networks_that_a_table_compares_are_its_rows_and_columns(source: MakeSource, cell: MakeCell) -> None:
    common: Row = {"noise": "pairflip", "ipc": 50, "backbone": "vgg11"}
    rows = cell("idm", "none", DATM, eval_backbone="resnet18", **common)
    rows += cell("idm", "rdc", TAD, eval_backbone="resnet18", **common)
    filled = fill(named("rdc", "6"), [source(rows)])
    group = "Distilled with VGG11"
    assert at(filled, "ResNet18", group, "IDM").interval.mean == pytest.approx(0.52)
    assert at(filled, "ResNet18", group, "IDM + RDC − IDM").interval.mean == pytest.approx(0.05)
    assert sorted(round(own.mean, 4) for own in filled.printed.values()) == [0.1435, 0.2461, 0.3896]


def test_a_cell_is_of_the_run_with_the_most_cells_and_is_not_pooled(source: MakeSource, cell: MakeCell) -> None:
    small = source(cell("datm", "none", (0.1, 0.2)), "small")
    large = source([*cell("datm", "none", DATM), *cell("datm", "tad", TAD)], "large")
    found = at(fill(named("tad", "1"), [small, large]), "DATM", "IPC 10", "40 %")
    assert (found.runs, found.others) == (("large",), ("small",))
    assert found.interval.mean == pytest.approx(0.52)


@pytest.mark.parametrize(("same", "expected"), [(True, 0.05), (False, None)])
def test_a_difference_between_runs_needs_one_scale(
    source: MakeSource, cell: MakeCell, same: bool, expected: float | None
) -> None:
    one = source(cell("datm", "none", DATM), "one", scale=Scale({"data.subset": 500}))
    two = source(cell("datm", "tad", TAD), "two", scale=Scale({"data.subset": 500 if same else 900}))
    filled = fill(named("tad", "1"), [one, two])
    found = at(filled, "DATM + TAD − DATM", "IPC 10", "40 %")
    assert (None if found is None else round(found.interval.mean, 6)) == expected
    assert filled.num_unlike == (expected is None)
    unknown = fill(named("tad", "1"), [source(cell("datm", "none", DATM), "a"), source(cell("datm", "tad", TAD), "b")])
    assert unknown.num_unlike == 1


def test_distilled_sets_are_subtracted_from_all_the_data(source: MakeSource, cell: MakeCell) -> None:
    rows = [*cell("datm", "none", DATM), *cell("full", "none", (0.4, 0.4, 0.4), ipc=None, accuracy_best=0.6)]
    filled = fill(named("denoise", "symmetric"), [source(rows)])
    assert at(filled, "symmetric 40 %", "Full data", "last epoch").interval.mean == pytest.approx(0.4)
    assert at(filled, "symmetric 40 %", "Full data", "early stopped").interval.mean == pytest.approx(0.6)
    assert at(filled, "symmetric 40 %, minus full", "Images per class", "10").interval.mean == pytest.approx(0.12)
    assert at(filled, "symmetric 40 %, minus full", "Full data", "last epoch") is None


def test_human_labels_are_found_by_their_set_whatever_their_rate(source: MakeSource, cell: MakeCell) -> None:
    natural: Row = {"dataset": "cifar10n", "noise": "natural", "label_set": "worse", "noise_rate": 0.40208}
    rows = [*cell("idm", "none", DATM, **natural), *cell("idm", "rdc", TAD, **natural)]
    filled = fill(named("rdc", "1"), [source(rows)])
    heading = ("Real-world", "Worse (40 %)", "IPC 10")
    assert at(filled, "IDM + RDC − IDM", *heading).interval.mean == pytest.approx(0.05)
    assert at(filled, "IDM + RDC − IDM", "Symmetric", "40 %", "IPC 10") is None


def test_a_p_value_is_that_of_the_interval() -> None:
    a, b = {(i, 0): [value] for i, value in enumerate(TAD)}, {(i, 0): [value] for i, value in enumerate(DATM)}
    p = paired_p(a, b)
    assert paired(a, b, 1 - p * 1.001).low > 0 > paired(a, b, 1 - p * 0.999).low
    assert paired_p(a, a) == 1
    assert paired_p({(0, 0): [0.5], (1, 0): [0.6]}, {(0, 0): [0.25], (1, 0): [0.35]}) < 1e-9
    assert math.isnan(paired_p({(0, 0): [0.5, 0.6]}, {(0, 0): [0.2, 0.3]}))
