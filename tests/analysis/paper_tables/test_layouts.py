from __future__ import annotations

from pathlib import Path

import pytest

from analysis.paper_tables import PAPER_TABLES, named, tables_of
from analysis.paper_tables.fill import is_printed, specs
from analysis.paper_tables.layouts import Head, Line, PaperTable
from analysis.published import accuracies
from ddnl_ray.errors import RequestError

TABLES = [table for tables in PAPER_TABLES.values() for table in tables]
SWEEPS = Path(__file__).parents[3] / "sweeps"
METHODS_OF_TAD = ["MTT", "MTT + TAD", "FTD", "FTD + TAD", "DATM", "DATM + TAD", "ATT", "ATT + TAD"]


def values(table: PaperTable, block: int = 0) -> list[str]:
    """The rows that are no differences."""
    return [line.label for line in table.grid(table.axes).blocks[block].lines if line.base is None]


def headings(table: PaperTable) -> list[tuple[str, ...]]:
    return [(*head.groups, head.label) for head in table.grid(table.axes).heads]


def test_rows_stand_in_the_order_of_the_papers() -> None:
    assert values(named("tad", "1")) == [*METHODS_OF_TAD, "Full dataset"]
    titles = [block.title for block in named("tad", "1").grid(named("tad", "1").axes).blocks]
    assert titles == [
        "CIFAR-10, symmetric noise",
        "CIFAR-10, asymmetric noise",
        "CIFAR-100, symmetric noise",
        "CIFAR-100, asymmetric noise",
        "Tiny-ImageNet, symmetric noise",
    ]
    assert [label[0] for label in values(named("tad", "3"))] == list("ABCDEF")
    assert values(named("tad", "4"))[:4] == ["MTT", "MTT + C2D", "MTT + L2B-DivideMix", "MTT + TAD"]
    assert values(named("sgr_tiat", "1")) == ["Full dataset", "RCIG", "DANCE", "DATM", "DATM + SGR + TIAT"]
    assert values(named("rdc", "1")) == ["Random", "IDM", "IDM + two-stage", "IDM + RDC", "Whole dataset"]
    assert [label.partition(" ")[0] for label in values(named("rdc", "5"))] == ["IDM", *["+"] * 4]
    assert values(named("rdc", "6")) == ["ConvNet", "VGG11", "ResNet18"]


def test_columns_stand_in_the_order_of_the_papers() -> None:
    assert headings(named("tad", "1"))[:4] == [
        ("IPC 1", "0 %"),
        ("IPC 1", "20 %"),
        ("IPC 1", "40 %"),
        ("IPC 10", "0 %"),
    ]
    assert headings(named("sgr_tiat", "1"))[:4] == [
        *(("Symmetric", "20 %", f"IPC {ipc}") for ipc in (10, 50, 100)),
        ("Symmetric", "40 %", "IPC 10"),
    ]
    kinds = list(dict.fromkeys(heading[:2] for heading in headings(named("rdc", "1"))))
    assert kinds == [
        ("Clean", "0 %"),
        *(("Asymmetric", rate) for rate in ("20 %", "40 %")),
        *(("Symmetric", rate) for rate in ("20 %", "40 %")),
        ("Real-world", "Ran1 (17 %)"),
        ("Real-world", "Worse (40 %)"),
    ]
    assert [heading[1] for heading in headings(named("rdc", "6"))] == ["IDM", "IDM + RDC", "IDM + RDC − IDM"] * 2


@pytest.mark.parametrize("table", [one for one in TABLES if one.number is not None], ids=lambda one: one.stem)
def test_every_printed_number_has_one_place(table: PaperTable) -> None:
    grid = table.grid(table.axes)
    cells = [
        (specs(block, line, head)[0], block, line, head)
        for block in grid.blocks
        for line in block.lines
        for head in grid.heads
        if line.base is None and head.base is None
    ]
    for printed in accuracies(table.paper):
        if printed.table != table.number:
            continue
        places = {spec for spec, *_ in cells if is_printed(printed, spec)}
        own = {(spec.dataset, spec.base, spec.variant, spec.settings, spec.rate, spec.noise) for spec in places}
        # TAD prints training on all the data without noise only.
        assert len(own) == 1, printed
        if printed.ipc is not None:
            assert len(places) == 1, printed


@pytest.mark.parametrize("table", TABLES, ids=lambda one: one.stem)
def test_the_sweep_files_that_give_a_table_are_there(table: PaperTable) -> None:
    assert table.sweeps
    for file in table.sweeps:
        assert (SWEEPS / file).is_file()


@pytest.mark.parametrize("table", TABLES, ids=lambda one: one.stem)
def test_rows_and_columns_have_names_of_their_own(table: PaperTable) -> None:
    grid = table.grid(table.axes)
    for block in grid.blocks:
        names = [line.label for line in block.lines]
        assert len(set(names)) == len(names)
    assert len(set(headings(table))) == len(headings(table))
    assert all(isinstance(line, Line) for block in grid.blocks for line in block.lines)
    assert all(isinstance(head, Head) for head in grid.heads)


def test_tables_are_found_by_number_and_by_name() -> None:
    assert named("tad", "3") is named("tad", "table3")
    assert named("sgr_tiat", "figure2").stem == "sgr_tiat_figure2"
    assert [table.name for table in tables_of("denoise")] == ["symmetric", "asymmetric", "natural", "label_sets"]
    assert len(tables_of(None)) == len(TABLES)
    for paper, number, words in (("tat", "1", "did you mean 'tad'"), ("tad", "5", "table4"), ("tad", "x", "Known")):
        with pytest.raises(RequestError, match=words):
            named(paper, number)
