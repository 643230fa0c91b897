"""A filled table as a layout (text, Markdown, LaTeX, HTML, CSV) and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import mode
from typing import Any

from analysis.layout import POOLED_MARK, WITHIN_MARK, Column, Layout
from analysis.names import NOT_AVAILABLE, counted, listed, percent, split_name
from analysis.paper_tables.fill import Cell, Filled, Key, Printed
from analysis.paper_tables.layouts import DATASETS, Head
from analysis.paper_tables.sources import Networks
from analysis.published import PAPERS
from analysis.statistics import Interval
from analysis.tables import selection_sentence

DOUBTFUL_MARK = "?"
OURS, PAPER = "ours", "paper"


def layout(filled: Filled) -> Layout:
    """Return a filled table as texts; rows and columns without a cell of the runs are left out."""
    if not filled.cells:
        return Layout(caption(filled), [Column(filled.table.stub, [])], empty=empty(filled))
    heads = _heads(filled)
    lines = list(_lines(filled, heads))
    has_paper = any(line[1] == PAPER for line in lines)
    columns = [
        Column(filled.table.stub, [line[0] for line in lines], is_heading=True),
        *([Column("of", [line[1] for line in lines], is_heading=True)] if has_paper else []),
        *(
            Column(head.label, [line[2][place] for line in lines], is_number=True, groups=head.groups)
            for place, (_, head) in enumerate(heads)
        ),
    ]
    return Layout(caption(filled), columns, footnotes(filled, lines), empty(filled), _blocks(filled, heads))


def caption(filled: Filled) -> str:
    """Return what the table shows and what its numbers are, in sentences."""
    if not filled.cells:
        return f"{name(filled)}: {filled.table.title}"
    spread = f"mean ± half of the {100 * filled.confidence:g} % interval over {_usual_words(filled)}"
    parts = [
        f"{name(filled)}: {filled.table.title}",
        f"Accuracy on {split_name(filled.split)} in %: {spread}.",
    ]
    if filled.num_claims:
        parts.append(
            "Differences are paired over shared replicates, in points; p: two-sided paired t test, adjusted (Holm) "
            f"for the {counted(filled.num_claims, 'difference')} of this table."
        )
    elif any(cell.base is not None for cell in filled.cells.values()):
        parts.append("Differences are in points; there are too few replicates for a test.")
    if filled.printed:
        has_std = any(printed.std is not None for printed in filled.printed.values())
        what = "mean ± standard deviation as printed" if has_std else "means as printed, without a spread"
        parts.append(f"The paper: {what}; its differences are those of its means.")
    return " ".join([*parts, *_selection(filled)])


def footnotes(filled: Filled, lines: list[_Line]) -> list[str]:
    """Return what a reader must know beside the caption, one sentence each."""
    return [*_legend(filled, lines), *_scales(filled), *_choices(filled)]


def empty(filled: Filled) -> str:
    """Return what to say instead of a table without cells: which sweep gives them."""
    files = listed(f"`sweeps/{file}`" for file in filled.table.sweeps)
    return f"The runs have no cell of this table; {files} {'gives' if len(filled.table.sweeps) == 1 else 'give'} it."


def name(filled: Filled) -> str:
    """Return the table in words, for example ``"TAD, table 1"``."""
    kind = filled.table.name.replace("_", " ")
    for word in ("table", "figure"):
        kind = kind.replace(word, f"{word} ") if kind[-1].isdigit() else kind
    return f"{PAPER_NAMES[filled.table.paper]}, {kind}"


PAPER_NAMES = {"tad": "TAD", "sgr_tiat": "SGR and TIAT", "rdc": "RDC", "denoise": "Denoising"}


def to_json(filled: Filled) -> dict[str, Any]:
    """Return the cells as a JSON-able mapping; shares are 0..1, and what is missing is null."""
    return {
        "paper": filled.table.paper,
        "table": filled.table.name,
        "title": filled.table.title,
        "split": filled.split,
        "confidence": filled.confidence,
        "selected_on": {source.name: source.selected_on for source in filled.sources},
        "scale": {source.name: dict(source.scale.values) for source in filled.sources},
        "cells": [_cell_json(filled, key, cell) for key, cell in sorted(filled.cells.items())],
    }


_Line = tuple[str, str, list[str]]
"""Its label, whose it is, and its cells."""


def _heads(filled: Filled) -> list[tuple[int, Head]]:
    used = {j for _, _, j in filled.cells}
    return [(j, head) for j, head in enumerate(filled.grid.heads) if j in used]


def _lines(filled: Filled, heads: list[tuple[int, Head]]) -> Iterator[_Line]:
    """Yield the rows that have a cell, each followed by the paper's."""
    usual = _usual(filled)
    for b, block in enumerate(filled.grid.blocks):
        for i, line in enumerate(block.lines):
            keys = [(b, i, j) for j, _ in heads]
            if any(key in filled.cells for key in keys):
                yield (line.label, OURS, [_cell_text(filled.cells.get(key), usual) for key in keys])
            if any(key in filled.printed for key in keys):
                yield (line.label, PAPER, [_printed_text(filled, key) for key in keys])


def _blocks(filled: Filled, heads: list[tuple[int, Head]]) -> dict[int, str]:
    """Return where blocks begin; a single block needs its title only if it has one."""
    found, row = {}, 0
    for b, block in enumerate(filled.grid.blocks):
        keys = [[(b, i, j) for j, _ in heads] for i in range(len(block.lines))]
        rows = sum(any(key in cells for key in own) for own in keys for cells in (filled.cells, filled.printed))
        if rows and block.title:
            found[row] = block.title
        row += rows
    return found


def _usual(filled: Filled) -> tuple[int, bool]:
    """Return the n of most means, and whether it counts retrainings."""
    means = [cell.interval for cell in filled.cells.values() if cell.base is None]
    return mode((one.n, one.within) for one in means or [cell.interval for cell in filled.cells.values()])


def _usual_words(filled: Filled) -> str:
    n, within = _usual(filled)
    same = all((cell.interval.n, cell.interval.within) == (n, within) for cell in filled.cells.values())
    what = "retrainings of one replicate" if within else "replicates (noise draw and seed)"
    return f"n = {n} {what}{'' if same else ' unless stated'}"


def _cell_text(cell: Cell | None, usual: tuple[int, bool]) -> str:
    if cell is None:
        return NOT_AVAILABLE
    own, is_difference = cell.interval, cell.base is not None
    text = _with_spread(own.mean, own.half if own.is_bounded else math.nan, is_difference)
    text += WITHIN_MARK * own.within + POOLED_MARK * cell.is_pooled
    said = [_p_text(cell.p)] if not math.isnan(cell.p) else []
    if (own.n, own.within) != usual:
        said.append(f"n = {own.n}")
    return f"{text} ({', '.join(said)})" if said else text


def _printed_text(filled: Filled, key: Key) -> str:
    printed = filled.printed.get(key)
    if printed is None:
        return NOT_AVAILABLE
    is_difference = filled.cells[key].base is not None
    spread = math.nan if printed.std is None else printed.std
    return _with_spread(printed.mean, spread, is_difference) + DOUBTFUL_MARK * printed.is_doubtful


def _with_spread(mean: float, spread: float, signed: bool) -> str:
    text = percent(mean, signed=signed)
    return text if math.isnan(spread) else f"{text} ± {percent(spread)}"


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _selection(filled: Filled) -> list[str]:
    """Return on which split results were selected, for each run where they differ."""
    by_split: dict[str | None, list[str]] = {}
    for source in filled.sources:
        by_split.setdefault(source.selected_on, []).append(source.name)
    if len(by_split) == 1:
        return [selection_sentence(next(iter(by_split)))]
    return [f"{listed(names)}: {selection_sentence(split)}" for split, names in by_split.items()]


def _legend(filled: Filled, lines: list[_Line]) -> Iterator[str]:
    """Yield what marks mean, as far as the table has them."""
    cells = filled.cells.values()
    if any(cell.interval.within for cell in cells):
        yield (
            f"{WITHIN_MARK} One replicate only: n counts retrainings on the same distilled set, and the interval does "
            "not cover the noise draw or the distillation."
        )
    if any(cell.is_pooled for cell in cells):
        yield f"{POOLED_MARK} Averages cells that differ in something which the table does not show."
    if any(printed.is_doubtful for printed in filled.printed.values()):
        yield f"{DOUBTFUL_MARK} The paper's number could not be read with certainty."
    if any(text == NOT_AVAILABLE for _, _, texts in lines for text in texts):
        yield f"{NOT_AVAILABLE} The runs have no such cell, or the paper prints no number for it."
    full = [cell for cell in cells if cell.base is None and cell.spec.is_full]
    if full and len({cell.spec.ipc for cell in full}) > 1:
        yield "Training on all the data has no IPC: the same number, at the last epoch, stands under each."


def _scales(filled: Filled) -> Iterator[str]:
    """Yield how the runs differ from the paper in size, networks, IPC and map."""
    by_scale: dict[str, list[str]] = {}
    for source in filled.sources:
        words = (
            source.scale.words or "the recipes'" if source.scale.is_known else "unknown, without a readable sweep.yaml"
        )
        by_scale.setdefault(words, []).append(source.name)
    for words, names in by_scale.items():
        yield f"Scale of {listed(names)}: {words}."
    if len({tuple(source.scale.values.items()) for source in filled.sources}) > 1:
        yield "The runs differ in scale: their cells are not comparable with each other."
    usual = filled.table.axes
    if not filled.table.all_axes and not set(filled.axes.ipcs) & set(usual.ipcs):
        yield f"IPC {listed(map(str, filled.axes.ipcs))} instead of the paper's {listed(map(str, usual.ipcs))}."
    for own, theirs, dataset in _other_networks(filled):
        yield f"{dataset}: {own} instead of the paper's {theirs}."
    yield from _maps(filled)


def _maps(filled: Filled) -> Iterator[str]:
    """Yield which map of asymmetric noise the cells have, as far as their runs say."""
    cells = [cell for cell in filled.cells.values() if cell.spec.noise == "asymmetric"]
    runs = {name for cell in cells for name in cell.runs}
    maps = dict.fromkeys(own for source in filled.sources if source.name in runs for own in source.scale.maps)
    if maps:
        printed = PAPERS[filled.table.paper].maps if filled.table.paper in PAPERS else {}
        datasets = {cell.spec.dataset for cell in cells}
        theirs = dict.fromkeys(name for dataset, name in printed.items() if dataset in datasets)
        yield f"Map of asymmetric noise: {listed(maps)}{f'; the paper: {listed(theirs)}' if theirs else ''}."


def _other_networks(filled: Filled) -> Iterator[tuple[str, str, str]]:
    if filled.table.axes.networks:
        if not set(filled.axes.networks) & set(filled.table.axes.networks):
            yield listed(filled.axes.networks), listed(filled.table.axes.networks), "Distilled with"
        return
    shown = {cell.spec.dataset for cell in filled.cells.values()}
    for dataset, own in filled.networks.items():
        usual = filled.table.network(dataset)
        if dataset in shown and own not in ((usual, usual), (None, usual)):
            yield _network_words(own), usual, DATASETS[dataset]


def _choices(filled: Filled) -> Iterator[str]:
    """Yield what the runs have that is not in the table."""
    for dataset, others in filled.left_out.items():
        if others:
            yield f"Left out, {DATASETS[dataset]} on other networks: {listed(map(_network_words, others))}."
    others_runs = dict.fromkeys(name for cell in filled.cells.values() for name in cell.others)
    if others_runs:
        yield (
            "Where several runs have a cell, that of the run with the most cells of the table stands, and that of "
            f"{listed(others_runs)} does not."
        )
    if filled.num_unlike:
        yield f"{counted(filled.num_unlike, 'difference')} between runs of different or unknown scale: not taken."


def _network_words(own: Networks) -> str:
    return own[1] or "?" if own[0] in (None, own[1]) else f"{own[0]} → {own[1]}"


def _cell_json(filled: Filled, key: Key, cell: Cell) -> dict[str, Any]:
    block = filled.grid.blocks[key[0]]
    spec, head = cell.spec, filled.grid.heads[key[2]]
    return {
        "block": block.title,
        "row": block.lines[key[1]].label,
        "column": [*head.groups, head.label],
        "kind": "mean" if cell.base is None else "difference",
        "dataset": spec.dataset,
        "noise": spec.noise,
        "noise_rate": spec.rate,
        "label_set": spec.label_set,
        "base_method": spec.base,
        "variant": spec.variant,
        "settings": dict(spec.settings or ()),
        "minus": None if cell.base is None else {"base_method": cell.base.base, "variant": cell.base.variant},
        "ipc": None if spec.is_full else spec.ipc,
        **_interval_json(cell.interval),
        "p": _number(cell.p),
        "pooled": cell.is_pooled,
        "runs": list(cell.runs),
        "printed": _printed_json(filled.printed.get(key)),
    }


def _interval_json(own: Interval) -> dict[str, Any]:
    return {"n": own.n, "mean": own.mean, "low": _number(own.low), "high": _number(own.high), "within": own.within}


def _printed_json(printed: Printed | None) -> dict[str, Any] | None:
    return None if printed is None else {"mean": printed.mean, "std": printed.std, "doubtful": printed.is_doubtful}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
