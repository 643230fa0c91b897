"""Several runs as one result table and in one report.

A cell is a cell of its run: the names of cells and trials are made different, so that replicates which two runs have in
common are seen to be averaged and not taken for retrainings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.facts import Facts
from analysis.names import listed, split_name
from analysis.paper_tables.sources import Scale
from analysis.previews import Preview, previews, with_labels
from analysis.scores import select_on
from ddnl_ray.errors import CorruptFileError

Runs = Sequence[tuple[Path, pd.DataFrame]]
"""Run folders, each with its result table."""


def join(runs: Runs) -> pd.DataFrame:
    """Return the rows of all runs.

    ``attrs["select_on"]`` is the split on which all runs selected; ``test`` if one of them did, since a table of both
    is then biased as well; otherwise it is not recorded.

    Args:
        runs: Each run folder with its result table; a single one is returned as it is.
    """
    if len(runs) == 1:
        return runs[0][1]
    frames = [_named(str(run), frame) for run, frame in runs]
    joined = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    splits = {select_on(frame) for _, frame in runs}
    chosen = "test" if "test" in splits else splits.pop() if len(splits) == 1 else None
    joined.attrs = {} if chosen is None else {"select_on": chosen}
    return joined


def _named(run: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the run before the names of their cells and trials, and without attributes."""
    named = frame.assign(**{name: f"{run}/" + frame[name] for name in ("cell", "trial")})
    named.attrs = {}
    return named


def read_facts(runs: Runs) -> Facts:
    """Return the facts of all runs.

    Raises:
        CorruptFileError: ``summary.json`` or ``noise.json`` of a run does not hold what it should.
    """
    facts = Facts()
    for run, frame in runs:
        try:
            facts |= Facts.of(run, frame)
        except (AttributeError, KeyError, TypeError) as error:
            raise CorruptFileError(
                f"{run}: summary.json or noise.json does not hold what it should ({type(error).__name__}); delete both "
                "and run the same `ddnl sweep` to have them made again"
            ) from error
    return facts


def all_previews(folder: Path, runs: Runs, split: str = "test") -> list[Preview]:
    """Return the previews and labels of all runs, run by run, with paths as a page in ``folder`` links to them."""
    return [
        replace(preview, path=Path(os.path.relpath(run / preview.path, folder)).as_posix())
        for run, frame in runs
        for preview in with_labels(run, previews(run, frame, split))
    ]


def run_notes(runs: Runs) -> list[str]:
    """Return what a reader of several runs together must know, in sentences: scale and selection of each."""
    scales = [Scale.of(run) for run, _ in runs]
    notes = []
    for (run, frame), scale in zip(runs, scales, strict=True):
        size = (scale.words or "the recipes' scale") if scale.is_known else "scale not recorded"
        chosen = select_on(frame)
        notes.append(f"{run}: {size}; selected on {split_name(chosen) if chosen else 'a split that is not recorded'}.")
    if len({tuple(scale.values.items()) for scale in scales}) > 1:
        notes.append(
            "The runs differ in scale. Cells of one setting are averaged over runs all the same: read a row that "
            f"more than one of {listed(run.name for run, _ in runs)} has in its own report."
        )
    return notes


def sweep_files(runs: Sequence[Path]) -> str | None:
    """Return the sweep files of runs, each under its name where there are several; None if no run has one."""
    texts = {run: (run / "sweep.yaml").read_text(errors="replace") for run in runs if (run / "sweep.yaml").is_file()}
    if not texts:
        return None
    return "\n".join(texts.values() if len(runs) == 1 else (f"# {run}\n{text}" for run, text in texts.items()))
