"""Runs with known accuracies, as the sources of tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.paper_tables.sources import Scale, Source

Row = dict[str, Any]
MakeSource = Callable[..., Source]
Cell = Callable[..., list[Row]]


@pytest.fixture
def cell(row: Callable[..., Row]) -> Cell:
    """A function that gives one row for each accuracy of a setting, which are of noise seeds 0, 1, 2, ..."""

    def make(base: str, variant: str, accuracies: tuple[float, ...], name: str = "", **values: Any) -> list[Row]:
        what = {"dataset": "cifar10", "noise_rate": 0.4, "base_method": base, "variant": variant, "ipc": 10} | values
        stem = "-".join(map(str, (base, variant, *what.values(), name)))
        return [
            row(cell=f"{stem}-{i}", trial=f"{stem}-{i}-0000", noise_seed=i, accuracy=accuracy, **what)
            for i, accuracy in enumerate(accuracies)
        ]

    return make


@pytest.fixture
def source(make_frame: Callable[..., pd.DataFrame]) -> MakeSource:
    """A function from rows to a run."""

    def make(rows: list[Row], name: str = "one", select_on: str = "val_noisy", scale: Scale | None = None) -> Source:
        return Source.of(name, make_frame(rows, select_on), "test", scale)

    return make
