"""What the bounds need to know of runs beside their results: sizes and transition matrices, run by run.

Two runs on different subsets of one data set have different bounds, so nothing is kept by the name of the data set
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.measure.record import Measurement, read_information
from ddnl_ray.errors import RequestError
from ddnl_ray.files import read_json

Matrix = list[list[float]]
NoiseKey = tuple[str, float | None, str | None]


@dataclass(frozen=True)
class RunFacts:
    """What one run's files say.

    Attributes:
        samples: Training images by data set.
        classes: Classes by data set.
        transitions: Realised transition matrices [C, C], rows true classes, by kind, rate and label set of the noise.
        information: What the nine estimators found; None: the run was not measured.
    """

    samples: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    transitions: Mapping[NoiseKey, Matrix] = field(default_factory=dict)
    information: Measurement | None = None

    @classmethod
    def read(
        cls,
        data: Sequence[Mapping[str, Any]],
        noise: Sequence[Mapping[str, Any]],
        information: Measurement | None = None,
    ) -> RunFacts:
        """Take the facts from the ``data`` of ``summary.json``, from ``noise.json`` and from what was measured.

        What is missing is left out; the size is that of the measurement where the summary has none.
        """
        if not data and information is not None:
            data = [information.data]
        matrices = {
            (each["kind"], each["rate"], each["labels"]): each["transition_realised"]
            for each in noise
            if each.get("transition_realised") is not None and None not in each["transition_realised"]
        }
        return cls(
            {each["dataset"]: each["train_images"] for each in data},
            {each["dataset"]: each["classes"] for each in data},
            matrices,
            information,
        )


@dataclass(frozen=True)
class Size:
    """The size of what a series was distilled from.

    Attributes:
        samples: Training images n; None where no one number holds.
        classes: Classes C; likewise.
        reason: Why there is none, in a sentence; empty if there is one.
    """

    samples: int | None
    classes: int | None
    reason: str = ""


HUMAN = {"cifar10n": "cifar10", "cifar100n": "cifar100"}
"""What results call a data set under its human labels, as the papers do, and whose images it has."""

NO_SIZE = "The run does not say how many training images and classes there are; run the same sweep command again."


@dataclass(frozen=True)
class Facts:
    """The facts of several runs.

    Attributes:
        runs: By the name of the run in the result table.
    """

    runs: Mapping[str, RunFacts] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Path, frame: pd.DataFrame) -> Facts:
        """Read the facts of a run folder; files that are not there say nothing.

        Args:
            run: The folder.
            frame: Its result table, which says how the run is called there.
        """
        summary, noise = (run / name for name in ("summary.json", "noise.json"))
        data = read_json(summary).get("data", []) if summary.is_file() else []
        own = RunFacts.read(data, read_json(noise) if noise.is_file() else [], read_information(run))
        return cls({str(name): own for name in frame["run"].dropna().unique()})

    def __or__(self, other: Facts) -> Facts:
        """Return the facts of both.

        Raises:
            RequestError: Two runs of one name are of different sizes, so that their rows cannot be told apart.
        """
        for name in self.runs.keys() & other.runs.keys():
            if self.runs[name].samples != other.runs[name].samples:
                raise RequestError(
                    f"two runs are called {name!r} in their result tables, but were made of {self._said(name)} and "
                    f"{other._said(name)} training images; analyze them one by one, or run one under another --name"
                )
        return Facts({**self.runs, **other.runs})

    def size(self, dataset: str, runs: Iterable[str]) -> Size:
        """Return the size of a data set in some runs.

        Args:
            dataset: Its name.
            runs: Names of the runs; none: all that there are.
        """
        known = [self.runs[name] for name in runs or self.runs if name in self.runs]
        name = HUMAN.get(dataset, dataset)
        sizes = {(each.samples.get(name), each.classes.get(name)) for each in known}
        if not sizes or any(None in pair for pair in sizes):
            return Size(None, None, NO_SIZE)
        if len(sizes) > 1:
            numbers = " and ".join(str(n) for n in sorted(n for n, _ in sizes if n is not None))
            reason = (
                f"Runs of {numbers} training images are joined in one series, and no bound holds for both; analyze "
                "them one by one."
            )
            return Size(None, None, reason)
        ((samples, classes),) = sizes
        return Size(samples, classes)

    def transition(self, runs: Iterable[str], noise: str, rate: float | None, labels: str | None) -> Matrix | None:
        """Return the realised transition matrix of a noise in some runs (the first that has one); None: unknown."""
        key = (noise, rate if labels is None else None, labels)  # the rate of human labels is a fact, not a setting
        known = (self.runs[name].transitions.get(key) for name in runs or self.runs if name in self.runs)
        return next((matrix for matrix in known if matrix is not None), None)

    def measured(self, runs: Iterable[str]) -> Measurement | None:
        """Return what was measured of some runs; None where it is nothing, or different things."""
        found = {
            each.key: each for name in runs or self.runs if name in self.runs if (each := self.runs[name].information)
        }
        return next(iter(found.values())) if len(found) == 1 else None

    def _said(self, name: str) -> str:
        return ", ".join(f"{n} ({dataset})" for dataset, n in sorted(self.runs[name].samples.items())) or "unknown"
