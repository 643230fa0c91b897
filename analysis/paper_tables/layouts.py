"""How the tables of the papers are laid out: which setting every cell is, and which rows are differences.

A cell is the setting of its row joined with that of its column (:class:`Spec`). A row or column with a ``base`` holds
differences: its setting minus the same setting with what ``base`` names in place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

Settings = tuple[tuple[str, float | str], ...]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A setting, or a part of one; None is not said."""

    dataset: str | None = None
    """For human labels with the n (``cifar10n``)."""
    noise: str | None = None
    """A kind of noise; ``none`` takes a rate of 0 of any kind as well."""
    rate: float | None = None
    """The noise rate; unsaid for human labels, whose rate is what it is."""
    label_set: str | None = None
    """Of human labels."""
    base: str | None = None
    """The method without additions."""
    variant: str | None = None
    """What is added to it."""
    settings: Settings | None = None
    """The configuration of an ablation, in the names of a sweep file; () or None is the method as it is."""
    ipc: int | None = None
    """Images per class; training on all the data has none."""
    backbone: str | None = None
    """The network of distillation, where the table has several."""
    eval_backbone: str | None = None
    """The network that is trained on the set, where the table has several."""
    best: bool | None = None
    """Whether the accuracy is that at the epoch which the selection split chose, and not that at the last."""

    def __or__(self, other: Spec) -> Spec:
        """Return this setting with all that the other says."""
        return replace(self, **_said(other))

    @property
    def is_full(self) -> bool:
        """Whether it is training on all the data."""
        return self.base == "full"


def _said(spec: Spec) -> dict[str, Any]:
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        label: Its name.
        spec: What its cells have in common.
        base: What is subtracted, where it holds differences.
    """

    label: str
    spec: Spec
    base: Spec | None = None


@dataclass(frozen=True)
class Block:
    """Rows under a title."""

    title: str
    spec: Spec
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Head:
    """A column (see :class:`Line`), under groups of columns, the widest first."""

    groups: tuple[str, ...]
    label: str
    spec: Spec
    base: Spec | None = None


@dataclass(frozen=True)
class Grid:
    """The rows and columns of a table."""

    blocks: tuple[Block, ...]
    heads: tuple[Head, ...]


@dataclass(frozen=True)
class Axes:
    """What a table takes from the runs where they have nothing of the paper's.

    Attributes:
        ipcs: Images per class.
        networks: The networks of distillation, in tables that compare several.
        rates: Noise rates.
    """

    ipcs: tuple[int, ...]
    networks: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of a paper, or the numbers behind one figure."""

    paper: str
    """A key of :data:`analysis.paper_tables.catalogue.PAPER_TABLES`."""
    name: str
    """For example ``table1``; with the paper, the stem of its files."""
    title: str
    """What it shows, in a sentence."""
    axes: Axes
    """The paper's."""
    grid: Callable[[Axes], Grid]
    """Rows and columns for some axes."""
    sweeps: tuple[str, ...]
    """The sweep files that produce it."""
    number: int | None = None
    """Of the table in the paper, by which printed accuracies are found; None: it prints none."""
    network: Callable[[str], str] = lambda dataset: "convnet4" if dataset == "tinyimagenet" else "convnet3"
    """From a data set to the paper's network."""
    stub: str = "Method"
    """What its rows are."""
    all_axes: bool = False
    """Whether it takes every IPC and rate that the runs have, and not the paper's first."""

    @property
    def stem(self) -> str:
        """The stem of its files."""
        return f"{self.paper}_{self.name}"


DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar10n": "CIFAR-10N",
    "cifar100": "CIFAR-100",
    "cifar100n": "CIFAR-100N",
    "tinyimagenet": "Tiny-ImageNet",
}
NAMES = {
    **{"mtt": "MTT", "ftd": "FTD", "datm": "DATM", "att": "ATT", "rcig": "RCIG", "dance": "DANCE", "idm": "IDM"},
    **{"accdd": "Acc-DD", "random": "Random", "tesla": "TESLA", "dm": "DM", "dsa": "DSA", "herding": "Herding"},
}
FULL = Spec(base="full", variant="none")


def method(base: str, variant: str = "none", settings: Settings = ()) -> Spec:
    """Return the setting of a method."""
    return Spec(base=base, variant=variant, settings=settings)


def pair(base: str, name: str, label: str, variant: str, settings: Settings = ()) -> tuple[Line, Line]:
    """Return the row of a method with an addition, and that of its difference to the method without.

    Args:
        base: The method without.
        name: What it is called.
        label: What the addition is called.
        variant: The addition.
        settings: Its configuration.
    """
    own = method(base, variant, settings)
    return Line(label, own), Line(f"{label} − {name}", own, base=method(base))


def percentage(rate: float) -> str:
    """Return a rate as a heading."""
    return f"{100 * rate:g} %"


def condition(noise: str, rate: float) -> Spec:
    """Return the setting of noise with a rate; a rate of 0 is no noise."""
    return Spec(noise=noise, rate=rate) if rate else Spec(noise="none")


def merged(parts: Sequence[Spec]) -> Spec:
    """Return all that some settings say; a later one has the last word."""
    found = Spec()
    for part in parts:
        found |= part
    return found
