"""Which networks of a run the estimators of I_min are of: rows of its result table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.measure.values import MethodEvidence
from analysis.names import method_name, noise_name
from analysis.scores import headline_rows, records
from analysis.theory.chance import first_above_chance
from analysis.theory.estimate import Floats

MOST_SETS = 10
"""Networks that are trained again at the images per class found, at most: so many seeds are enough for an interval."""


@dataclass(frozen=True)
class Trained:
    """A network of the run, trained on a distilled set.

    Attributes:
        trial: Folder of the set below ``trials``.
        network: Name of the evaluation network.
        repeat: Its evaluation seed.
        accuracy: On the test set.
    """

    trial: str
    network: str
    repeat: int
    accuracy: float


@dataclass(frozen=True)
class Chosen:
    """The networks of one method at the least noise that the run has for it.

    Attributes:
        noise: That noise, in words.
        unit: ``distilled sets``: one network of each; ``networks of one set``: all of the only set.
        by_ipc: The networks by images per class.
        ipc: The fewest images per class that beat chance; None: none.
        reason: Why there is none; empty if there is one.
    """

    noise: str
    unit: str
    by_ipc: dict[int, list[Trained]] = field(default_factory=dict)
    ipc: int | None = None
    reason: str = ""

    @property
    def networks(self) -> list[Trained]:
        """The networks at the number found."""
        return [] if self.ipc is None else self.by_ipc[self.ipc]

    @property
    def evidence(self) -> MethodEvidence:
        """What the run alone says, before any network is trained again."""
        accuracies: dict[int, Floats] = {
            ipc: np.array([one.accuracy for one in networks]) for ipc, networks in self.by_ipc.items()
        }
        return MethodEvidence(noise=self.noise, unit=self.unit, accuracies=accuracies, ipc=self.ipc, reason=self.reason)


def chosen_networks(frame: pd.DataFrame, chance: float) -> dict[str, Chosen]:
    """Return the networks of every method that the run scored on the test set with its own backbone.

    Args:
        frame: The result table of one run.
        chance: Accuracy of the best constant prediction on the test set.
    """
    rows = headline_rows(frame, "test")
    rows = rows[rows["ipc"].notna() & rows["eval_backbone"].eq(rows["backbone"])]
    found: dict[str, Chosen] = {}
    for (base, variant), own in rows.groupby(["base_method", "variant"], sort=True):
        found[method_name(str(base), str(variant))] = _choose(_least_noise(own), chance)
    return found


def _least_noise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the noise with the fewest wrong labels; an unknown share counts as its nominal rate."""
    share = rows["noise_rate_realised"].fillna(rows["noise_rate"]).fillna(1.0)
    keys = rows[["noise", "noise_rate", "label_set"]].astype(object).where(lambda values: values.notna(), None)
    names = keys.apply(tuple, axis=1)
    least = share.groupby(names.map(repr)).mean().idxmin()
    return rows[names.map(repr) == least]


def _choose(rows: pd.DataFrame, chance: float) -> Chosen:
    first = records(rows)[0]
    noise = noise_name(first["noise"], first["noise_rate"], first["label_set"])
    sets: dict[int, dict[tuple[int, int], list[Trained]]] = {}
    for row in records(rows.sort_values(["cell", "trial", "eval_seed"])):
        own = sets.setdefault(int(row["ipc"]), {}).setdefault((int(row["noise_seed"]), int(row["seed"])), [])
        own.append(Trained(row["trial"], row["eval_backbone"], int(row["eval_seed"]), float(row["accuracy"])))
    several = all(len(own) > 1 for own in sets.values())
    by_ipc = {ipc: _seeds(list(own.values()), several) for ipc, own in sorted(sets.items())}
    chosen = Chosen(noise, "distilled sets" if several else "networks of one set", by_ipc)
    try:
        threshold = first_above_chance({ipc: [one.accuracy for one in own] for ipc, own in by_ipc.items()}, chance)
    except ValueError as error:
        return Chosen(chosen.noise, chosen.unit, by_ipc, None, str(error))
    return Chosen(chosen.noise, chosen.unit, by_ipc, threshold.ipc)


def _seeds(sets: Sequence[list[Trained]], several: bool) -> list[Trained]:
    """Return the first network of each set, or all networks of the first set."""
    return [own[0] for own in sets[:MOST_SETS]] if several else sets[0][:MOST_SETS]
