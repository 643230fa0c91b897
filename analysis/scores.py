"""From the result table to samples: the headline rows, and which of them replicate one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from analysis.names import BASES, LABEL_SETS, NOISES, early_stopped, method_name, noise_name, rank
from analysis.statistics import Replicate
from ddnl_ray.results import Outcome


@dataclass(frozen=True, slots=True)
class Setting:
    """What replicates have in common: all columns that describe a cell, except its noise seed and its seed.

    The fields are named as the columns of the result table; ``ipc`` is None for training on all the data.
    """

    dataset: str
    noise: str
    noise_rate: float | None
    label_set: str | None
    base_method: str
    variant: str
    ipc: int | None
    backbone: str | None
    eval_backbone: str | None

    @property
    def method(self) -> str:
        """The method string, for example ``"datm+tad"``."""
        return method_name(self.base_method, self.variant)

    @property
    def noise_label(self) -> str:
        """The noise setting in words, for example ``"symmetric 30 %"``."""
        return noise_name(self.noise, self.noise_rate, self.label_set)

    @property
    def networks(self) -> str:
        """The evaluation network, and the distillation network before an arrow where it is another."""
        backbone, evaluated = (
            self.backbone or self.eval_backbone or "",
            self.eval_backbone or self.backbone or "",
        )
        return evaluated if backbone == evaluated else f"{backbone} → {evaluated}"

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key: data set, noise, networks, then method and IPC."""
        rate = -1.0 if self.noise_rate is None else self.noise_rate
        noise = (rank(self.noise, NOISES), rate, rank(self.label_set, LABEL_SETS))
        method = (rank(self.base_method, BASES), self.variant != "none", self.variant)
        networks = (self.backbone or "", self.eval_backbone or "")
        return (self.dataset, *noise, *networks, *method, -1 if self.ipc is None else self.ipc)


@dataclass(frozen=True, slots=True)
class Score:
    """The accuracies of one setting on one split.

    Attributes:
        setting: What was run.
        sample: Accuracy (0..1) of every evaluation repeat, by replicate.
        is_pooled: Some replicate holds cells that differ in something which :class:`Setting` does not name,
            such as a hyper-parameter of the grid; their accuracies are averaged.
    """

    setting: Setting
    sample: dict[Replicate, list[float]]
    is_pooled: bool = False


def headline_rows(frame: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Return the scored rows of the trial and iteration that were selected in each cell.

    Args:
        frame: The result table.
        split: Only rows of this split; all splits if None.
    """
    keep = frame["is_selected"].eq(True) & frame["outcome"].eq(Outcome.OK.value) & frame["accuracy"].notna()
    if split is not None:
        keep &= frame["split"].eq(split)
    return frame[keep.fillna(False).astype(bool)]


def scores(frame: pd.DataFrame, split: str = "test") -> list[Score]:
    """Return the sample of every setting with a headline score on ``split``, in the order of tables.

    Training on all the data (``full``) gives two settings: its last epoch, and the variant ``early_stopped``
    with the accuracy at the epoch that the selection split chose; on cleaned labels likewise.
    """
    rows = headline_rows(frame, split)
    full = rows[rows["base_method"].eq("full") & rows["accuracy_best"].notna()]
    found = _group(rows, "accuracy") + _group(full.assign(variant=full["variant"].map(early_stopped)), "accuracy_best")
    return sorted(found, key=lambda score: score.setting.order)


def best_scores(frame: pd.DataFrame, split: str = "test") -> list[Score]:
    """Return the accuracy of every setting at the epoch that the selection split chose, in the order of tables.

    Where :func:`scores` has the last epoch of a network's training, this has its best; settings without one are left
    out. Training on all the data is the variant ``none`` here.
    """
    rows = headline_rows(frame, split)
    found = _group(rows[rows["accuracy_best"].notna()], "accuracy_best")
    return sorted(found, key=lambda score: score.setting.order)


def full_data_score(found: Sequence[Score], setting: Setting, variant: str) -> Score | None:
    """Return the score of full-data training under the data, noise and evaluation network of ``setting``.

    The distillation network says nothing about full-data training, so it decides only between several
    candidates.
    """
    rival = replace(setting, base_method="full", variant=variant, ipc=None)
    full = (score for score in found if score.setting.base_method == "full")
    same = [score for score in full if replace(score.setting, backbone=rival.backbone) == rival]
    return min(same, key=lambda score: score.setting != rival, default=None)


def setting_of(row: dict[str, Any]) -> Setting:
    """Return the setting of one row of the result table, given as a mapping from column to value."""
    return Setting(**{field.name: plain(row[field.name]) for field in fields(Setting)})


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as mappings from column to plain value, null as None."""
    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """Return a scalar of a frame as a plain Python value, None for each of the kinds of null."""
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def select_on(frame: pd.DataFrame) -> str | None:
    """Return the split on which trials and iterations were selected; None if the frame does not say."""
    chosen: str | None = frame.attrs.get("select_on")
    return chosen


def _group(rows: pd.DataFrame, column: str) -> list[Score]:
    samples: dict[Setting, dict[Replicate, list[float]]] = {}
    cells: dict[tuple[Setting, Replicate], set[str]] = {}
    for row in records(rows):
        setting, replicate = setting_of(row), (row["noise_seed"], row["seed"])
        samples.setdefault(setting, {}).setdefault(replicate, []).append(float(row[column]))
        cells.setdefault((setting, replicate), set()).add(row["cell"])
    pooled = {setting for (setting, _), names in cells.items() if len(names) > 1}
    return [Score(setting, sample, setting in pooled) for setting, sample in samples.items()]
