"""How many labels are wrong: four estimates from held-out predictions and neighbours, and Corollary IV.

- ``confident``: confident learning (:mod:`ddnl_ray.lnl.confident`): the mass of the joint off its diagonal.
- ``lossmix``: the share of the component with the larger mean in a mixture of two Gaussians on the held-out losses of
  the observed labels, as DivideMix (Li et al., ICLR 2020) splits them. Two components are found in any losses, so hard
  images count as wrong where few labels are.
- ``knn``: how often an image's label differs from that of a neighbour (Zhu et al., SimiFeat, ICML 2022, rest on the
  same counts). If neighbours share their class, and a wrong label is any other class alike, labels of two of them agree
  with probability ``(1 - t)^2 + t^2 / (C - 1)``; this is solved for t, up to ``(C - 1) / C``. Neighbours of another
  class raise it. Confusions that gather on few classes lower it: at 40 % on one of ten classes it says 28.5 %.
- ``knn_vote``: the share of labels that the plurality of the neighbours outvotes (Bahri et al., ICML 2020, drop these).
  No kind of noise is assumed. It is an upper bound where wrong votes fall on right labels; where one wrong class is
  nearly as frequent as the right one they fall on wrong labels too, and it is none.
- ``pac_bayes_published``, ``pac_bayes_derived``: Corollary IV (:mod:`analysis.theory.noise_rate`) for a known alpha.

The intervals are basic bootstrap intervals over samples, with the networks held fixed: they say how much the sample
matters, and neither how much another training would differ nor whether an estimator's assumption holds.

Differs from the original:
    - the mixture is fitted to a histogram of the losses with :data:`BINS` bins, which makes a resample cheap;
      losses are cut at -log 1e-4 before they are scaled to [0, 1], for a single outlier would rescale all;
    - for ``knn`` a resample reweighs the samples both as images and as neighbours; for ``knn_vote`` as images alone,
      for the plurality of a resample is more often tied than that of the sample;
    - an upper end is at least that of a sample without a wrong label, which resampling would be certain of;
    - Corollary IV takes KL(Q||P) = 0, the smallest gap that it can have: Q must then not depend on the sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.theory.estimate import Resampling, basic_interval, resampled_counts
from analysis.theory.noise_rate import estimate_rate, rate_interval
from analysis.theory.symbols import FORMS
from ddnl_ray.errors import RequestError
from ddnl_ray.lnl.confident import Floats, Integers, confident_joint

DRAWS = Resampling(draws=300)
BINS = 1000
SMALLEST_PROBABILITY = 1e-4
ADDED_VARIANCE = 5e-4
MAX_STEPS = 500
TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """What one estimator says of the noise rate.

    Attributes:
        estimator: Its name (see the module).
        rate: The estimate, in [0, 1].
        low: Lower end of its interval.
        high: Upper end.
    """

    estimator: str
    rate: float
    low: float
    high: float

    @property
    def vacuous(self) -> bool:
        """Whether the interval is all of [0, 1] and thus says nothing."""
        return self.low <= 0 and self.high >= 1


def confident(
    labels: Integers, probabilities: Floats, rng: np.random.Generator, resampling: Resampling = DRAWS
) -> RateEstimate:
    """Return the estimate of confident learning.

    Args:
        labels: Observed labels [N].
        probabilities: Held-out class probabilities [N, C].
        rng: Source of the resamples.
        resampling: How many, and the coverage.
    """

    def rate(weights: Floats) -> float:
        joint = confident_joint(labels, probabilities, weights)
        np.fill_diagonal(joint, 0)
        return float(joint.sum())

    return _bootstrapped("confident", rate, len(labels), rng, resampling)


def lossmix(
    labels: Integers, probabilities: Floats, rng: np.random.Generator, resampling: Resampling = DRAWS
) -> RateEstimate:
    """Return the share of the high-loss component; 0 where all losses are equal.

    Args:
        labels: Observed labels [N].
        probabilities: Held-out class probabilities [N, C].
        rng: Source of the resamples.
        resampling: How many, and the coverage.
    """
    own = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.clip(own, SMALLEST_PROBABILITY, 1.0))
    spread = float(np.ptp(losses))
    if spread == 0:
        return RateEstimate("lossmix", 0.0, 0.0, _none_seen(len(labels), resampling.confidence))
    bins = np.minimum(((losses - losses.min()) / spread * BINS).astype(np.int64), BINS - 1)
    start = _fit(bins, np.ones(len(bins)), _two_means(bins))

    def rate(weights: Floats) -> float:
        return float(_fit(bins, weights, start)[0, 1])

    return _bootstrapped("lossmix", rate, len(labels), rng, resampling)


def knn(
    labels: Integers, neighbours: Integers, num_classes: int, rng: np.random.Generator, resampling: Resampling = DRAWS
) -> RateEstimate:
    """Return the rate at which symmetric noise makes neighbours disagree as often as they do.

    Args:
        labels: Observed labels [N].
        neighbours: Rows of the neighbours of each sample [N, k].
        num_classes: C.
        rng: Source of the resamples.
        resampling: How many, and the coverage.
    """
    agree = labels[neighbours] == labels[:, None]

    def rate(weights: Floats) -> float:
        pairs = weights[:, None] * weights[neighbours]
        total = float(pairs.sum())
        return symmetric_rate(float((pairs * agree).sum()) / total, num_classes) if total else 0.0

    return _bootstrapped("knn", rate, len(labels), rng, resampling)


def knn_vote(
    labels: Integers, neighbours: Integers, num_classes: int, rng: np.random.Generator, resampling: Resampling = DRAWS
) -> RateEstimate:
    """Return the share of labels that the plurality of the neighbours outvotes; a tie with the label is none.

    Args:
        labels: Observed labels [N].
        neighbours: Rows of the neighbours of each sample [N, k].
        num_classes: C.
        rng: Source of the resamples.
        resampling: How many, and the coverage.
    """
    rows = np.arange(len(labels))
    cells = (rows[:, None] * num_classes + labels[neighbours]).ravel()
    votes = np.bincount(cells, minlength=len(rows) * num_classes).reshape(-1, num_classes)
    outvoted = votes[rows, labels] < votes.max(axis=1)

    def rate(weights: Floats) -> float:
        return float(weights[outvoted].sum() / weights.sum())

    return _bootstrapped("knn_vote", rate, len(labels), rng, resampling)


def corollary(
    n: int,
    num_classes: int,
    alpha: float,
    ipc: float,
    gap: float,
    alpha_ends: tuple[float, float] | None = None,
) -> list[RateEstimate]:
    """Return Corollary IV's estimate with its published and its derived interval, at confidence 0.95.

    Where alpha has an interval, the lower end is that of its upper end and the upper that of its lower end.

    Args:
        n: Labels.
        num_classes: C.
        alpha: Clean content of one distilled image, in clean samples, > 0.
        ipc: Distilled images per class that are worth the whole set, with ``C * ipc`` at least 1.
        gap: The PAC-Bayes gap (:mod:`analysis.noise_rate.gap`).
        alpha_ends: Ends of the interval of a calibrated alpha; None: it is exact.

    Raises:
        RequestError: A value is out of its domain, or the distilled images would hold more clean content than there are
            labels.
    """
    m = num_classes * ipc
    least, most = alpha_ends or (alpha, alpha)
    try:
        rate = float(estimate_rate(alpha, n, m))
        lows, highs = (
            [rate_interval(n=n, m=m, alpha=end, eps=gap, form=form) for form in FORMS] for end in (most, least)
        )
    except ValueError as error:
        raise RequestError(f"--alpha {alpha:g} and --ipc {ipc:g}: {error}") from error
    if alpha * m > n:
        raise RequestError(
            f"--alpha {alpha:g} and --ipc {ipc:g} say that {m:g} distilled images hold the clean content of "
            f"{alpha * m:g} samples, but there are {n}; lower one of them"
        )
    return [
        RateEstimate(f"pac_bayes_{low.form}", rate, float(low.lower), float(high.upper))
        for low, high in zip(lows, highs, strict=True)
    ]


def symmetric_rate(agreement: float, num_classes: int) -> float:
    """Return the rate t in [0, (C - 1) / C] with ``(1 - t)^2 + t^2 / (C - 1) = agreement``; the nearest where none has.

    Args:
        agreement: How often two independent labels of one class agree.
        num_classes: C, at least 2.
    """
    most = (num_classes - 1) / num_classes
    return float(most * (1 - np.sqrt(np.clip(1 - (1 - agreement) / most, 0, 1))))


def _bootstrapped(
    name: str, rate: Callable[[Floats], float], num: int, rng: np.random.Generator, resampling: Resampling
) -> RateEstimate:
    """Return an estimate that is a function of how often each sample counts, with its interval."""
    value = rate(np.ones(num))
    draws = np.array([rate(resampled_counts(num, rng)) for _ in range(resampling.draws)])
    low, high = basic_interval(value, draws, resampling.confidence, domain=(0.0, 1.0))
    return RateEstimate(name, value, low, max(high, _none_seen(num, resampling.confidence)))


def _none_seen(num: int, confidence: float) -> float:
    """Return the upper end of the exact interval of a rate of which a sample shows no case (Clopper and Pearson 1934).

    No resample shows a case either, so that the bootstrap alone would be certain.
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / num))


def _two_means(bins: Integers) -> Floats:
    """Return where the fit starts: shares, means and variances of the bins below and above the best cut [3, 2]."""
    x = (np.sort(bins) + 0.5) / BINS
    cuts = np.arange(1, len(x))
    below, total = np.cumsum(x)[:-1], x.sum()
    between = cuts * (len(x) - cuts) * (below / cuts - (total - below) / (len(x) - cuts)) ** 2
    cut = int(between.argmax()) + 1
    parts = (x[:cut], x[cut:])
    return np.array([[f(part) for part in parts] for f in (lambda p: len(p) / len(x), np.mean, np.var)])


def _fit(bins: Integers, sample_weights: Floats, start: Floats) -> Floats:
    """Fit two Gaussians to the histogram of samples in [0, 1] by expectation maximisation.

    Args:
        bins: The bin of each sample [N].
        sample_weights: How often it counts [N].
        start: Shares, means and variances, the smaller mean first [3, 2].

    Returns:
        The same after the fit [3, 2], the smaller mean first.
    """
    counts = np.bincount(bins, sample_weights, BINS).astype(np.float64)
    kept = np.flatnonzero(counts)
    x, weights = ((kept + 0.5) / BINS)[:, None], counts[kept] / counts.sum()
    shares, means, variances = start[0], start[1], start[2] + ADDED_VARIANCE
    last = -np.inf
    for _ in range(MAX_STEPS):
        density = shares * np.exp(-((x - means) ** 2) / (2 * variances)) / np.sqrt(2 * np.pi * variances)
        total = np.maximum(density.sum(axis=1), np.finfo(float).tiny)
        likelihood = float(weights @ np.log(total))
        own = density / total[:, None] * weights[:, None]
        shares = np.maximum(own.sum(axis=0), np.finfo(float).tiny)
        means = (own * x).sum(axis=0) / shares
        variances = (own * (x - means) ** 2).sum(axis=0) / shares + ADDED_VARIANCE
        if likelihood - last < TOLERANCE:
            break
        last = likelihood
    order = means.argsort()
    return np.stack([shares, means, variances])[:, order]
