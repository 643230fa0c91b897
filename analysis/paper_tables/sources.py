"""The runs that fill a table: their scored rows, and at which scale they were made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.names import CORESETS, listed
from analysis.paper_tables.layouts import Spec
from analysis.scores import headline_rows, records, select_on
from analysis.statistics import Replicate
from ddnl_ray.results import read_run

Row = Mapping[str, Any]
Networks = tuple[str | None, str | None]
"""The network of distillation, and the one that is trained on the set."""

DEFAULTS: dict[str, float | str] = {
    **{"tad.loops": "both", "tad.consistency_weight": 0.1, "tiat.beta": 0.1, "tiat.subset": 0.6},
    **{"sgr.sampling": "diverse", "rdc.gmc": "paper"},
}
"""What ablations change, with the value of the method as it is."""

_SCALE = {
    "data": ("name", "subset", "test_subset", "val_fraction", "split_seed", "labels", "size", "zca"),
    "model": ("name", "width"),
    "budget": ("experts", "expert_epochs", "iterations", "eval_epochs", "full_epochs"),
}
"""What of a sweep file decides whether two of its numbers may be subtracted."""
_WORDS = {
    "data.subset": "{} training images",
    "data.test_subset": "{} test images",
    "model.width": "width {}",
    "budget.experts": "{} experts",
    "budget.expert_epochs": "{} epochs per expert",
    "budget.iterations": "{} iterations",
    "budget.eval_epochs": "{} epochs of evaluation",
}


@dataclass(frozen=True)
class Scale:
    """What a run changes of the recipes' size, from its ``sweep.yaml``.

    Attributes:
        values: Name in the sweep file to value; what is not given is the recipe's. Empty: not recorded.
        maps: The maps of its asymmetric noise.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    maps: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Path) -> Scale:
        """Read the scale of a run folder; a file that is missing or no sweep file says nothing."""
        try:
            document = yaml.safe_load((run / "sweep.yaml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return cls()
        if not isinstance(document, dict):
            return cls()
        sections = {name: document[name] for name in _SCALE if isinstance(document.get(name), dict)}
        values = {
            f"{section}.{name}": own[name]
            for section, own in sections.items()
            for name in _SCALE[section]
            if own.get(name) is not None
        }
        grid = document.get("grid")
        noise = grid.get("noise") if isinstance(grid, dict) else None
        kinds = [each for each in noise if isinstance(each, dict)] if isinstance(noise, list) else []
        return cls(values, tuple(dict.fromkeys(str(each["map"]) for each in kinds if each.get("map"))))

    @property
    def is_known(self) -> bool:
        """Whether the run says its scale."""
        return bool(self.values)

    @property
    def words(self) -> str:
        """What is smaller or other than the recipe's; "" if nothing is."""
        return listed(text.format(self.values[name]) for name, text in _WORDS.items() if name in self.values)


@dataclass(frozen=True)
class Source:
    """One run.

    Attributes:
        name: What it is called.
        rows: Its scored rows of the split, of the selected trial and iteration of each cell.
        scale: How large it is.
        selected_on: The split on which trials and iterations were selected; None if it is not recorded.
    """

    name: str
    rows: tuple[Row, ...]
    scale: Scale
    selected_on: str | None
    _index: dict[tuple[Any, ...], list[Row]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            self._index.setdefault((row["dataset"], row["base_method"], row["variant"]), []).append(row)

    def rows_of(self, spec: Spec) -> list[Row]:
        """Return the rows of a setting that says its data set, its method and what is added to it."""
        rows = self._index.get((spec.dataset, spec.base, spec.variant), ())
        return [row for row in rows if matches(row, spec)]

    @classmethod
    def of(cls, name: str, frame: pd.DataFrame, split: str, scale: Scale | None = None) -> Source:
        """Take the rows of a result table."""
        rows = tuple(dict(row) | {"params": _params(row)} for row in records(headline_rows(frame, split)))
        return cls(name, rows, scale or Scale(), select_on(frame))

    @classmethod
    def read(cls, run: Path, split: str) -> Source:
        """Read a run folder.

        Raises:
            RequestError: The folder is not a run folder, or no trial of it has finished.
            CorruptFileError: Its result table cannot be read.
        """
        return cls.of(str(run), read_run(run), split, Scale.of(run))


@dataclass(frozen=True)
class Found:
    """The accuracies of one setting in one run.

    Attributes:
        source: The run.
        sample: Accuracy (0..1) of every evaluation repeat, by replicate.
        is_pooled: Some replicate averages cells that differ in something which the table does not say.
    """

    source: Source
    sample: dict[Replicate, list[float]]
    is_pooled: bool


def matches(row: Row, spec: Spec) -> bool:
    """Return whether a row is of a setting, whatever its networks where the setting does not say them."""
    said = (
        (spec.dataset, row["dataset"]),
        (spec.label_set, row["label_set"]),
        (spec.base, row["base_method"]),
        (spec.variant, row["variant"]),
        (spec.eval_backbone, row["eval_backbone"]),
        (None if _is_real(row) else spec.backbone, row["backbone"]),
        (None if spec.is_full else spec.ipc, row["ipc"]),
    )
    return all(wanted is None or wanted == value for wanted, value in said) and _same_noise(row, spec)


def networks(row: Row) -> Networks:
    """Return the networks of a row; real images and the whole set are distilled by none."""
    evaluated = row["eval_backbone"] or row["backbone"]
    return (None if _is_real(row) else row["backbone"] or evaluated, evaluated)


def find(source: Source, spec: Spec, chosen: Networks | None = None) -> Found | None:
    """Return the accuracies of a setting in a run; None if it has none.

    A replicate that has several cells comes from a grid over a parameter: of an ablation's, those with the method's own
    value are taken.

    Args:
        source: The run.
        spec: The setting.
        chosen: The networks; None: whatever the setting says.
    """
    rows = [row for row in source.rows_of(spec) if _is_on(row, chosen)]
    if spec.settings:
        rows = [row for row in rows if all(_value(row, name) == value for name, value in spec.settings)]
    elif _is_pooled(rows):
        rows = [row for row in rows if all(_value(row, name) == value for name, value in DEFAULTS.items())]
    column = "accuracy_best" if spec.best else "accuracy"
    rows = [row for row in rows if row[column] is not None and math.isfinite(row[column])]
    sample: dict[Replicate, list[float]] = {}
    for row in rows:
        sample.setdefault((row["noise_seed"], row["seed"]), []).append(float(row[column]))
    return Found(source, sample, _is_pooled(rows)) if sample else None


def _is_on(row: Row, chosen: Networks | None) -> bool:
    if chosen is None:
        return True
    own = networks(row)
    return own[1] == chosen[1] and own[0] in (None, chosen[0])


def _is_real(row: Row) -> bool:
    return row["base_method"] in ("full", *CORESETS)


def _same_noise(row: Row, spec: Spec) -> bool:
    """Return whether the noise is the same; a rate of 0 of any kind is no noise."""
    if spec.noise is None:
        return True
    is_clean = row["noise"] == "none" or row["noise_rate"] == 0
    if spec.noise == "none":
        return bool(is_clean)
    if is_clean or row["noise"] != spec.noise:
        return False
    return spec.rate is None or (row["noise_rate"] is not None and math.isclose(row["noise_rate"], spec.rate))


def _is_pooled(rows: Iterable[Row]) -> bool:
    cells: dict[Replicate, set[str]] = {}
    for row in rows:
        cells.setdefault((row["noise_seed"], row["seed"]), set()).add(row["cell"])
    return any(len(names) > 1 for names in cells.values())


def _value(row: Row, name: str) -> Any:
    return row["params"].get(name, DEFAULTS.get(name))


def _params(row: Row) -> dict[str, Any]:
    """Return the hyper-parameters of a row; a text that is no JSON object says nothing."""
    try:
        found = json.loads(row["params"] or "{}")
    except (json.JSONDecodeError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
