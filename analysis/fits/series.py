"""From the result table to accuracies by IPC: one series per data set, noise, method and networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import pandas as pd

from analysis.fits.resample import Array
from analysis.names import counted, listed, split_name
from analysis.scores import Score, Setting, full_data_score, headline_rows, records, scores
from analysis.statistics import Replicate

Item = TypeVar("Item", covariant=True)


class HasSetting(Protocol):
    """What was made of one setting."""

    @property
    def setting(self) -> Setting:
        """The setting."""


Made = TypeVar("Made", bound=HasSetting)


@dataclass(frozen=True)
class Listing(Sequence[Item]):
    """Results in the order of tables, with a sentence where there are none.

    Attributes:
        items: The results.
        reason: Why there are no results; empty if there are.
    """

    items: tuple[Item, ...]
    reason: str = ""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        """Return the result (or results) at a position."""
        return self.items[index]

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the results."""
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Series:
    """The accuracies of one method under one noise setting, by IPC.

    Attributes:
        setting: What was run; its ``ipc`` is None.
        by_ipc: Accuracies by images per class, in ascending order; empty if no cell has a score.
        full: Training on all the data under the same noise; None if it was not run.
        rate: Share of wrong labels in the training data, the mean over noise draws; the nominal rate if it was not
            recorded. Asymmetric noise that leaves classes out has a lower share than its nominal rate.
        reason: What a reader must know: cells without a score, joined runs, averaged cells; empty if nothing.
        runs: Names of the runs that the scores are from.
    """

    setting: Setting
    by_ipc: dict[int, Score]
    full: Score | None
    rate: float | None
    reason: str
    runs: tuple[str, ...] = ()

    @property
    def ipcs(self) -> tuple[int, ...]:
        """The images per class with a score."""
        return tuple(self.by_ipc)

    @property
    def replicates(self) -> list[Replicate]:
        """Every (noise draw, seed) that has a score at some IPC."""
        return list(dict.fromkeys(key for score in self.by_ipc.values() for key in score.sample))

    def table(self, replicates: Sequence[Replicate]) -> Array:
        """Return the accuracies, averaged over evaluation repeats, as [len(replicates), len(ipcs)]; nan if not run."""
        samples = [score.sample for score in self.by_ipc.values()]
        cells = [
            [float(np.mean(sample[key])) if key in sample else math.nan for sample in samples] for key in replicates
        ]
        return np.array(cells, dtype=np.float64).reshape(len(replicates), len(samples))


_SHARED = [field.name for field in fields(Setting) if field.name not in ("ipc", "eval_backbone")]
"""The columns of a series that trials without a score have too."""

Cells = dict[tuple[Any, ...], set[tuple[str, str]]]


def series(frame: pd.DataFrame, split: str = "test", rival: str = "none") -> Listing[Series]:
    """Return every series of a frame.

    Coresets of real images are series too: they are the control of whatever is fitted to distilled sets.

    Args:
        frame: The result table, of one or several runs.
        split: The split that was scored.
        rival: Variant of ``full`` to stand beside each series: ``none`` for its last epoch, or ``early_stopped``.
    """
    if frame.empty:
        return Listing((), "The result table is empty, so there is nothing to fit.")
    found = scores(frame, split)
    by_setting: dict[Setting, dict[int, Score]] = {}
    for score in found:
        if score.setting.base_method != "full" and score.setting.ipc is not None:
            by_setting.setdefault(replace(score.setting, ipc=None), {})[score.setting.ipc] = score
    planned, scored, rates = _cells(frame), _cells(headline_rows(frame, split)), _rates(frame)
    results = [
        Series(
            setting=setting,
            by_ipc=dict(sorted(by_ipc.items())),
            full=full_data_score(found, setting, rival),
            rate=rates.get(_key(setting), setting.noise_rate),
            reason=_reason(planned[_key(setting)], scored[_key(setting)], by_ipc, split),
            runs=_runs(scored[_key(setting)]),
        )
        for setting, by_ipc in by_setting.items()
    ]
    seen = {_key(setting) for setting in by_setting}
    results += [_silent(key, planned[key], rates.get(key), split) for key in planned if key not in seen]
    results.sort(key=lambda item: item.setting.order)
    return Listing(tuple(results), "" if results else "The result table holds no distilled set and no coreset.")


def by_noise(items: Sequence[Made]) -> dict[Setting, list[Made]]:
    """Return items by setting without rate and label set: one group per kind of noise.

    What was run without noise is the rate zero of every kind; it is a group of its own only where there is no other.
    """
    groups: dict[Setting, list[Made]] = {}
    for item in items:
        groups.setdefault(replace(item.setting, noise_rate=None, label_set=None), []).append(item)
    kinds = [key for key in groups if key.noise != "none"]
    for key in kinds:
        groups[key] = [*groups.get(replace(key, noise="none"), []), *groups[key]]
    joined_in = {replace(key, noise="none") for key in kinds}
    return {key: members for key, members in groups.items() if key not in joined_in}


def joined(*sentences: str) -> str:
    """Return the sentences that are not empty, as one text."""
    return " ".join(sentence for sentence in sentences if sentence)


def _key(setting: Setting) -> tuple[Any, ...]:
    return tuple(getattr(setting, name) for name in _SHARED)


def _cells(rows: pd.DataFrame) -> Cells:
    """Return the (run, cell) pairs of every series, without those of full-data training."""
    found: Cells = {}
    distilled = rows[rows["base_method"].ne("full")]
    for row in records(distilled[[*_SHARED, "run", "cell"]].drop_duplicates()):
        found.setdefault(tuple(row[name] for name in _SHARED), set()).add((row["run"], row["cell"]))
    return found


def _reason(planned: set[tuple[str, str]], scored: set[tuple[str, str]], by_ipc: dict[int, Score], split: str) -> str:
    missing = len(planned) - len(scored)
    runs = _runs(scored)
    pooled = [f"IPC {ipc}" for ipc, score in sorted(by_ipc.items()) if score.is_pooled]
    return joined(
        f"{missing} of {counted(len(planned), 'cell')} without a score on {split_name(split)}." if missing else "",
        f"Rows of {len(runs)} runs are joined: {listed(runs)}." if len(runs) > 1 else "",
        f"Cells that differ in something unnamed, such as a hyper-parameter, are averaged at {listed(pooled)}."
        if pooled
        else "",
    )


def _runs(cells: set[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({str(run) for run, _ in cells}))


def _rates(frame: pd.DataFrame) -> dict[tuple[Any, ...], float]:
    """Return the mean realised noise rate of every series, over noise draws."""
    distilled = frame[frame["base_method"].ne("full") & frame["noise_rate_realised"].notna()]
    draws: dict[tuple[Any, ...], list[float]] = {}
    for row in records(distilled[[*_SHARED, "noise_seed", "noise_rate_realised"]].drop_duplicates()):
        draws.setdefault(tuple(row[name] for name in _SHARED), []).append(row["noise_rate_realised"])
    return {key: float(np.mean(values)) for key, values in draws.items()}


def _silent(key: tuple[Any, ...], planned: set[tuple[str, str]], rate: float | None, split: str) -> Series:
    """Return the series of cells none of which has a score."""
    setting = Setting(**dict(zip(_SHARED, key, strict=True)), ipc=None, eval_backbone=None)
    text = f"None of {counted(len(planned), 'cell')} has a score on {split_name(split)}."
    return Series(setting, {}, None, setting.noise_rate if rate is None else rate, text, _runs(planned))
