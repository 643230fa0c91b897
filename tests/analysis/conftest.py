"""A synthetic sweep with known means: what the analysis is tested on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ddnl_ray.results import read_rows, write_rows

RATES = (0.0, 0.3, 0.6)
IPCS = (1, 10, 50)
NOISE_SEEDS = (0, 1, 2)
FULL_LAST = {0.0: 0.972, 0.3: 0.742, 0.6: 0.431}
FULL_EARLY = {0.0: 0.974, 0.3: 0.921, 0.6: 0.797}
DISTILLED = {
    "datm": {0.0: (0.71, 0.90, 0.945), 0.3: (0.66, 0.86, 0.88), 0.6: (0.52, 0.70, 0.66)},
    "datm+tad": {0.0: (0.71, 0.90, 0.943), 0.3: (0.69, 0.89, 0.925), 0.6: (0.60, 0.80, 0.83)},
    "random": {0.0: (0.43, 0.81, 0.92), 0.3: (0.34, 0.63, 0.80), 0.6: (0.22, 0.40, 0.55)},
}
TUNED = {"tad.consistency_weight": (0.05, 0.2), "tad.top_k": (50, 100)}

Row = dict[str, Any]


def base_row(**values: Any) -> Row:
    what: Row = {"run": "digits-symmetric", "dataset": "digits", "noise": "symmetric", "variant": "none"}
    how: Row = {
        "backbone": "convnet3",
        "eval_backbone": "convnet3",
        "seed": 0,
        "eval_seed": 0,
        "iteration": 400,
    }
    score: Row = {"split": "test", "is_final": True, "is_selected": True, "outcome": "ok", "loss": 0.4}
    cost: Row = {"params": "{}", "wall_s": 61.5, "peak_memory_bytes": 2**28, "device": "cpu (2 cores)"}
    origin: Row = {"config_hash": "c0ffee", "code_version": "0.1.0+abc123", "format_version": 1}
    finished: Row = {"finished_at": "2026-05-04T10:00:00+00:00"}
    return what | how | score | cost | origin | finished | values


def trial_rows(method: str, rate: float, ipc: int | None, noise_seed: int) -> Iterator[Row]:
    """The rows of every trial of one cell: two for a method with searched parameters, else one."""
    base, _, robust = method.partition("+")
    rng = np.random.default_rng([*method.encode(), round(100 * rate), ipc or 0, noise_seed])
    draw = float(rng.normal(0, 0.008))
    cell = f"{method}-{rate}-{ipc}-{noise_seed}".replace("+", "_")
    mean = FULL_LAST[rate] if ipc is None else DISTILLED[method][rate][IPCS.index(ipc)]
    for trial in range(2 if robust else 1):
        params = {key: values[trial] for key, values in TUNED.items()} | {"datm.lr_img": 100} if robust else {}
        for eval_seed in (0, 1):
            for split in ("test", "val_noisy"):
                accuracy = mean + draw + float(rng.normal(0, 0.004)) - (0.03 if trial == 0 and robust else 0)
                yield base_row(
                    cell=cell,
                    trial=f"{cell}-{trial}",
                    noise="none" if rate == 0 else "symmetric",
                    noise_rate=rate,
                    noise_rate_realised=rate,
                    noise_seed=noise_seed,
                    base_method=base,
                    variant=robust or "none",
                    ipc=ipc,
                    eval_seed=eval_seed,
                    split=split,
                    accuracy=accuracy,
                    accuracy_best=accuracy + (FULL_EARLY[rate] - mean if ipc is None else 0.002),
                    is_selected=trial == 1 or not robust,
                    params=json.dumps(params),
                    wall_s=40.0 + 20 * (ipc or 0),
                    expert_key=None if base in ("full", "random") else f"exp{round(100 * rate)}-{noise_seed}",
                )


def sweep_rows() -> list[Row]:
    """Every row of the sweep; the cell datm, 60 %, IPC 50, noise seed 2 diverged."""
    methods = [("full", None)] + [(method, ipc) for method in DISTILLED for ipc in IPCS]
    rows: list[Row] = []
    for rate in RATES:
        for method, ipc in methods:
            for noise_seed in NOISE_SEEDS:
                cell_rows = list(trial_rows(method, rate, ipc, noise_seed))
                if (method, rate, ipc, noise_seed) == ("datm", 0.6, 50, 2):
                    empty = dict.fromkeys(("split", "accuracy", "accuracy_best", "eval_seed", "loss", "is_selected"))
                    message = "loss 912.4 stayed above 500 for 200 iterations <of 400>"
                    rows.append(cell_rows[0] | empty | {"outcome": "diverged", "message": message})
                else:
                    rows += cell_rows
    return rows


@pytest.fixture
def make_frame(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """A function from rows to the frame that reading their file gives."""

    def make(rows: list[Row], select_on: str = "val_noisy") -> pd.DataFrame:
        write_rows(tmp_path / "rows.parquet", rows, select_on)
        return read_rows(tmp_path / "rows.parquet")

    return make


@pytest.fixture
def row() -> Callable[..., Row]:
    return base_row


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The frame of the whole synthetic sweep."""
    path = tmp_path_factory.mktemp("sweep") / "results.parquet"
    write_rows(path, sweep_rows(), "val_noisy")
    return read_rows(path)


@pytest.fixture
def run_folder(tmp_path: Path, sweep: pd.DataFrame) -> Path:
    """A run folder with the sweep file and previews of the selected distilled sets at IPC 1."""
    run = tmp_path / "digits-symmetric"
    run.mkdir()
    (run / "sweep.yaml").write_text("name: digits-symmetric\ndata: {name: digits}  # <script>alert(1)</script>\n")
    chosen = sweep[sweep["is_selected"].eq(True) & sweep["ipc"].eq(1)]
    for trial in chosen["trial"].unique():
        buffer = io.BytesIO()
        Image.new("L", (80, 8), 128).save(buffer, "PNG")
        (run / "trials" / trial).mkdir(parents=True)
        (run / "trials" / trial / "preview.png").write_bytes(buffer.getvalue())
    return run
