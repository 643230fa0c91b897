"""The papers whose numbers ship here, and what their protocols have that a result table does not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper and its protocol, as far as its text tells."""

    title: str
    """Its title."""
    maps: Mapping[str, str] = field(default_factory=dict)
    """Data set to the map of its asymmetric noise, by our name; a data set that is missing has none that is told."""
    select_on: str = "test"
    """The split on which it chooses what it prints."""
    repeats: int | None = None
    """Networks behind a mean and its std; None: not told."""
    whitened: frozenset[str] = frozenset()
    """Base methods whose images it whitens though the original does not; the others are as the original has them."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """Base method to the width of its networks, where it is not the field's."""
    prints_tables: bool = True
    """Whether it has tables of accuracies; the others show curves, and only their claims are here."""


PAPERS: dict[str, Paper] = {
    "tad": Paper(
        title="Trust-Aware Diversion for Data-Effective Distillation",
        maps={"cifar10": "tad", "cifar100": "superclass"},
    ),
    # Its text names two pairs of CIFAR-10 classes, but its asymmetric results are on CIFAR-100.
    "sgr_tiat": Paper(
        title="Robust Trajectory Distillation: Hybrid Reweighting Meets Teacher-Inspired Targets",
        repeats=5,
    ),
    "rdc": Paper(
        title="Robust Dataset Condensation using Supervised Contrastive Learning",
        repeats=3,
        whitened=frozenset({"idm"}),
        widths={"accdd": 32},
    ),
    "denoise_theory": Paper(title="Dataset Distillers Are Good Label Denoisers", prints_tables=False),
    "denoise_wild": Paper(title="Dataset Distillers Are Good Label Denoisers In the Wild", prints_tables=False),
}

COMPARED = tuple(name for name, paper in PAPERS.items() if paper.prints_tables)
"""The papers that a run can be compared with."""
