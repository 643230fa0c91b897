"""Every table of the papers, filled from runs and written to files, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.paper_tables import denoise, rdc, sgr_tiat, tad
from analysis.paper_tables.fill import Filled, fill
from analysis.paper_tables.layouts import PaperTable
from analysis.paper_tables.render import empty, layout, name
from analysis.paper_tables.sources import Scale, Source
from ddnl_ray.errors import require_known
from ddnl_ray.files import write_atomic
from ddnl_ray.results import SPLITS, read_run

PAPER_TABLES: dict[str, tuple[PaperTable, ...]] = {
    "tad": tad.TABLES,
    "sgr_tiat": sgr_tiat.TABLES,
    "rdc": rdc.TABLES,
    "denoise": denoise.TABLES,
}
"""The papers; ``denoise`` are the two denoising papers, which print figures only."""

SUFFIXES = (".md", ".tex", ".html", ".csv")


@dataclass(frozen=True)
class Written:
    """A table and the files it was written to.

    Attributes:
        name: The table in words.
        title: What it shows.
        stem: The stem of its files.
        paths: Its files; none if the runs have no cell of it.
        reason: Why there are none; "" if there are.
    """

    name: str
    title: str
    stem: str
    paths: tuple[Path, ...]
    reason: str = ""


def named(paper: str, number: str) -> PaperTable:
    """Return a table of a paper.

    Args:
        paper: A key of :data:`PAPER_TABLES`.
        number: The number of a table, or a name such as ``figure2`` or ``symmetric``.

    Raises:
        RequestError: There is no such paper or table.
    """
    tables = {table.name: table for table in PAPER_TABLES[require_known("paper", paper, PAPER_TABLES)]}
    wanted = f"table{number}" if number.isdecimal() else number
    return tables[require_known(f"table of {paper}", wanted, tables)]


def tables_of(paper: str | None) -> list[PaperTable]:
    """Return the tables of a paper, or of all.

    Raises:
        RequestError: There is no such paper.
    """
    if paper is not None:
        return list(PAPER_TABLES[require_known("paper", paper, PAPER_TABLES)])
    return [table for tables in PAPER_TABLES.values() for table in tables]


def read_sources(runs: Sequence[Path], split: str = "test") -> list[Source]:
    """Read run folders; one that is named twice counts once, and two of one name go by their paths.

    Raises:
        RequestError: The split is unknown, a folder is not a run folder, or no trial of it has finished.
        CorruptFileError: A result table cannot be read.
    """
    require_known("split", split, SPLITS)
    return sources_of([(run, read_run(run)) for run in dict.fromkeys(runs)], split)


def sources_of(runs: Sequence[tuple[Path, pd.DataFrame]], split: str = "test") -> list[Source]:
    """Take runs that were read."""
    names = [run.resolve().name for run, _ in runs]
    return [
        Source.of(own if names.count(own) == 1 else str(run), frame, split, Scale.of(run))
        for own, (run, frame) in zip(names, runs, strict=True)
    ]


def write_tables(
    sources: Sequence[Source],
    folder: Path,
    paper: str | None = None,
    split: str = "test",
    confidence: float = 0.95,
) -> list[Written]:
    """Write every table of which the runs have a cell, as Markdown, LaTeX, HTML and CSV.

    Args:
        sources: The runs.
        folder: Where to write; it is made if need be.
        paper: Of this paper only; None: of all.
        split: The split that the sources were read for.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        All tables in the order of the papers, those that were not written with the reason.
    """
    return [_write(fill(table, sources, split, confidence), folder) for table in tables_of(paper)]


def _write(filled: Filled, folder: Path) -> Written:
    table = filled.table
    if not filled.cells:
        return Written(name(filled), table.title, table.stem, (), empty(filled))
    found = layout(filled)
    texts = (found.markdown(), found.latex(), found.html(), found.csv())
    paths = tuple(folder / f"{table.stem}{suffix}" for suffix in SUFFIXES)
    for path, text in zip(paths, texts, strict=True):
        write_atomic(path, text.encode())
    return Written(name(filled), table.title, table.stem, paths)
