"""Where distilled sets beat training on all the noisy data, and where they do not, in sentences.

Every sentence is made of paired differences with their interval and n. A difference is claimed only where the
interval excludes zero; otherwise the sentence says that none was found, which is not the same as equality.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd

from analysis.names import CORESETS, EARLY_STOPPED, counted, listed, percent, split_name
from analysis.scores import Setting, full_data_score, scores
from analysis.statistics import Interval, paired


class Verdict(StrEnum):
    """What a paired difference allows one to say."""

    HIGHER = "higher"
    LOWER = "lower"
    NOT_FOUND = "no difference found"
    NO_INTERVAL = "no interval"
    UNMATCHED = "no matched replicate"


RIVALS = {"none": "full-data training (last epoch)", EARLY_STOPPED: "full-data training (early stopped)"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One distilled setting against training on all the data under the same noise.

    Attributes:
        setting: The distilled side.
        rival: Variant of ``full``: ``none`` for its last epoch, ``early_stopped`` for its early-stopped
            score.
        difference: Distilled minus rival, accuracies in 0..1.
    """

    setting: Setting
    rival: str
    difference: Interval

    @property
    def verdict(self) -> Verdict:
        """What the difference allows one to say."""
        if self.difference.n == 0:
            return Verdict.UNMATCHED
        if not self.difference.is_bounded:
            return Verdict.NO_INTERVAL
        if self.difference.low > 0:
            return Verdict.HIGHER
        return Verdict.LOWER if self.difference.high < 0 else Verdict.NOT_FOUND


def comparisons(frame: pd.DataFrame, split: str = "test", confidence: float = 0.95) -> list[Comparison]:
    """Return every distilled setting against both rivals, as far as they were run.

    Coresets of real images are no distilled sets and are left out.
    """
    found = scores(frame, split)
    distilled = [score for score in found if score.setting.base_method not in ("full", *CORESETS)]
    pairs = ((score, rival, full_data_score(found, score.setting, rival)) for score in distilled for rival in RIVALS)
    return [
        Comparison(score.setting, rival, paired(score.sample, full.sample, confidence))
        for score, rival, full in pairs
        if full is not None
    ]


def findings(frame: pd.DataFrame, split: str = "test", confidence: float = 0.95) -> list[str]:
    """Return what the sweep shows about distilled sets against full-data training.

    Returns:
        A summary per rival, then one sentence per noise setting, method and rival, then a word on the number
        of comparisons. One sentence that says why there is nothing to compare if there is nothing.
    """
    found = comparisons(frame, split, confidence)
    if not found:
        return [nothing_to_compare(frame, split)]
    return [*summaries(found), *details(found), *caveats(found, confidence)]


def nothing_to_compare(frame: pd.DataFrame, split: str = "test") -> str:
    """Return the sentence for a sweep in which nothing can be compared with full-data training."""
    bases = {score.setting.base_method for score in scores(frame, split)}
    if not bases:
        return f"No selected trial has a score on {split_name(split)}, so there is nothing to compare."
    if not bases - {"full", *CORESETS}:
        return f"No distilled set has a score on {split_name(split)}, so there is nothing to compare."
    if "full" not in bases:
        return "The sweep has no scored `full` cell, so distilled sets are not compared with full-data training."
    return "No `full` cell has the data, noise and evaluation network of a distilled set: nothing is compared."


def summaries(found: list[Comparison]) -> list[str]:
    """Return one sentence per rival with the number of settings for each verdict."""
    sentences = []
    for rival, name in RIVALS.items():
        verdicts = [comparison.verdict for comparison in found if comparison.rival == rival]
        if not verdicts:
            sentences.append(f"No score of {name} exists to compare with.")
            continue
        counts = {verdict: verdicts.count(verdict) for verdict in Verdict}
        parts = [
            f"{counts[Verdict.HIGHER]} higher",
            f"{counts[Verdict.LOWER]} lower",
            f"{counts[Verdict.NOT_FOUND]} with no difference found",
        ]
        silent = counts[Verdict.NO_INTERVAL] + counts[Verdict.UNMATCHED]
        if silent:
            parts.append(f"{silent} without enough replicates to say")
        settings = counted(len(verdicts), "distilled setting")
        sentences.append(f"Against {name}, of {settings}: {listed(parts)}.")
    return sentences


def details(found: list[Comparison]) -> list[str]:
    """Return one sentence per noise setting, method and rival, the IPCs grouped by verdict."""
    groups: dict[tuple[Setting, str], list[Comparison]] = {}
    for comparison in found:
        groups.setdefault((replace(comparison.setting, ipc=None), comparison.rival), []).append(comparison)
    return [
        f"{setting.dataset}, {setting.noise_label}, {setting.method} on {setting.networks or 'its network'} "
        f"against {RIVALS[rival]}: {_by_verdict(members)}."
        for (setting, rival), members in groups.items()
    ]


def caveats(found: list[Comparison], confidence: float = 0.95) -> list[str]:
    """Return what limits all the sentences together."""
    notes = []
    bounded = [comparison for comparison in found if comparison.difference.is_bounded]
    if len(bounded) > 1:
        chance = (1 - confidence) * len(bounded)
        notes.append(
            "Each interval, in brackets in sentences, covers one paired difference with "
            f"{100 * confidence:g} % confidence: if no difference were real, about {chance:.1f} of these "
            f"{len(bounded)} would exclude zero by chance."
        )
    if any(comparison.difference.within for comparison in found):
        notes.append(
            "Where there is one replicate, the interval covers retraining only: it holds for that noise draw "
            "and that distilled set."
        )
    return notes


def _by_verdict(members: list[Comparison]) -> str:
    clauses = []
    for verdict in Verdict:
        at = [_at_ipc(comparison) for comparison in members if comparison.verdict is verdict]
        if at:
            clauses.append(f"{verdict.value} at {listed(at)}")
    return "; ".join(clauses)


def _at_ipc(comparison: Comparison) -> str:
    difference = comparison.difference
    place = f"IPC {comparison.setting.ipc}"
    if difference.n == 0:
        return place
    mean = percent(difference.mean, signed=True)
    if not difference.is_bounded:
        return f"{place} ({mean} points, n = {difference.n})"
    ends = f"{percent(difference.low, signed=True)} to {percent(difference.high, signed=True)}"
    unit = " retrainings of one replicate" if difference.within else ""
    return f"{place} ({mean} [{ends}] points, n = {difference.n}{unit})"
