"""What an audit of labels found: estimates, confusions, suspects, and the sentences that go with them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.fits.series import joined
from analysis.names import counted, percent
from analysis.noise_rate import estimators
from analysis.noise_rate.estimators import DRAWS, RateEstimate
from analysis.noise_rate.gap import Gap
from analysis.theory.estimate import Resampling
from ddnl_ray.lnl.confident import Confusion, Floats, Integers, Suspect, confident_joint, confusions, suspects

NAMES = {
    "confident": ("confident learning", "class thresholds on held-out probabilities, calibrated joint"),
    "lossmix": ("loss mixture", "share of the high-loss component; hard images count as wrong"),
    "knn": ("neighbours, corrected", "exact for symmetric confusion; too low where confusions gather on few classes"),
    "knn_vote": ("neighbours, vote", "labels outvoted by their neighbours; wrong votes mostly raise it"),
    "pac_bayes_published": ("Corollary IV, published", "1 - alpha m / n and above, by the gap"),
    "pac_bayes_derived": ("Corollary IV, derived", "what the proof gives: an upper bound alone"),
}
"""Each estimator in words, and what to keep in mind."""

NO_ALPHA = (
    "Corollary IV is not given: it needs alpha, the clean content of one distilled image, and the images per class at "
    "which a distilled set is worth all the labels. Neither follows from the labels alone, and with alpha = 1 the "
    "interval says the same of every data set. Where ddnl analyze has calibrated alpha on noise of known rate, pass "
    "--alpha and --ipc, or name its run with --calibrated-on."
)
VACUOUS = "An interval that is all of 0 to 100 % is vacuous and no result."
HALF = (
    "The published interval reaches 100 %: what is left of it is its lower end, which does not follow from the proof."
)
CLEAN_BELOW = 0.03
"""Median estimate up to which labels are taken as clean enough to go on with."""
WEAK_BELOW = 0.2
"""Skill of the networks, 0 for the most frequent class and 1 for every label, below which nothing is said."""
SURE_FROM = 0.75
HARD = (
    " Networks predict {} % of the labels that they have not seen. What they miss because images are hard and few "
    "counts as wrong too: take the estimates for upper limits, unless longer training and more images leave them alone."
)
"""What is said below a share of :data:`SURE_FROM`: a wrong label and a hard image look the same to a weak network."""
SHOWN = 10
NO_NOISE = "[{kind: none}]"
"""Of a sweep file: take the labels as they are."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels under audit.

    Attributes:
        data: The data set, as its owner names it.
        settings: Keys of a sweep file that give these labels, with their values.
        suggested: Where the labels with those of the suspects replaced are written.
        classes: Class names.
        observed: Observed labels [N].
        rows: Row of each in the training set, int64 [N].
        files: File of each image [N]; None where the source has none.
        clean: True labels [N], or None where nobody knows them.
    """

    data: str
    settings: Mapping[str, str]
    suggested: str
    classes: tuple[str, ...]
    observed: Integers
    rows: Integers
    files: Sequence[str] | None = None
    clean: Integers | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What networks found that had not seen the labels.

    Attributes:
        probabilities: Held-out class probabilities [N, C].
        neighbours: Rows of the neighbours of each sample, among the N [N, k].
        source: How both were made, in a sentence.
        gap: The PAC-Bayes gap of one of the networks; None: not computed.
        calibration: Where the alpha of Corollary IV is from, in sentences; empty: nowhere, or the command line.
    """

    probabilities: Floats
    neighbours: Integers
    source: str
    gap: Gap | None = None
    calibration: str = ""


@dataclass(frozen=True)
class Findings:
    """The outcome of an audit.

    Attributes:
        labels: What was audited.
        evidence: By what.
        estimates: The noise rate, by each estimator.
        confusions: Pairs of classes, the most frequent first.
        suspects: Labels that are likely wrong, the likeliest first; their rows are among the N.
    """

    labels: Labels
    evidence: Evidence
    estimates: tuple[RateEstimate, ...]
    confusions: tuple[Confusion, ...]
    suspects: tuple[Suspect, ...]

    @property
    def measured(self) -> list[RateEstimate]:
        """The estimates that the labels themselves gave."""
        return [estimate for estimate in self.estimates if not estimate.estimator.startswith("pac_bayes")]

    @property
    def true_rate(self) -> float | None:
        """The share of wrong labels, where the truth is known."""
        labels = self.labels
        return None if labels.clean is None else float(np.mean(labels.observed != labels.clean))

    @property
    def agreement(self) -> float:
        """The share of observed labels that are the most probable class by networks that had not seen them."""
        return float(np.mean(self.evidence.probabilities.argmax(axis=1) == self.labels.observed))

    @property
    def is_weak(self) -> bool:
        """Whether the networks predict the labels little better than the most frequent class does."""
        guess = float(np.bincount(self.labels.observed).max()) / len(self.labels.observed)
        return self.agreement - guess < WEAK_BELOW * (1 - guess)

    @property
    def is_concentrated(self) -> bool:
        """Whether the confusions gather on few pairs of classes, as with asymmetric noise.

        That is where the C most frequent pairs hold more than half-way between 1 / (C - 1), their share where all pairs
        are alike, and 1, that where each class is taken for one other. Two classes have no such difference.
        """
        counts = [pair.count for pair in self.confusions]
        classes = len(self.labels.classes)
        return sum(counts[:classes]) > (1 + 1 / (classes - 1)) / 2 * sum(counts)


def find(
    labels: Labels,
    evidence: Evidence,
    given: Sequence[RateEstimate],
    rng: np.random.Generator,
    resampling: Resampling = DRAWS,
) -> Findings:
    """Return what the evidence says of the labels.

    Args:
        labels: The labels.
        evidence: What networks found.
        given: Estimates that come from elsewhere (Corollary IV), to be listed with the others.
        rng: Source of the resamples.
        resampling: How many, and the coverage of the intervals.
    """
    observed, probabilities, neighbours = labels.observed, evidence.probabilities, evidence.neighbours
    num_classes = len(labels.classes)
    joint = confident_joint(observed, probabilities)
    return Findings(
        labels,
        evidence,
        (
            estimators.confident(observed, probabilities, rng, resampling),
            estimators.lossmix(observed, probabilities, rng, resampling),
            estimators.knn(observed, neighbours, num_classes, rng, resampling),
            estimators.knn_vote(observed, neighbours, num_classes, rng, resampling),
            *given,
        ),
        tuple(confusions(joint, len(observed))),
        tuple(suspects(observed, probabilities, joint)),
    )


def headline(found: Findings) -> str:
    """Return the outcome in a sentence or two."""
    if found.is_weak:
        return (
            f"No estimate can be trusted: networks predict only {percent(found.agreement)} % of the "
            f"{len(found.labels.observed)} labels that they have not seen. Either they are too weak, or most labels "
            "are wrong, and nothing here tells these apart."
        )
    rates = [estimate.rate for estimate in found.measured]
    low, high = percent(min(rates)), percent(max(rates))
    between = f"{low} %" if low == high else f"{low} % to {high} %"
    agree = max(e.low for e in found.measured) <= min(e.high for e in found.measured)
    return (
        f"An estimated {between} of the {len(found.labels.observed)} labels are wrong, by {len(rates)} estimators"
        + (", whose intervals overlap." if agree else "; they disagree: not all of their intervals overlap.")
        + (HARD.format(percent(found.agreement)) if found.agreement < SURE_FROM else "")
    )


def advice(found: Findings) -> list[tuple[str, str]]:
    """Return what to do next: sentences, each with a command line."""
    if found.is_weak:
        command = f"ddnl noise-rate {shlex.quote(found.labels.settings['data.name'])} --epochs 100 --features simclr"
        return [("Audit again, with longer training or more images, before anything else.", command)]
    middle = float(np.median([estimate.rate for estimate in found.measured]))
    settings = dict(found.labels.settings)
    if middle <= CLEAN_BELOW:
        lead, methods = (
            "The labels look clean: distil them as they are, beside training on all of them.",
            "[full, datm]",
        )
    elif found.is_concentrated:
        lead = (
            "The wrong labels gather on few pairs of classes, which distillation may learn like true ones: rather "
            "clean first (below). As they are, compare a method that weighs labels with one that does not."
        )
        methods = "[full, datm, datm+tad]"
    else:
        lead = (
            "The wrong labels spread over the classes, which distillation tends to average out: distil, beside "
            "training on all of them."
        )
        methods = "[full, datm, datm+tad]"
    steps = [(lead, _sweep("given-labels", settings, methods))]
    if found.suspects:
        suggested = settings | {"data.labels": found.labels.suggested, "grid.noise": NO_NOISE}
        steps.append(
            (
                "Or clean: look at the suspects, correct labels-suggested.csv where the suggestion (the guess of a "
                "network) is wrong, and run the same on it.",
                _sweep("suggested-labels", suggested, methods),
            )
        )
    return steps


def to_json(found: Findings) -> dict[str, Any]:
    """Return what ``ddnl noise-rate --json`` prints."""
    labels = found.labels
    return {
        "n": len(labels.observed),
        "classes": list(labels.classes),
        "estimates": [dataclasses.asdict(item) | {"vacuous": item.vacuous} for item in found.estimates],
        "confusions": [dataclasses.asdict(pair) for pair in found.confusions],
        "suspects": [
            {
                "index": int(labels.rows[suspect.row]),
                "given": suspect.given,
                "suggested": suspect.suggested,
                "score": suspect.score,
                "file": None if labels.files is None else labels.files[suspect.row],
            }
            for suspect in found.suspects
        ],
    }


def to_text(found: Findings) -> str:
    """Return what ``ddnl noise-rate`` prints."""
    names, num = found.labels.classes, len(found.suspects)
    lines = [headline(found), ""]
    for item in found.estimates:
        ends = f"{percent(item.low)} to {percent(item.high)}"
        if item.vacuous:
            lines.append(f"  {NAMES[item.estimator][0]:24}{'none':>6}    {ends:>14}  vacuous")
            continue
        error = "" if found.true_rate is None else f"  error {percent(item.rate - found.true_rate, signed=True):>6}"
        lines.append(f"  {NAMES[item.estimator][0]:24}{percent(item.rate):>6} %  {ends:>14}{error}")
    if found.true_rate is not None:
        lines.append(f"  {'true rate':24}{percent(found.true_rate):>6} %")
    lines += ["", corollary_words(found), ""]
    for pair in found.confusions[:SHOWN]:
        share = f"{percent(pair.share)} % of the labels {names[pair.given]!r}"
        lines.append(f"  {names[pair.given]} -> {names[pair.likely]}: {pair.count} ({share})")
    if len(found.confusions) > SHOWN:
        lines.append(f"  and {counted(len(found.confusions) - SHOWN, 'pair')} more")
    lines += ["", f"{counted(num, 'suspect')}{_precision(found)}", ""]
    for sentence, command in advice(found):
        lines += [sentence, f"  {command}"]
    return "\n".join(lines)


def corollary_words(found: Findings) -> str:
    """Return what must be said of Corollary IV: where alpha and the gap are from, or what is missing."""
    evidence = found.evidence
    given = len(found.estimates) > len(found.measured)
    gap = evidence.gap.sentence if evidence.gap is not None else ""
    half = any(item.estimator == "pac_bayes_published" and 0 < item.low and item.high >= 1 for item in found.estimates)
    return joined(evidence.calibration, VACUOUS if given else NO_ALPHA, HALF if half else "", gap)


def suggested_labels(found: Findings, observed: Integers) -> Integers:
    """Return all labels of the training set with those of the suspects replaced.

    Args:
        found: The outcome of an audit.
        observed: Labels of the whole training set, of which a part was audited; suspects behind its end are left out.
    """
    labels = np.array(observed)
    for suspect in found.suspects:
        row = found.labels.rows[suspect.row]
        if row < len(labels):
            labels[row] = suspect.suggested
    return labels


def precision(found: Findings) -> float | None:
    """Return the share of suspects whose label is wrong; None where the truth is unknown or nothing is suspect."""
    clean = found.labels.clean
    if clean is None or not found.suspects:
        return None
    return float(np.mean([clean[suspect.row] != suspect.given for suspect in found.suspects]))


def _precision(found: Findings) -> str:
    share = precision(found)
    return "" if share is None else f", {percent(share)} % of them truly wrong"


def _sweep(name: str, settings: Mapping[str, str], methods: str) -> str:
    """Return the command line of a sweep."""
    keys = {"grid.noise": NO_NOISE, **settings, "grid.method": methods}
    changes = " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in keys.items())
    return f"ddnl sweep sweeps/quickstart.yaml --name {name} {changes}"
