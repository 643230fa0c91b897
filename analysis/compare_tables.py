"""A comparison with a paper as text, Markdown, LaTeX and JSON."""

from __future__ import annotations

import math
from typing import Any

from analysis.compare import Comparison, Line
from analysis.layout import WITHIN_MARK, Column, Layout
from analysis.names import NOT_AVAILABLE, counted, percent
from analysis.published import PAPERS, Accuracy
from analysis.scores import Setting


def to_text(comparison: Comparison) -> str:
    """Return the comparison as aligned plain text, for a terminal."""
    return _layout(comparison).text()


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub-flavoured Markdown."""
    return _layout(comparison).markdown()


def to_latex(comparison: Comparison) -> str:
    """Return the comparison as a LaTeX ``table`` environment; it needs the package booktabs."""
    return _layout(comparison).latex()


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as a JSON-able mapping; shares are 0..1, and what is missing is null.

    ``z`` is null in lines that are not comparable, unless all were asked for.
    """
    return {
        "paper": comparison.paper,
        "title": PAPERS[comparison.paper].title,
        "confidence": comparison.confidence,
        "printed": comparison.num_printed,
        "reached": comparison.num_reached,
        "lines": [_line_json(comparison, line) for line in comparison.lines],
        "without_counterpart": [{"run": run, **_setting_json(setting)} for run, setting in comparison.missing],
    }


def _line_json(comparison: Comparison, line: Line) -> dict[str, Any]:
    z, cell, ours = comparison.z(line), line.printed, line.ours
    theirs = {
        "tables": list(line.tables),
        "row": cell.row or None,
        "settings": dict(cell.settings),
        "noise": cell.noise,
        "backbone": cell.backbone,
        "eval_backbone": cell.eval_backbone,
        "mean": cell.mean,
        "std": cell.std,
        "repeats": PAPERS[cell.paper].repeats,
        "reading": cell.reading or None,
        "note": cell.note or None,
    }
    return {
        "run": line.run,
        **_setting_json(line.setting),
        "ours": {
            "n": ours.n,
            "mean": ours.mean,
            "low": _number(ours.low),
            "high": _number(ours.high),
            "within": ours.within,
        },
        "theirs": theirs,
        "difference": _number(line.difference),
        "z": _number(z),
        "z_errors": None if math.isnan(z) else line.errors,
        "comparable": line.is_comparable,
        "reasons": [{"kind": reason.kind, "text": reason.text} for reason in line.reasons],
    }


def _setting_json(setting: Setting) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in Setting.__dataclass_fields__}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _layout(comparison: Comparison) -> Layout:
    lines, notes = comparison.lines, _Notes()
    marks = [notes.marks(line) for line in lines]
    runs = Column("run", [line.run for line in lines])
    columns = [
        *([runs] if len(set(runs.texts)) > 1 else []),
        Column("data set", [line.setting.dataset for line in lines]),
        Column("noise", [line.setting.noise_label for line in lines]),
        Column("method", [_method(line) for line in lines]),
        Column("IPC", [_or_dash(line.setting.ipc) for line in lines], is_number=True),
        Column("network", [line.setting.networks for line in lines]),
        Column("n", [f"{line.ours.n}{WITHIN_MARK * line.ours.within}" for line in lines], is_number=True),
        Column("ours (%)", [_ours(line) for line in lines], is_number=True),
        Column("paper (%)", [_theirs(line.printed) for line in lines], is_number=True),
        Column("table", [", ".join(map(str, line.tables)) for line in lines]),
        Column("difference", [_difference(line) for line in lines], is_number=True),
        Column("z", [_z(comparison.z(line)) for line in lines], is_number=True),
        Column("notes", marks),
    ]
    empty = f"No cell of {_runs(comparison)} has a counterpart in the paper."
    return Layout(_caption(comparison), columns, [*notes.texts, *_footnotes(comparison)], empty)


def _caption(comparison: Comparison) -> str:
    return (
        f"Accuracy on the test set in % beside {comparison.paper} ({PAPERS[comparison.paper].title}): ours at the "
        f"last iteration, mean ± half of the {100 * comparison.confidence:g} % interval over n replicates (noise draw "
        "and seed); the paper's mean ± std as printed. A difference in brackets is one between numbers that are not "
        "comparable, for the reasons in the notes."
    )


class _Notes:
    """Numbered notes; lines that have the same one share its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, line: Line) -> str:
        """Return the numbers of a line's notes."""
        said = [reason.text for reason in line.reasons]
        if line.printed.note:
            said.append(f"reading, {line.printed.reading or 'repaired'}: {line.printed.note}")
        return " ".join(str(self._numbers.setdefault(text, len(self._numbers) + 1)) for text in said)

    @property
    def texts(self) -> list[str]:
        """The notes in the order of their numbers."""
        return [f"{number}) {text if text.endswith('.') else f'{text}.'}" for text, number in self._numbers.items()]


def _footnotes(comparison: Comparison) -> list[str]:
    """Return what the whole table needs to be read rightly."""
    lines, paper = comparison.lines, PAPERS[comparison.paper]
    shown = {line.errors for line in lines if not math.isnan(comparison.z(line))}
    notes = []
    if any(line.ours.within for line in lines):
        notes.append(f"{WITHIN_MARK} One replicate only: n counts retrainings on the same distilled set.")
    if "both" in shown:
        notes.append(
            f"z: the difference over both standard errors; the paper's, its std over √{paper.repeats}, is of "
            f"{paper.repeats} networks."
        )
    if "ours" in shown:
        notes.append(
            "z: the difference over our standard error alone where the paper's is unknown, and then farther from 0 "
            "than it should be."
        )
    if lines and not shown:
        notes.append("No line has a z-score: none is comparable with a known error. `--all` shows those of all lines.")
    alike = sum(line.is_comparable for line in lines)
    notes.append(
        f"{counted(len(lines), 'line')}, {alike} comparable; {comparison.num_reached} of the "
        f"{comparison.num_printed} cells that the paper prints are reached."
    )
    if comparison.missing:
        named = "; ".join(dict.fromkeys(_name(setting) for _, setting in comparison.missing))
        notes.append(f"Without a counterpart in the paper, {len(comparison.missing)} of our settings: {named}.")
    return notes


def _runs(comparison: Comparison) -> str:
    names = dict.fromkeys(run for run, _ in comparison.missing)
    return ", ".join(names) or "these runs"


def _name(setting: Setting) -> str:
    ipc = "" if setting.ipc is None else f" IPC {setting.ipc}"
    return f"{setting.dataset} {setting.noise_label} {setting.method}{ipc} {setting.networks}".strip()


def _method(line: Line) -> str:
    """Return the method, with the settings of its row in an ablation."""
    settings = ", ".join(f"{name}={_setting(value)}" for name, value in line.printed.settings)
    return f"{line.setting.method} ({settings})" if settings else line.setting.method


def _setting(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else value


def _ours(line: Line) -> str:
    return _with_spread(line.ours.mean, line.ours.half)


def _theirs(cell: Accuracy) -> str:
    return "unreadable" if cell.mean is None else _with_spread(cell.mean, math.nan if cell.std is None else cell.std)


def _with_spread(mean: float, spread: float) -> str:
    return percent(mean) if math.isnan(spread) else f"{percent(mean)} ± {percent(spread)}"


def _difference(line: Line) -> str:
    text = percent(line.difference, signed=True)
    return text if line.is_comparable or math.isnan(line.difference) else f"({text})"


def _z(value: float) -> str:
    return NOT_AVAILABLE if math.isnan(value) else f"{value:+.1f}".replace("-", "−")


def _or_dash(ipc: int | None) -> str:
    return NOT_AVAILABLE if ipc is None else str(ipc)
