"""Confident learning: which class an image likely belongs to, by probabilities that networks gave it held out.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021. The threshold of
a class is the mean probability of that class over the samples that carry its label. A sample counts as of class j where
its probability reaches that threshold; the counts by observed and by counted class, calibrated to how often each label
was given, estimate their joint distribution. Its off-diagonal mass is the noise rate.

Differs from the original:
    - a class that no sample reaches keeps its labels: the diagonal count is at least 1;
    - the calibrated joint is not rounded to whole samples, for a rate needs none; counts of pairs are rounded one
      by one;
    - a sample is suspect by the rule ``prune_by_noise_rate`` of the authors' library (per pair of classes, as many
      samples as the joint has there, those with the largest margin), and only if the most probable class is not its
      label; that class is suggested, and the margin of its probability over that of the label is the score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Confusion:
    """Two classes that are mistaken for each other.

    Attributes:
        given: The class that the labels say.
        likely: The class that the images likely are of.
        count: Estimated number of such labels.
        share: The same as a share of the labels of the given class, in [0, 1].
    """

    given: int
    likely: int
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A label that is likely wrong.

    Attributes:
        row: Which sample, from 0.
        given: Its label.
        suggested: The most probable class.
        score: Probability of that class less that of the label, in (0, 1].
    """

    row: int
    given: int
    suggested: int
    score: float


def class_thresholds(labels: Integers, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the probability from which on a sample counts as of each class [C]; infinite for a class without samples.

    Args:
        labels: Observed labels [N].
        probabilities: Held-out class probabilities [N, C].
        weights: How often each sample counts [N]; None: once.
    """
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    weights = np.ones(len(labels)) if weights is None else weights
    sums = np.bincount(labels, weights * own, num_classes)
    counts = np.bincount(labels, weights, num_classes)
    thresholds = np.full(num_classes, np.inf)
    np.divide(sums, counts, out=thresholds, where=counts > 0)
    return thresholds


def confident_joint(labels: Integers, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the estimated joint distribution of observed (rows) and true class [C, C]; its sum is 1.

    Args:
        labels: Observed labels [N], N at least 1.
        probabilities: Held-out class probabilities [N, C].
        weights: How often each sample counts [N]; None: once.
    """
    num_classes = probabilities.shape[1]
    weights = np.ones(len(labels)) if weights is None else weights
    reached = probabilities >= class_thresholds(labels, probabilities, weights) - SLACK
    counted = np.where(reached, probabilities, -1.0).argmax(axis=1)
    cells = labels * num_classes + counted
    counts = np.bincount(cells, weights * reached.any(axis=1), num_classes**2).reshape(num_classes, num_classes)
    np.fill_diagonal(counts, np.maximum(counts.diagonal(), 1))
    given = np.bincount(labels, weights, num_classes) / weights.sum()
    return np.asarray(counts / counts.sum(axis=1, keepdims=True) * given[:, None])


def confusions(joint: Floats, num: int) -> list[Confusion]:
    """Return the pairs of classes that at least one label confuses, the most frequent first.

    Args:
        joint: Joint distribution of observed (rows) and true class [C, C].
        num: Number of samples.
    """
    counts = np.rint(joint * num).astype(int)
    np.fill_diagonal(counts, 0)
    shares = joint / np.maximum(joint.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
    pairs = (divmod(int(cell), len(joint)) for cell in order)
    return [
        Confusion(given, likely, int(counts[given, likely]), float(shares[given, likely])) for given, likely in pairs
    ]


def suspects(labels: Integers, probabilities: Floats, joint: Floats) -> list[Suspect]:
    """Return the labels that are likely wrong, the largest score first (see the module).

    Args:
        labels: Observed labels [N].
        probabilities: Held-out class probabilities [N, C].
        joint: Joint distribution of observed (rows) and true class [C, C].
    """
    own = probabilities[np.arange(len(labels)), labels]
    best = probabilities.argmax(axis=1)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for pair in confusions(joint, len(labels)):
        rows = np.flatnonzero(labels == pair.given)
        margin = probabilities[rows, pair.likely] - own[rows]
        chosen[rows[np.argsort(-margin, kind="stable")[: pair.count]]] = True
    found = np.flatnonzero(chosen & (best != labels))
    score = probabilities[found, best[found]] - own[found]
    return [
        Suspect(int(row), int(labels[row]), int(best[row]), float(value))
        for row, value in sorted(zip(found, score, strict=True), key=lambda pair: -pair[1])
    ]
