"""Synthetic sweeps with a known accuracy curve per noise rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest

MakeFrame = Callable[..., pd.DataFrame]
Curves = Mapping[float, Mapping[int, float]]


@pytest.fixture
def curve_frame(make_frame: MakeFrame, row: Callable[..., dict[str, Any]]) -> Callable[..., pd.DataFrame]:
    """A function from {rate: {IPC: accuracy}} and {rate: full-data accuracy} to a frame.

    ``shifts`` are added to all accuracies of a noise draw, ``offsets`` to the distilled ones alone.
    """

    def make(
        curves: Curves,
        full: Mapping[float, float] | None = None,
        shifts: tuple[float, ...] = (0.0,),
        offsets: tuple[float, ...] | None = None,
        **values: Any,
    ) -> pd.DataFrame:
        rows = []
        for draw, shift in enumerate(shifts):
            offset = shift + (offsets[draw] if offsets else 0.0)
            for rate, points in curves.items():
                common = {"noise": "symmetric", "noise_rate": rate, "noise_seed": draw} | values
                if full is not None and rate in full:
                    rows.append(row(cell=f"f{rate}-{draw}", base_method="full", accuracy=full[rate] + shift, **common))
                rows += [
                    row(cell=f"d{rate}-{ipc}-{draw}", base_method="datm", ipc=ipc, accuracy=value + offset, **common)
                    for ipc, value in points.items()
                ]
        return make_frame(rows)

    return make
