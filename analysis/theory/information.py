"""Estimators of I_min, the information that a class needs to generalise: three, all in nats.

Source: Distillers denoise (theory), appendix B.6.1, which names the strategies without formulas.

Differs from the original:
    - Few-shot thresholding: "significantly above a baseline" is a one-sided t test over seeds with Holm's
      correction over the images per class, and "the corresponding information content" is the mutual information
      of the test predictions, averaged over seeds. One table pooled over seeds would give the information of a
      random network of the ensemble, which is lower.
    - PAC-Bayes: the "minimum information" is the divergence KL(Q||P) at which the gap of McAllester's bound equals
      a target. The divergence is of all m images, so it is divided by C to be per class.
    - Information bottleneck: the source leaves H(z) open. Here p(z) is the mixture of the class densities, so that
      I(z; y) <= H(y); taking p(z) as one Gaussian can exceed H(y), and is given beside it. Densities are fitted
      on the folds that they are not evaluated on, since a density that has seen its sample overstates I(z; y), and
      in coordinates of unit covariance within classes, which the information does not depend on but shrinkage does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from analysis.theory.arrays import Integers, class_labels, finite_rows
from analysis.theory.chance import first_above_chance
from analysis.theory.densities import ShrunkGaussian, gaussian_entropy, neighbour_terms, within_factor
from analysis.theory.estimate import (
    STANDARD,
    Estimate,
    Floats,
    Resampling,
    basic_interval,
    resampled_means,
)
from analysis.theory.measures import entropy, fano, mutual_information
from ddnl_ray.errors import RequestError, require_known


def few_shot(
    accuracies: Mapping[int, ArrayLike],
    confusions: Mapping[int, ArrayLike],
    chance: float,
    rng: np.random.Generator,
    *,
    level: float = 0.05,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return the information of the predictions at the smallest number of images per class that beats chance.

    The value is the mean over seeds of the Miller-Madow mutual information of the test confusion matrix.
    Resampling units: seeds, and within a drawn seed its test samples. The number of images per class is held at
    the one found. Seeds share a test set, which their spread does not show, so the second level is kept although
    it makes the interval wide where seeds differ by no more than their test samples explain. Where they differ by
    more, fewer than about ten make it too short.

    Args:
        accuracies: Test accuracies of the seeds, in [0, 1], by images per class.
        confusions: Counts by true class (rows) and prediction, shape [S, C, C], by images per class; needed only
            for the one found, with its seeds in the order of its accuracies.
        chance: Accuracy of the best constant prediction: the share of the largest class of the test set.
        rng: Source of the resamples.
        level: Level of the test against chance.
        resampling: Number of resamples, and coverage.

    Returns:
        Inputs hold ``ipc`` and its ``p_value``; ``is_censored``, 1 if no smaller number was run, so that the value
        bounds I_min from above; ``plug_in``, the value without correction; and ``fano``, the mean over seeds of
        Fano's lower bound.

    Raises:
        RequestError: ``chance`` or ``level`` is out of range.
        ValueError: Nothing beats chance, no confusion matrices at the number found, matrices that do not belong
            to the accuracies, or too few test samples for a positive corrected value.
    """
    threshold = first_above_chance(accuracies, chance, level)
    if threshold.ipc not in confusions:
        raise ValueError(
            f"{threshold.ipc} images per class is the first to beat chance but has no confusion matrices (only "
            f"{sorted(confusions)}); evaluate its networks on the test set"
        )
    tables = _tables(confusions[threshold.ipc], np.asarray(accuracies[threshold.ipc], dtype=np.float64))
    seeds, classes = tables.shape[:2]
    plug_in, value = (float(mutual_information(tables, is_corrected=flag).mean()) for flag in (False, True))
    if value <= 0:
        raise ValueError(
            f"the information of the predictions is {plug_in:.3g} nats, all of it bias of {int(tables[0].sum())} test "
            "samples; evaluate on more samples"
        )
    drawn = np.array([_information_of_resample(tables, rng) for _ in range(resampling.draws)])
    ceiling = float(entropy(tables[0].sum(axis=1) / tables[0].sum()))
    low, high = basic_interval(value, drawn, resampling.confidence, centre=plug_in, domain=(0.0, ceiling))
    inputs: dict[str, float | int | str] = {"ipc": threshold.ipc, "p_value": threshold.p_value, "level": level}
    inputs |= {"is_censored": int(threshold.is_censored), "chance": chance, "classes": classes}
    inputs |= {"plug_in": plug_in, "fano": _mean_fano(tables)}
    return Estimate(value, low, high, "nats", seeds, inputs)


def pac_bayes(
    gap: ArrayLike,
    images: int,
    classes: int,
    rng: np.random.Generator,
    *,
    delta: float = 0.05,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return the divergence per class at which the gap of the PAC-Bayes bound equals a target.

    ``max(0, 2 m g^2 - log(2 sqrt(m) / delta)) / C`` solves ``g = sqrt((KL + log(2 sqrt(m) / delta)) / 2m)``.
    Resampling unit: the seed, whose gaps are averaged. A gap stated as one number is exact: the interval has no
    width.

    Args:
        gap: The target g in (0, 1]: one number, or the measured differences of training and test accuracy over
            seeds, shape [S], of which the mean is taken.
        images: m, all distilled images; the validation samples if the empirical risk is measured on them.
        classes: C.
        rng: Source of the resamples.
        delta: Confidence parameter, in (0, 1).
        resampling: Number of resamples, and coverage.

    Returns:
        Inputs hold ``gap``, the sizes, and ``total``, the divergence of all classes before it is clipped at 0:
        where it is negative, ``log(2 sqrt(m) / delta)`` alone exceeds the target, and the value is 0.

    Raises:
        RequestError: ``delta``, ``images`` or ``classes`` is out of range.
        ValueError: The gap is out of range, not positive on average, or of a single seed.
    """
    if not 0 < delta < 1:
        raise RequestError(f"delta must lie between 0 and 1 but got {delta}; use for example 0.05")
    if classes < 2 or images < classes:
        raise RequestError(
            f"a class needs an image and there must be 2 classes but got {images} images of {classes} classes; "
            "pass m = C * IPC"
        )
    gaps = np.asarray(gap, dtype=np.float64)
    if gaps.ndim > 1 or gaps.shape == (1,) or gaps.size == 0:
        raise ValueError(
            f"a gap is one number or measured over at least 2 seeds but got shape {list(gaps.shape)}; run more seeds"
        )
    mean = float(gaps.mean())
    if not (np.abs(gaps) <= 1).all() or mean <= 0:
        raise ValueError(
            f"a gap must lie in [-1, 1] with a mean above 0 but got {gaps.tolist()}; state a target such as 0.1"
        )
    terms = gaps.reshape(-1, 1)
    total = float(_divergence(np.array(mean), images, delta))
    value = max(0.0, total) / classes
    low = high = value
    if gaps.ndim:
        drawn = np.maximum(resampled_means(terms, rng, resampling.draws)[:, 0], 0)
        spread = np.maximum(_divergence(drawn, images, delta), 0) / classes
        low, high = basic_interval(value, spread, resampling.confidence, domain=(0.0, math.inf))
    inputs: dict[str, float | int | str] = {"gap": mean, "images": images, "classes": classes, "delta": delta}
    return Estimate(value, low, high, "nats", len(terms), inputs | {"total": total})


def information_bottleneck(
    latents: ArrayLike,
    labels: ArrayLike,
    rng: np.random.Generator,
    *,
    density: Literal["gaussian", "neighbours"] = "gaussian",
    components: int = 10,
    folds: int = 5,
    neighbours: int = 3,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return I(z; y) of the principal components of latents.

    Gaussian: the mean over samples of ``log p(z|y) - log p(z)``, with shrunk Gaussian class densities fitted on
    the other folds and p(z) their mixture; in expectation no more than the information, and no more than H(y).
    Neighbours: Ross' estimator, free of a model but biased low where the components are many. Resampling unit:
    the sample's term of that mean, with densities and neighbours held.

    Args:
        latents: Latents of clean samples that the network was not trained on, shape [n, d]. For I_min take those
            of networks at the smallest number of images per class that beats chance.
        labels: Classes, shape [n].
        rng: Source of the folds and the resamples.
        density: Which class densities.
        components: Principal components to keep, at most; their number is bounded by the rank.
        folds: Parts of the cross-fitting, at least 2; Gaussian only.
        neighbours: k; neighbours only.
        resampling: Number of resamples, and coverage.

    Returns:
        Clipped to [0, H(y)]. Inputs hold ``components`` kept, their share of the ``variance``, ``unclipped``, and
        for Gaussian densities ``gaussian_marginal``: the same with p(z) one Gaussian, not cross-fitted.

    Raises:
        RequestError: ``density``, ``components``, ``folds`` or ``neighbours`` is out of range.
        ValueError: No finite latents with labels, latents that are constant, a class with fewer samples than folds
            plus one or than neighbours plus one, classes without spread, or samples that coincide.
    """
    require_known("density", density, ("gaussian", "neighbours"))
    for name, size, least in (("components", components, 1), ("folds", folds, 2), ("neighbours", neighbours, 1)):
        if size < least:
            raise RequestError(f"{name} must be at least {least} but got {size}; leave it at its default")
    array = finite_rows("latents", latents)
    classes = np.unique(class_labels(labels, len(array)), return_inverse=True)[1].astype(np.int64)
    shares = np.bincount(classes) / len(classes)
    reduced, variance = _principal(array, components)
    inputs: dict[str, float | int | str] = {"density": density, "components": reduced.shape[1], "variance": variance}
    if density == "gaussian":
        terms = _held_out_terms(reduced, classes, folds, rng)
        inputs |= {"folds": folds, "gaussian_marginal": _gaussian_marginal(reduced, classes)}
    else:
        terms = neighbour_terms(reduced, classes, neighbours)
        inputs |= {"neighbours": neighbours}
    ceiling, mean = float(entropy(shares)), float(terms.mean())
    value = min(max(mean, 0.0), ceiling)
    drawn = resampled_means(terms[:, None], rng, resampling.draws)[:, 0]
    low, high = basic_interval(value, drawn, resampling.confidence, centre=mean, domain=(0.0, ceiling))
    return Estimate(value, low, high, "nats", len(terms), inputs | {"classes": len(shares), "unclipped": mean})


def _tables(confusions: ArrayLike, accuracies: Floats) -> Floats:
    tables = np.asarray(confusions, dtype=np.float64)
    if tables.ndim != 3 or tables.shape[1] != tables.shape[2] or len(tables) != len(accuracies):
        raise ValueError(
            f"confusion matrices must have shape [{len(accuracies)}, C, C], one per seed, but got "
            f"{list(tables.shape)}; pass those of the same networks as the accuracies"
        )
    mutual_information(tables)
    found = np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2))
    if np.abs(found - accuracies).max() > 1e-3:
        raise ValueError(
            f"confusion matrices give accuracies {found.round(4).tolist()} but {accuracies.round(4).tolist()} were "
            "passed; pass both of the same networks, seeds in the same order"
        )
    return tables


def _information_of_resample(tables: Floats, rng: np.random.Generator) -> float:
    chosen = tables[rng.integers(len(tables), size=len(tables))]
    totals = chosen.sum(axis=(1, 2))
    cells = chosen.reshape(len(chosen), -1) / totals[:, None]
    drawn = rng.multinomial(totals.astype(np.int64), cells)
    return float(mutual_information(drawn.reshape(chosen.shape)).mean())


def _mean_fano(tables: Floats) -> float:
    shares = tables / tables.sum(axis=(1, 2), keepdims=True)
    errors = np.clip(1 - np.trace(shares, axis1=1, axis2=2), 0, 1)
    priors = entropy(shares.sum(axis=2))
    return float(np.mean([fano(e, shares.shape[1], h) for e, h in zip(errors, priors, strict=True)]))


def _divergence(gap: Floats, images: int, delta: float) -> Floats:
    return np.asarray(2 * images * gap**2 - math.log(2 * math.sqrt(images) / delta))


def _principal(latents: Floats, components: int) -> tuple[Floats, float]:
    """Return the leading principal components, shape [n, k], and their share of the variance."""
    centred = latents - latents.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    if variances[-1] <= 1e-12 * max(float(np.square(latents).mean()), np.finfo(np.float64).tiny):
        raise ValueError("latents are constant, so they have no density; take another layer")
    kept = min(components, int(np.count_nonzero(variances > 1e-10 * variances[-1])))
    share = float(variances[-kept:].sum() / variances[variances > 0].sum())
    return centred @ axes[:, ::-1][:, :kept], share


def _gaussian_marginal(points: Floats, classes: Integers) -> float:
    """Return ``H(z) - H(z|y)`` with p(z) one Gaussian and p(z|y) one per class, each fitted on all its samples."""
    counts, dimension = np.bincount(classes), points.shape[1]
    factor = within_factor(points, classes)
    white = solve_triangular(factor, points.T, lower=True).T
    parts = [gaussian_entropy(white[classes == label]) for label in range(len(counts))]
    given = float(counts @ parts) / len(points) + float(np.log(np.diagonal(factor)).sum())
    # In coordinates of unit total covariance there is nothing to shrink: the marginal is the sample covariance's.
    determinant = float(np.linalg.slogdet(np.atleast_2d(np.cov(points.T, bias=True)))[1])
    marginal: float = 0.5 * (dimension * (1 + math.log(2 * math.pi)) + determinant)
    return marginal - given


def _held_out_terms(points: Floats, classes: Integers, folds: int, rng: np.random.Generator) -> Floats:
    """Return ``log p(z|y) - log p(z)`` of every sample under densities of the other folds, shape [n]."""
    counts = np.bincount(classes)
    if counts.min() <= folds:
        raise ValueError(
            f"{folds} folds need {folds + 1} samples of a class but one has {counts.min()}; "
            "use fewer folds or more samples"
        )
    part = np.empty(len(classes), dtype=np.int64)
    for label in range(len(counts)):
        part[rng.permutation(np.flatnonzero(classes == label))] = np.arange(counts[label]) % folds
    terms = np.empty(len(classes))
    for fold in range(folds):
        out = part == fold
        factor = within_factor(points[~out], classes[~out])
        white = solve_triangular(factor, points.T, lower=True).T
        fits = [ShrunkGaussian.fit(white[~out & (classes == label)]) for label in range(len(counts))]
        given = np.stack([fit.log_density(white[out]) for fit in fits], axis=1)
        own = given[np.arange(len(given)), classes[out]]
        terms[out] = own - logsumexp(given + np.log(counts / len(classes)), axis=1)
    return terms
