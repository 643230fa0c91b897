"""What five papers print: their accuracies cell by cell, and what they claim in prose.

``accuracies.csv`` has one row per printed accuracy:

- ``paper`` (a name of :data:`PAPERS`), ``table`` (its number) and ``row`` (in an ablation, the name that the paper
  gives the configuration: A to F in TAD's Table 3, 0 to 4 in RDC's Table 5).
- ``dataset``, ``noise``, ``noise_rate``, ``label_set``, ``base_method``, ``variant``, ``ipc``, ``backbone``,
  ``eval_backbone``: the vocabulary of the result table. RDC's "asymmetric" is ``pairflip`` here as there, and the human
  labels of CIFAR-100N are ``fine``, whatever a paper calls them. ``ipc`` is blank for training on all the data,
  ``eval_backbone`` where it is the backbone. A variant ``*_partial`` is an incomplete configuration of an ablation.
- ``settings``: what such a configuration changes, in the names and values of a sweep file, joined by ``;``.
- ``accuracy_mean`` and ``accuracy_std``: in per cent as printed; the accessors give shares (0..1).
- ``reading`` and ``note``: blank, or how well the text at hand could be read, and why: ``repaired`` (known from a
  second copy or the rest of the row), ``doubtful`` (a best guess) or ``unreadable`` (no mean).

``claims.csv`` has one row per statement: ``claim`` (its identifier), ``paper``, ``dataset`` and ``noise`` (several are
joined by ``;``), ``where`` (the conditions), ``expected`` (the direction, as a formula), ``statement``, ``test`` (how a
sweep decides it) and ``remark`` (what is known against it). Sentences are ours.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from analysis.names import BASES, LABEL_SETS, NOISES
from analysis.published.papers import COMPARED, PAPERS, Paper
from ddnl_ray.errors import CorruptFileError

DATASETS = ("cifar10", "cifar10n", "cifar100", "cifar100n", "tinyimagenet")
VARIANTS = (
    *("none", "tad", "sgr", "tiat", "sgr_tiat", "rdc", "tad_partial", "rdc_partial"),
    *("two_stage_dividemix", "c2d", "l2b_dividemix"),
)
NETWORKS = ("convnet3", "convnet4", "resnet18", "vgg11")
READINGS = ("", "repaired", "doubtful", "unreadable")

Value = float | str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One printed accuracy.

    Attributes:
        paper: A name of :data:`PAPERS`.
        table: Number of the table.
        row: Name of the configuration in an ablation; "" elsewhere.
        dataset: For human labels with the n (``cifar10n``).
        noise: A kind of noise.
        noise_rate: As printed, 0 to 1.
        label_set: Of human labels; None for other noise.
        base_method: The method without additions.
        variant: What is added to it.
        settings: Name and value of what an incomplete configuration sets.
        ipc: Images per class; None for training on all the data.
        backbone: The network of distillation.
        eval_backbone: The network that is trained on the set.
        mean: Accuracy, 0 to 1; None where it cannot be read.
        std: Standard deviation, 0 to 1; None where none is printed or it cannot be read.
        reading: How well it could be read (see above).
        note: Why, in one or two sentences.
    """

    paper: str
    table: int
    row: str
    dataset: str
    noise: str
    noise_rate: float
    label_set: str | None
    base_method: str
    variant: str
    settings: tuple[tuple[str, Value], ...]
    ipc: int | None
    backbone: str
    eval_backbone: str
    mean: float | None
    std: float | None
    reading: str
    note: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a paper.

    Attributes:
        claim: Its identifier, for example ``"W4"``.
        paper: A name of :data:`PAPERS`.
        datasets: Where it is made.
        noises: Under which noise.
        where: The conditions.
        expected: The direction, as a formula.
        statement: What is claimed.
        test: How a sweep decides it.
        remark: What is known against it; "" if nothing is.
    """

    claim: str
    paper: str
    datasets: tuple[str, ...]
    noises: tuple[str, ...]
    where: str
    expected: str
    statement: str
    test: str
    remark: str


@cache
def accuracies(paper: str | None = None) -> tuple[Accuracy, ...]:
    """Return the printed accuracies of a paper, or of all, in the order of print.

    Raises:
        CorruptFileError: The shipped file does not hold what it should.
    """
    if paper is not None:
        return tuple(cell for cell in accuracies() if cell.paper == paper)
    return tuple(parse_accuracy(row, line) for line, row in _rows("accuracies.csv"))


@cache
def claims(paper: str | None = None) -> tuple[Claim, ...]:
    """Return the claims of a paper, or of all.

    Raises:
        CorruptFileError: The shipped file does not hold what it should.
    """
    if paper is not None:
        return tuple(claim for claim in claims() if claim.paper == paper)
    return tuple(parse_claim(row, line) for line, row in _rows("claims.csv"))


def parse_accuracy(row: dict[str, str], line: int) -> Accuracy:
    """Return one row of ``accuracies.csv``.

    Raises:
        CorruptFileError: A column is missing, a word is not of the vocabulary, or a number is out of its range; the
            message names line, column and value.
    """
    check = _Checker("accuracies.csv", line, row)
    noise = check.word("noise", NOISES)
    reading = check.word("reading", READINGS)
    backbone = check.word("backbone", NETWORKS)
    cell = Accuracy(
        paper=check.word("paper", PAPERS),
        table=int(check.number("table", 1, 99)),
        row=check.text("row"),
        dataset=check.word("dataset", DATASETS),
        noise=noise,
        noise_rate=check.number("noise_rate", 0, 1),
        label_set=check.word("label_set", LABEL_SETS) if noise == "natural" else None,
        base_method=check.word("base_method", BASES),
        variant=check.word("variant", VARIANTS),
        settings=tuple(_setting(check, item) for item in check.text("settings").split(";") if item),
        ipc=int(check.number("ipc", 1, 5000)) if check.text("ipc") else None,
        backbone=backbone,
        eval_backbone=check.word("eval_backbone", NETWORKS) if check.text("eval_backbone") else backbone,
        mean=check.share("accuracy_mean"),
        std=check.share("accuracy_std"),
        reading=reading,
        note=check.text("note"),
    )
    check.require((cell.mean is None) == (reading == "unreadable"), "accuracy_mean", "a number unless it is unreadable")
    check.require((cell.ipc is None) == (cell.base_method == "full"), "ipc", "blank for full and for nothing else")
    check.require(bool(cell.note) == bool(reading), "note", "a sentence where the reading is named, and only there")
    return cell


def parse_claim(row: dict[str, str], line: int) -> Claim:
    """Return one row of ``claims.csv``.

    Raises:
        CorruptFileError: A column is missing or blank, or a word is not of the vocabulary.
    """
    check = _Checker("claims.csv", line, row)
    for name in ("claim", "where", "expected", "statement", "test"):
        check.require(bool(check.text(name)), name, "a text")
    return Claim(
        claim=check.text("claim"),
        paper=check.word("paper", PAPERS),
        datasets=check.words("dataset", ("any", *DATASETS)),
        noises=check.words("noise", NOISES),
        where=check.text("where"),
        expected=check.text("expected"),
        statement=check.text("statement"),
        test=check.text("test"),
        remark=check.text("remark"),
    )


@dataclass(frozen=True, slots=True)
class _Checker:
    """Reads the columns of one row and refuses what they must not hold."""

    file: str
    line: int
    row: dict[str, str]

    def require(self, holds: bool, column: str, expected: str) -> None:
        if not holds:
            value = self.row.get(column)
            raise CorruptFileError(
                f"{self.file}, line {self.line}: {column} should be {expected}, but is {value!r}; "
                "the file ships with ddnl-ray: install it again"
            )

    def text(self, column: str) -> str:
        self.require(self.row.get(column) is not None, column, "there")
        return self.row[column]

    def word(self, column: str, known: Any) -> str:
        self.require(self.text(column) in known, column, f"one of {', '.join(filter(None, known))}")
        return self.row[column]

    def words(self, column: str, known: Any) -> tuple[str, ...]:
        found = tuple(self.text(column).split(";"))
        self.require(set(found) <= set(known), column, f"some of {', '.join(known)}")
        return found

    def number(self, column: str, low: float, high: float) -> float:
        try:
            value = float(self.text(column))
        except ValueError:
            value = float("nan")
        self.require(low <= value <= high, column, f"a number from {low} to {high}")
        return value

    def share(self, column: str) -> float | None:
        return round(self.number(column, 0, 100) / 100, 6) if self.text(column) else None


def _setting(check: _Checker, item: str) -> tuple[str, Value]:
    name, equals, value = item.partition("=")
    check.require(bool(equals) and "." in name, "settings", "items such as tad.loops=none, joined by ;")
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _rows(name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a shipped file, each with its line."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        yield reader.line_num, row


__all__ = ["COMPARED", "PAPERS", "Accuracy", "Claim", "Paper", "accuracies", "claims", "parse_accuracy", "parse_claim"]
