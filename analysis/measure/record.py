"""``information.json`` of a run folder: what the nine estimators found, and what that depends on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.theory.estimate import Estimate
from ddnl_ray.errors import CorruptFileError
from ddnl_ray.files import digest, read_json, write_json

FORMAT_VERSION = 1
FILE = "information.json"
QUANTITIES = {
    "i_min": ("few_shot", "pac_bayes", "information_bottleneck"),
    "i_clean": ("contrastive", "teacher", "gradient"),
    "redundancy": ("clusters", "effective_rank", "influence"),
}
"""The nine estimators by what they estimate."""


@dataclass(frozen=True)
class Value:
    """What one estimator found.

    Attributes:
        quantity: A key of :data:`QUANTITIES`.
        estimator: One of its estimators.
        method: The distillation method whose networks it is of; None: the reference network alone.
        estimate: With its interval, units and inputs; None where it is undefined.
        reason: Why it is undefined, in a sentence; empty where it is not.
    """

    quantity: str
    estimator: str
    method: str | None
    estimate: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class Measurement:
    """The outcome of measuring a run.

    Attributes:
        made_from: All that determines it: data, network, training, samples, seed, distilled sets.
        data: ``dataset``, ``train_images`` and ``classes``.
        reference: What the reference network became: its accuracy, and on how many samples all was measured.
        values: In the order of :data:`QUANTITIES`, method by method.
    """

    made_from: Mapping[str, Any]
    data: Mapping[str, Any]
    reference: Mapping[str, Any]
    values: tuple[Value, ...]

    @property
    def key(self) -> str:
        """16 hexadecimal digits that identify what it was made from."""
        return key_of(self.made_from)

    def value(self, quantity: str, estimator: str, method: str | None = None) -> Value | None:
        """Return what an estimator found for a method, or without any; None where it was not asked."""
        own = (each for each in self.values if (each.quantity, each.estimator) == (quantity, estimator))
        return next((each for each in own if each.method in (method, None)), None)


def key_of(made_from: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that identify what determines a measurement."""
    return digest({"format_version": FORMAT_VERSION, "made_from": dict(made_from)})


def write_information(run: Path, found: Measurement) -> Path:
    """Write a measurement into a run folder, atomically.

    Args:
        run: The run folder.
        found: What was measured; numbers that are not finite are refused.
    """
    path = run / FILE
    write_json(path, {"format_version": FORMAT_VERSION, "key": found.key, **_plain(found)})
    return path


def read_information(run: Path) -> Measurement | None:
    """Read the measurement of a run folder; None where there is none.

    Raises:
        CorruptFileError: The file is not one of ours, or does not fit its own key.
    """
    path = run / FILE
    if not path.is_file():
        return None
    said = read_json(path)
    again = "run `ddnl analyze --measure` again"
    if not isinstance(said, dict) or said.get("format_version") != FORMAT_VERSION:
        raise CorruptFileError(f"{path} is not of format {FORMAT_VERSION}; delete it and {again}")
    try:
        values = tuple(
            Value(**{**each, "estimate": None if each["estimate"] is None else Estimate(**each["estimate"])})
            for each in said["values"]
        )
        found = Measurement(said["made_from"], said["data"], said["reference"], values)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path} is damaged ({error!r}); delete it and {again}") from error
    if found.key != said.get("key"):
        raise CorruptFileError(
            f"{path} was changed: its key is not that of what it was made from; delete it and {again}"
        )
    return found


def _plain(found: Measurement) -> dict[str, Any]:
    said = dataclasses.asdict(found)
    for each in said["values"]:
        estimate = each["estimate"]
        if estimate is not None and not all(math.isfinite(estimate[name]) for name in ("value", "low", "high")):
            raise ValueError(f"{each['quantity']} by {each['estimator']} is not finite and cannot be written")
    return said
