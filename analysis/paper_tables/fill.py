"""A table of a paper filled from runs: means, paired differences with their p-values, and what is printed.

A cell is of one run: of several that have it, that with the most cells of the table, and of equals the one that is
named first. A difference is taken within one run where one has both sides, and otherwise only between runs of the same
scale. The p-values of a table's differences are adjusted together (Holm): they are the family of the claims that the
table makes, and one that stands in two places is one claim.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.names import rank
from analysis.paper_tables.layouts import Axes, Block, Grid, Head, Line, PaperTable, Spec, merged
from analysis.paper_tables.sources import Found, Networks, Row, Source, find, networks
from analysis.published import Accuracy, accuracies
from analysis.statistics import Interval, holm, nested, paired, paired_p

Key = tuple[int, int, int]
"""Position of a cell: block, row in it, column."""


@dataclass(frozen=True)
class Cell:
    """One cell that the runs have.

    Attributes:
        spec: Its setting.
        base: What is subtracted; None in a cell that is a mean.
        interval: The mean, or the mean difference, with its interval.
        p: P-value of the difference, Holm-adjusted in a filled table; nan without one.
        runs: Where it comes from; both runs of a difference between two.
        others: Runs that have it as well, which do not count.
        is_pooled: It averages cells that differ in something which the table does not say.
    """

    spec: Spec
    base: Spec | None
    interval: Interval
    p: float
    runs: tuple[str, ...]
    others: tuple[str, ...]
    is_pooled: bool


@dataclass(frozen=True)
class Printed:
    """What a paper prints for a cell; for a difference, that of two printed means.

    Attributes:
        mean: Accuracy, 0..1.
        std: Standard deviation, 0..1; None where none is printed.
        is_doubtful: The text at hand could not be read with certainty.
    """

    mean: float
    std: float | None
    is_doubtful: bool


@dataclass(frozen=True)
class Filled:
    """A table with its cells.

    Attributes:
        table: Its layout.
        axes: What it was laid out for.
        grid: Rows and columns, of which some may have no cell.
        cells: What the runs have.
        printed: What the paper prints, for cells and differences that the runs have.
        networks: Data set to the networks of its cells.
        left_out: Data set to networks that the runs have as well.
        sources: The runs that fill at least one cell.
        split: The split that was scored.
        confidence: Coverage of the intervals.
        num_unlike: Differences that were not taken, since their runs differ in scale.
    """

    table: PaperTable
    axes: Axes
    grid: Grid
    cells: dict[Key, Cell]
    printed: dict[Key, Printed]
    networks: dict[str, Networks]
    left_out: dict[str, tuple[Networks, ...]]
    sources: tuple[Source, ...]
    split: str
    confidence: float
    num_unlike: int

    @property
    def num_means(self) -> int:
        """How many cells are means."""
        return sum(cell.base is None for cell in self.cells.values())

    @property
    def num_claims(self) -> int:
        """How many differences have a p-value; one in two places is one."""
        return len({(cell.spec, cell.base) for cell in self.cells.values() if not math.isnan(cell.p)})


def fill(table: PaperTable, sources: Sequence[Source], split: str = "test", confidence: float = 0.95) -> Filled:
    """Fill a table.

    Args:
        table: The layout.
        sources: The runs.
        split: The split that the sources were read for.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        RequestError: ``confidence`` lies outside (0, 1).
    """
    rows = _subjects(table, sources)
    axes = _axes(table, rows)
    grid = table.grid(axes)
    chosen, left_out = _networks(table, rows)
    filler = _Filler(sources, {} if table.axes.networks else chosen, confidence)
    filler.fill(grid)
    found = _adjusted(_without_clean_blocks(grid, _without_bare_lines(grid, filler.cells)))
    names = {name for cell in found.values() for name in cell.runs}
    return Filled(
        table=table,
        axes=axes,
        grid=grid,
        cells=found,
        printed=_printed(table, grid, set(found)),
        networks=chosen,
        left_out={} if table.axes.networks else left_out,
        sources=tuple(source for source in sources if source.name in names),
        split=split,
        confidence=confidence,
        num_unlike=filler.num_unlike,
    )


def specs(block: Block, line: Line, head: Head) -> tuple[Spec, Spec | None]:
    """Return the setting of a cell, and what is subtracted from it, None if nothing is; a rate of 0 is no noise."""
    own = merged((block.spec, line.spec, head.spec))
    if own.rate == 0:
        own = replace(own, noise="none", rate=None)
    base = line.base or head.base
    return own, None if base is None else replace(own, settings=None) | base


class _Filler:
    """Collects the cells of a table."""

    def __init__(self, sources: Sequence[Source], chosen: dict[str, Networks], confidence: float) -> None:
        self.sources, self.chosen, self.confidence = sources, chosen, confidence
        self.cells: dict[Key, Cell] = {}
        self.num_unlike = 0

    def fill(self, grid: Grid) -> None:
        """Look every cell of a grid up."""
        means = {spec for spec, base in _all(grid) if base is None}
        count = {id(one): sum(self._find(one, spec) is not None for spec in means) for one in self.sources}
        self.sources = sorted(self.sources, key=lambda one: -count[id(one)])
        for b, block in enumerate(grid.blocks):
            for i, line in enumerate(block.lines):
                for j, head in enumerate(grid.heads):
                    own, base = specs(block, line, head)
                    if base is None:
                        self._mean((b, i, j), own)
                    elif own != base and not own.is_full:
                        self._difference((b, i, j), own, base)

    def _find(self, source: Source, spec: Spec) -> Found | None:
        return find(source, spec, self.chosen.get(spec.dataset or ""))

    def _mean(self, key: Key, spec: Spec) -> None:
        found = [one for one in (self._find(source, spec) for source in self.sources) if one is not None]
        if not found:
            return
        first, *others = found
        self.cells[key] = Cell(
            spec=spec,
            base=None,
            interval=nested(first.sample, self.confidence),
            p=math.nan,
            runs=(first.source.name,),
            others=tuple(other.source.name for other in others),
            is_pooled=first.is_pooled,
        )

    def _difference(self, key: Key, spec: Spec, base: Spec) -> None:
        sides = [(self._find(source, spec), self._find(source, base)) for source in self.sources]
        within = [(left, right) for left, right in sides if left is not None and right is not None]
        if within:
            left, right = within[0]
        else:
            mine = next((left for left, _ in sides if left is not None), None)
            theirs = next((right for _, right in sides if right is not None), None)
            if mine is None or theirs is None:
                return
            if not _alike(mine.source, theirs.source):
                self.num_unlike += 1
                return
            left, right = mine, theirs
        interval = paired(left.sample, right.sample, self.confidence)
        if interval.n == 0:
            return
        self.cells[key] = Cell(
            spec=spec,
            base=base,
            interval=interval,
            p=paired_p(left.sample, right.sample),
            runs=tuple(dict.fromkeys((left.source.name, right.source.name))),
            others=tuple(one.source.name for one, _ in within[1:]),
            is_pooled=left.is_pooled or right.is_pooled,
        )


def _alike(a: Source, b: Source) -> bool:
    """Return whether two runs have the same scale and the same maps, as far as they say."""
    return a.scale.is_known and a.scale == b.scale


def _all(grid: Grid) -> list[tuple[Spec, Spec | None]]:
    """Return the settings of all cells, each once."""
    found = [specs(block, line, head) for block in grid.blocks for line in block.lines for head in grid.heads]
    return list(dict.fromkeys(found))


def _without_bare_lines(grid: Grid, cells: dict[Key, Cell]) -> dict[Key, Cell]:
    """Return the cells without rows of a method that have only the columns of training on all the data."""
    shown = {key[:2] for key, cell in cells.items() if not cell.spec.is_full}
    own = {(b, i) for b, block in enumerate(grid.blocks) for i, line in enumerate(block.lines) if line.spec.is_full}
    return {key: cell for key, cell in cells.items() if key[:2] in shown | own}


def _without_clean_blocks(grid: Grid, cells: dict[Key, Cell]) -> dict[Key, Cell]:
    """Return the cells without blocks of noise that have none but clean ones, where another block has these."""
    noisy = {
        key[0] for key, cell in cells.items() if cell.spec.noise != "none" or grid.blocks[key[0]].spec.noise is None
    }
    first: dict[tuple[Spec, Spec | None], int] = {}
    for key, cell in sorted(cells.items(), key=lambda item: (item[0][0] not in noisy, item[0])):
        first.setdefault((cell.spec, cell.base), key[0])
    return {key: cell for key, cell in cells.items() if key[0] in noisy or first[cell.spec, cell.base] == key[0]}


def _adjusted(cells: dict[Key, Cell]) -> dict[Key, Cell]:
    """Return the cells, their p-values adjusted for the size of the family; a claim in two places counts once."""
    family = {(cell.spec, cell.base): cell.p for cell in cells.values()}
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    return {key: replace(cell, p=adjusted[cell.spec, cell.base]) for key, cell in cells.items()}


def _subjects(table: PaperTable, sources: Sequence[Source]) -> list[Row]:
    """Return the rows that have the data, noise and method of some cell, whatever their IPC and networks."""
    loose = [
        replace(
            spec,
            ipc=None,
            backbone=None,
            eval_backbone=None,
            rate=None if table.all_axes else spec.rate,
        )
        for spec, _ in _all(table.grid(table.axes))
    ]
    found = {id(row): row for spec in dict.fromkeys(loose) for source in sources for row in source.rows_of(spec)}
    return list(found.values())


def _axes(table: PaperTable, rows: Sequence[Row]) -> Axes:
    """Return the paper's axes, each as the runs have it where they have nothing of the paper's."""
    ipcs = sorted({int(row["ipc"]) for row in rows if row["ipc"] is not None})
    own = [network for row in rows for network in networks(row)[:1] if network is not None]
    rates = sorted({float(row["noise_rate"]) for row in rows if row["noise"] != "natural" and row["noise_rate"]})
    usual = table.axes
    if table.all_axes:
        return Axes(tuple(ipcs) or usual.ipcs, usual.networks, tuple(rates) or usual.rates)
    return Axes(
        ipcs=usual.ipcs if set(ipcs) & set(usual.ipcs) or not ipcs else tuple(ipcs),
        networks=usual.networks if set(own) & set(usual.networks) or not own else tuple(dict.fromkeys(own)),
        rates=usual.rates,
    )


def _networks(table: PaperTable, rows: Sequence[Row]) -> tuple[dict[str, Networks], dict[str, tuple[Networks, ...]]]:
    """Return the networks of every data set: the paper's, or else those of most rows; and the others."""
    counts: dict[str, Counter[Networks]] = {}
    for row in rows:
        counts.setdefault(row["dataset"], Counter())[networks(row)] += 1
    chosen, left_out = {}, {}
    for dataset, counter in counts.items():
        usual = table.network(dataset)
        whole = {own: count for own, count in counter.items() if own[0] is not None} or counter
        order = sorted(whole, key=lambda own: (own[1] != usual, own[0] != usual, -whole[own], rank(own[0], ())))
        chosen[dataset] = order[0]
        left_out[dataset] = tuple(order[1:])
    return chosen, left_out


def _printed(table: PaperTable, grid: Grid, keys: set[Key]) -> dict[Key, Printed]:
    """Return what the paper prints for the cells that the runs have."""
    if table.number is None:
        return {}
    known = [cell for cell in accuracies(table.paper) if cell.table == table.number and cell.mean is not None]
    found = {}
    for b, i, j in keys:
        block = grid.blocks[b]
        own, base = specs(block, block.lines[i], grid.heads[j])
        cell = next((one for one in known if is_printed(one, own)), None)
        other = None if base is None else next((one for one in known if is_printed(one, base)), None)
        if cell is None or cell.mean is None:
            continue
        if base is None:
            found[b, i, j] = Printed(cell.mean, cell.std, cell.reading == "doubtful")
        elif other is not None and other.mean is not None:
            found[b, i, j] = Printed(cell.mean - other.mean, None, "doubtful" in (cell.reading, other.reading))
    return found


def is_printed(cell: Accuracy, spec: Spec) -> bool:
    """Return whether a printed accuracy is of a setting."""
    said = (
        (spec.dataset, cell.dataset),
        (spec.noise, cell.noise),
        (spec.rate, cell.noise_rate),
        (spec.label_set, cell.label_set),
        (spec.base, cell.base_method),
        (spec.variant, cell.variant.removesuffix("_partial")),
        (None if spec.is_full else spec.ipc, cell.ipc),
        (None if spec.is_full else spec.backbone, cell.backbone),
        (spec.eval_backbone, cell.eval_backbone),
    )
    if not all(wanted is None or wanted == value for wanted, value in said):
        return False
    return not cell.settings or not spec.settings or dict(cell.settings) == dict(spec.settings)
