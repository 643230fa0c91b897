"""A sweep that follows the scaling law, with crossovers that are measured and ones that are censored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddnl_ray.results import read_rows, write_rows

LAW_RATES = (0.0, 0.2, 0.4, 0.6)
LAW_IPCS = (1, 2, 5, 10, 20, 50)
SUMMARY = {"data": [{"dataset": "digits", "train_images": 1000, "classes": 10}]}


@pytest.fixture
def law_rows(row: Callable[..., dict[str, Any]]) -> Callable[..., list[dict[str, Any]]]:
    """A function from a run's name and the IPC* without noise to rows in which IPC* is that over 1 - rate."""

    def make(run: str, clean: float = 4.0, noise: str = "symmetric") -> list[dict[str, Any]]:
        rows = []
        for draw, shift in enumerate((-0.02, 0.0, 0.02)):
            for rate in LAW_RATES:
                crossing = clean / (1 - rate) * (1 + shift)
                kind = {"noise": noise if rate else "none", "noise_rate": rate, "noise_rate_realised": rate}
                common = {**kind, "run": run, "noise_seed": draw}
                rows.append(row(cell=f"f{rate}-{draw}", trial="f", base_method="full", accuracy=0.5, **common))
                for ipc in LAW_IPCS:
                    name, accuracy = f"d{rate}-{ipc}-{draw}", 0.5 + 0.1 * math.log(ipc / crossing)
                    own = {"cell": name, "trial": name, "base_method": "datm", "ipc": ipc, "accuracy": accuracy}
                    rows.append(row(**own, **common))
        return rows

    return make


@pytest.fixture
def law_run(tmp_path: Path, law_rows: Callable[..., list[dict[str, Any]]]) -> Callable[..., tuple[Path, pd.DataFrame]]:
    """A function that makes a run folder of such rows: its path and its result table."""

    def make(
        name: str, clean: float = 4.0, noise: str = "symmetric", select_on: str = "val_noisy"
    ) -> tuple[Path, pd.DataFrame]:
        run = tmp_path / name
        run.mkdir()
        write_rows(run / "results.parquet", law_rows(name, clean, noise), select_on)
        (run / "summary.json").write_text(json.dumps(SUMMARY))
        return run, read_rows(run / "results.parquet")

    return make
