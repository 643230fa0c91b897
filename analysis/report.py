"""The report: one HTML file to mail, to print and to read on a phone, without other files or a network."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any

import jinja2
import pandas as pd

from analysis import names
from analysis.figures import DARK, LIGHT, Catalogue, Material, accuracy_figure, catalogue, render
from analysis.figures.catalogue import Draw
from analysis.findings import (
    RIVALS,
    Comparison,
    Verdict,
    caveats,
    comparisons,
    details,
    nothing_to_compare,
    summaries,
)
from analysis.labels import left_out
from analysis.paper_tables import Written, sources_of, write_tables
from analysis.previews import grouped
from analysis.scores import Setting, select_on
from analysis.sections import rates_section, spread_section, tuning_section
from analysis.several import Runs, all_previews, run_notes, sweep_files
from analysis.tables import AccuracyTable, SettingRow, accuracy_table, accuracy_text, empty_sentence
from analysis.trials import Cell, cells, costs, failures
from analysis.tuning import value_text
from ddnl_ray.files import write_atomic

SHORT_FINDINGS = 120
"""Comparisons that are shown at once; more are folded away under their summary."""

PIXELS_PER_INCH = 120
"""Size of the figure on a wide screen; it shrinks to fit."""

CONDITIONS = {"data": "Data set", "noise": "Noise", "networks": "Network"}
"""Columns of the accuracy table that its groups stand for; those with one value only are left out."""

SIGNS = {
    Verdict.HIGHER: "▲",
    Verdict.LOWER: "▼",
    Verdict.NOT_FOUND: "≈",
    Verdict.NO_INTERVAL: "?",
    Verdict.UNMATCHED: "?",
}


@dataclass(frozen=True)
class Differences:
    """The differences to one rival as a grid.

    Attributes:
        rival: The rival in words.
        ipcs: The columns.
        usual_n: The most frequent n of a difference; others are stated beside it.
        groups: By data, noise and networks, then by method, then by IPC.
    """

    rival: str
    ipcs: list[int]
    usual_n: int
    groups: dict[str, dict[str, dict[int | None, Comparison]]]


@dataclass(frozen=True)
class TableGroup:
    """The rows of the accuracy table that share data, noise and networks, with their footnote marks."""

    title: str
    rows: list[tuple[SettingRow, str]]


def write_report(
    run: Path,
    frame: pd.DataFrame,
    split: str = "test",
    confidence: float = 0.95,
    runs: Runs | None = None,
) -> Path:
    """Write ``report.html`` into a folder, and what it links to into its folders ``figures`` and ``tables``.

    Args:
        run: The run folder; previews and ``sweep.yaml`` are read from it where they exist.
        frame: The result table, with any outcome: no score, no baseline and no row at all are said in a
            sentence.
        split: The split that the report is about.
        confidence: Coverage of the intervals, in (0, 1).
        runs: The runs that ``frame`` joins, where it is of several; ``run`` is then any folder.

    Returns:
        The path of the report.
    """
    runs = runs or [(run, frame)]
    figures = catalogue(Material.of(runs), split, confidence)
    for entry in figures.entries:
        entry.save(run / "figures")
    tables = write_tables(sources_of(runs, split), run / "tables", None, split, confidence)
    path = run / "report.html"
    write_atomic(path, render_report(run, frame, split, confidence, figures, runs, tables).encode())
    return path


def render_report(
    run: Path,
    frame: pd.DataFrame,
    split: str = "test",
    confidence: float = 0.95,
    figures: Catalogue | None = None,
    runs: Runs | None = None,
    tables: Sequence[Written] = (),
) -> str:
    """Return the report as HTML; everything that comes from data is escaped.

    Args:
        run: The run folder.
        frame: The result table.
        split: The split that the report is about.
        confidence: Coverage of the intervals, in (0, 1).
        figures: Of this run, split and confidence; made here if None.
        runs: The runs that ``frame`` joins, where it is of several.
        tables: The tables of the papers that were written beside the report.
    """
    runs = runs or [(run, frame)]
    figures = figures or catalogue(Material.of(runs), split, confidence)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": names.percent,
        "duration": names.duration,
        "split_name": names.split_name,
        "accuracy_text": accuracy_text,
        "condition": condition,
        "place": place,
        "value_text": value_text,
    }
    environment.globals |= {"counted": names.counted, "signs": SIGNS}
    found = cells(frame)
    return environment.get_template("report.html.j2").render(
        title=" · ".join(own.name for own, _ in runs),
        split=split,
        confidence=f"{100 * confidence:g} %",
        selected_on=select_on(frame),
        facts=_facts(found),
        findings=_findings(frame, split, confidence),
        figure=_images(partial(accuracy_figure, figures.data)),
        files=[entry for entry in figures.entries if entry.draw is not None],
        theory=_theory(figures),
        rates=rates_section(figures.analysis),
        table=_table(accuracy_table(frame, split, confidence)),
        paper_tables=[table for table in tables if table.paths],
        run_notes=run_notes(runs) if len(runs) > 1 else [],
        spread=spread_section(frame, split),
        images=_pictures(run, runs, split),
        tuning=tuning_section([own for own, _ in runs], frame, found, split),
        failures=failures(found),
        costs=costs(found),
        provenance=_provenance(frame),
        sweep_file=sweep_files([own for own, _ in runs]),
    )


def differences(found: list[Comparison], rival: str) -> Differences:
    """Lay the comparisons with one rival out as a grid."""
    mine = [comparison for comparison in found if comparison.rival == rival]
    ipcs = sorted({comparison.setting.ipc for comparison in mine if comparison.setting.ipc is not None})
    groups: dict[str, dict[str, dict[int | None, Comparison]]] = {}
    for comparison in mine:
        setting = comparison.setting
        methods = groups.setdefault(_conditions(setting), {})
        methods.setdefault(setting.method, {})[setting.ipc] = comparison
    return Differences(RIVALS[rival], ipcs, mode(item.difference.n for item in mine), groups)


def table_groups(table: AccuracyTable) -> list[TableGroup]:
    """Split the accuracy table where data, noise or networks change."""
    groups: dict[str, list[tuple[SettingRow, str]]] = {}
    for i, row in enumerate(table):
        groups.setdefault(_conditions(row), []).append((row, table.marks(i)))
    return [TableGroup(title, rows) for title, rows in groups.items()]


def place(row: SettingRow) -> str:
    """Return the CSS variables that draw the mean and the interval of a row on a scale from 0 to 100 %."""
    low, high = (row.mean, row.mean) if math.isnan(row.low) else (max(0.0, row.low), min(1.0, row.high))
    return f"--mean: {100 * row.mean:.1f}%; --low: {100 * low:.1f}%; --high: {100 * high:.1f}%"


def condition(setting: Setting, key: str) -> str:
    """Return what a row has in one of :data:`CONDITIONS`."""
    return {"data": setting.dataset, "noise": setting.noise_label, "networks": setting.networks}[key]


def _conditions(setting: Setting) -> str:
    parts = (condition(setting, key) for key in CONDITIONS)
    return " · ".join(part for part in parts if part)


def _facts(found: list[Cell]) -> dict[str, Any]:
    failed = failures(found)
    return {
        "num_cells": len(found),
        "num_scored": sum(cell.selected is not None for cell in found),
        "num_trials": sum(len(cell.trials) for cell in found),
        "num_failed": sum(failure.num_trials for failure in failed),
        "wall_s": sum(cost.wall_s for cost in costs(found)),
    }


def _findings(frame: pd.DataFrame, split: str, confidence: float) -> dict[str, Any]:
    found = comparisons(frame, split, confidence)
    return {
        "lead": summaries(found) if found else [nothing_to_compare(frame, split)],
        "grids": [differences(found, rival) for rival in RIVALS if any(item.rival == rival for item in found)],
        "sentences": details(found),
        "caveats": caveats(found, confidence),
        "is_short": len(found) <= SHORT_FINDINGS,
        "is_silent_somewhere": any(item.verdict in (Verdict.NO_INTERVAL, Verdict.UNMATCHED) for item in found),
    }


def _images(draw: Draw) -> dict[str, Any]:
    """Return a figure for wide and narrow, light and dark screens as data URIs, and its width."""
    light = draw(theme=LIGHT)
    figures = {
        "wide light": light,
        "wide dark": draw(theme=DARK),
        "narrow light": draw(theme=LIGHT, columns=1),
        "narrow dark": draw(theme=DARK, columns=1),
    }
    encoded = {kind: base64.b64encode(render(figure, "svg")).decode() for kind, figure in figures.items()}
    uris = {kind: f"data:image/svg+xml;base64,{text}" for kind, text in encoded.items()}
    return {"width": round(PIXELS_PER_INCH * light.get_figwidth()), **uris}


def _theory(figures: Catalogue) -> dict[str, Any]:
    """Return the figure of the bounds and what may be said of the scaling law, or why there is nothing."""
    bounds, law = figures.named("bounds"), figures.named("scaling")
    if bounds.draw is None:
        return {"figure": None, "reason": bounds.reason, "sentences": [], "notes": []}
    return {"figure": _images(bounds.draw), "reason": "", "sentences": law.notes, "notes": bounds.notes}


def _pictures(folder: Path, runs: Runs, split: str) -> dict[str, Any]:
    found = all_previews(folder, runs, split)
    return {
        "groups": grouped(found),
        "has_labels": any(preview.labels for preview in found),
        "left_out": left_out(sum(preview.has_more_labels for preview in found)),
    }


def _table(table: AccuracyTable) -> dict[str, Any]:
    return {
        "groups": table_groups(table),
        "conditions": {
            key: title for key, title in CONDITIONS.items() if len({condition(row, key) for row in table}) > 1
        },
        "caption": table.caption,
        "is_loud": table.selected_on == "test",
        "footnotes": table.footnotes,
        "empty": empty_sentence(table),
    }


def _provenance(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the distinct values of the columns that say where the numbers come from."""
    columns = {
        "run": "run",
        "code version": "code_version",
        "device": "device",
        "finished at": "finished_at",
        "expert keys": "expert_key",
    }
    values = {label: sorted(map(str, frame[column].dropna().unique())) for label, column in columns.items()}
    values["finished at"] = values["finished at"][-1:]
    return values
