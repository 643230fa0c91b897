"""Cells whose trials have given parameters and scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest

from analysis.trials import Cell, cells

Trial = tuple[dict[str, Any], float | None, float | None]
"""Parameters, accuracy on val_noisy and on the test set; None: the trial diverged."""
MakeCells = Callable[[Sequence[Sequence[Trial]]], list[Cell]]


@pytest.fixture
def make_cells(make_frame: Callable[..., pd.DataFrame], row: Callable[..., dict[str, Any]]) -> MakeCells:
    """A function from the trials of some cells, one noise seed each, to these cells."""

    def rows_of(own: Trial, **place: Any) -> list[dict[str, Any]]:
        params, noisy, test = own
        place |= {"base_method": "datm", "variant": "tad", "ipc": 1, "noise_rate": 0.4, "params": json.dumps(params)}
        if noisy is None:
            return [row(**place, outcome="diverged", split=None, accuracy=None, eval_seed=None, is_selected=False)]
        scores = {"val_noisy": noisy, "test": test}
        return [row(**place, split=split, accuracy=score) for split, score in scores.items() if score is not None]

    def make(searched: Sequence[Sequence[Trial]]) -> list[Cell]:
        rows = []
        for seed, trials in enumerate(searched):
            known = [noisy for _, noisy, _ in trials if noisy is not None]
            for number, trial in enumerate(trials):
                place = {"cell": f"c{seed}", "trial": f"c{seed}-{number}", "noise_seed": seed}
                is_best = bool(known) and trial[1] == max(known)
                rows += [each | {"is_selected": is_best} for each in rows_of(trial, **place)]
        return cells(make_frame(rows))

    return make
