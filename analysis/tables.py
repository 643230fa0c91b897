"""The accuracy table: one row per setting with n, mean and interval, and its renderings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

import pandas as pd

from analysis.layout import POOLED_MARK, WITHIN_MARK, Column, Layout
from analysis.names import NOT_AVAILABLE, percent, split_name
from analysis.scores import Setting, scores, select_on
from analysis.statistics import nested


@dataclass(frozen=True, slots=True)
class SettingRow(Setting):
    """One line of the table; the field names are those that ``ddnl table --json`` prints.

    Attributes:
        split: The split that was scored.
        n: Number of values behind the mean (see :class:`analysis.statistics.Interval`).
        mean: Mean accuracy, 0..1.
        low: Lower end of the interval, nan if n is 1.
        high: Upper end of the interval, nan if n is 1.
    """

    split: str
    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class AccuracyTable(Sequence[SettingRow]):
    """A sequence of rows, with what a reader must know to read them.

    Attributes:
        rows: In the order of display.
        split: The split that was scored.
        selected_on: The split on which trials and iterations were selected; None if it is not recorded.
        confidence: Coverage of the intervals.
        within: Positions of rows whose interval covers retraining only (one replicate).
        pooled: Positions of rows that average cells which differ in something that the table does not show.
    """

    rows: tuple[SettingRow, ...]
    split: str
    selected_on: str | None
    confidence: float
    within: frozenset[int]
    pooled: frozenset[int]

    @overload
    def __getitem__(self, index: int) -> SettingRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SettingRow, ...]: ...
    def __getitem__(self, index: int | slice) -> SettingRow | tuple[SettingRow, ...]:
        """Return the row (or rows) at a position."""
        return self.rows[index]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[SettingRow]:
        """Iterate over the rows in the order of display."""
        return iter(self.rows)

    def marks(self, index: int) -> str:
        """Return the footnote marks of the row at ``index``."""
        return WITHIN_MARK * (index in self.within) + POOLED_MARK * (index in self.pooled)

    @property
    def caption(self) -> str:
        """What the numbers are and how they were selected, in one line."""
        what = (
            f"Accuracy on {split_name(self.split)} in %: mean ± half of the {100 * self.confidence:g} % "
            "interval over n replicates (noise draw and seed)."
        )
        return f"{what} {selection_sentence(self.selected_on)}"

    @property
    def footnotes(self) -> list[str]:
        """One sentence per mark that the table uses."""
        notes = []
        if self.within:
            notes.append(
                f"{WITHIN_MARK} One replicate only: n counts retrainings on the same distilled set, and the "
                "interval does not cover the noise draw or the distillation."
            )
        if self.pooled:
            notes.append(
                f"{POOLED_MARK} Averages cells that differ in something which the table does not show, such "
                "as a hyper-parameter of the grid."
            )
        return notes


def selection_sentence(selected_on: str | None) -> str:
    """Return the sentence that says on which split results were selected, a warning for the test set."""
    if selected_on is None:
        return "The split on which results were selected is not recorded."
    if selected_on == "test":
        return "WARNING: selected on the test set, so test accuracies are biased upwards."
    return f"Selected on {split_name(selected_on)}."


def accuracy_table(frame: pd.DataFrame, split: str = "test", confidence: float = 0.95) -> AccuracyTable:
    """Return the accuracy of every setting of a sweep.

    Rows come from the selected trial and iteration of each cell. Training on all the data has two rows per
    noise
    setting: variant ``none`` at its last epoch and variant ``early_stopped`` at the epoch that the selection
        split
    chose.

    Args:
        frame: The result table, of one or several runs.
        split: The split to score.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        A table without rows if no cell has a score on ``split``.

    Raises:
        RequestError: ``confidence`` lies outside (0, 1).
    """
    found = scores(frame, split)
    intervals = [nested(score.sample, confidence) for score in found]
    rows = (
        SettingRow(**asdict(score.setting), split=split, n=it.n, mean=it.mean, low=it.low, high=it.high)
        for score, it in zip(found, intervals, strict=True)
    )
    return AccuracyTable(
        rows=tuple(rows),
        split=split,
        selected_on=select_on(frame),
        confidence=confidence,
        within=frozenset(i for i, it in enumerate(intervals) if it.within),
        pooled=frozenset(i for i, score in enumerate(found) if score.is_pooled),
    )


def to_json(table: AccuracyTable) -> list[dict[str, Any]]:
    """Return the rows as JSON-able mappings; what is missing (IPC of full training, no interval) is null."""
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(row).items()}
        for row in table
    ]


def to_text(table: AccuracyTable) -> str:
    """Return the table as aligned plain text, for a terminal."""
    return _layout(table).text()


def to_markdown(table: AccuracyTable) -> str:
    """Return the table as GitHub-flavoured Markdown, its caption above it."""
    return _layout(table).markdown()


def to_latex(table: AccuracyTable) -> str:
    """Return the table as a LaTeX ``table`` environment; it needs the package booktabs."""
    return _layout(table).latex()


def to_html(table: AccuracyTable) -> str:
    """Return the table as a fragment of HTML with its caption."""
    return _layout(table).html()


def empty_sentence(table: AccuracyTable) -> str:
    """Return what to say instead of a table without rows."""
    return f"No selected trial has a score on {split_name(table.split)}."


def accuracy_text(row: SettingRow) -> str:
    """Return for example ``"63.2 ± 1.3"`` (in %), without the half width where there is no interval."""
    if math.isnan(row.low):
        return percent(row.mean)
    return f"{percent(row.mean)} ± {percent((row.high - row.low) / 2)}"


def _layout(table: AccuracyTable) -> Layout:
    """Return the table as texts; a column that says nothing is left out."""
    networks = Column("network", [row.networks for row in table])
    columns = [
        Column("data set", [row.dataset for row in table]),
        Column("noise", [row.noise_label for row in table]),
        Column("method", [row.method for row in table]),
        Column("IPC", [NOT_AVAILABLE if row.ipc is None else str(row.ipc) for row in table], is_number=True),
        *([networks] if any(networks.texts) else []),
        Column("n", [f"{row.n}{table.marks(i)}" for i, row in enumerate(table)], is_number=True),
        Column("accuracy (%)", [accuracy_text(row) for row in table], is_number=True),
    ]
    return Layout(table.caption, columns, table.footnotes, empty_sentence(table))
