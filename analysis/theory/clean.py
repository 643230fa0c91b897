"""Estimators of I_clean, the information of one clean sample: two in nats, one in relative units.

Source: Distillers denoise (theory), appendix B.6.2. All take samples that the network was not trained on: on
its training samples a network states the labels, and its information is H(y) whatever the samples are worth.

Differs from the original:
    - Contrastive: the critic of the pair (x, y) is ``log p(y|x) - log p(y)`` of a classifier, the optimal one if
      the classifier is calibrated; the source leaves it open. The classifier bound, ``H(y) - CE``, which is
      ``log C - CE`` for balanced classes, is offered beside InfoNCE, since InfoNCE cannot exceed log batch.
    - Teacher: p(y) is the mean prediction unless a prior is given.
    - Gradient: a norm is no information. It is returned in relative units; only ratios of two such values, of the
      same network and loss, say anything.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.theory.arrays import Integers, class_labels, finite_rows, probability_rows
from analysis.theory.estimate import (
    STANDARD,
    Estimate,
    Floats,
    Resampling,
    basic_interval,
    resampled_means,
)
from analysis.theory.measures import entropy, infonce_terms
from ddnl_ray.errors import RequestError, require_known


def contrastive(
    probabilities: ArrayLike,
    labels: ArrayLike,
    rng: np.random.Generator,
    *,
    bound: Literal["infonce", "classifier"] = "infonce",
    batch: int = 256,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return a lower bound on I(x; y) from the predictions of a classifier on clean samples.

    InfoNCE over random batches, or the classifier bound ``H(y) - CE`` (Barber and Agakov, 2003). Resampling unit:
    the sample's term of the bound, its batch held.

    Args:
        probabilities: Predictions of a classifier trained on other clean samples, shape [n, C].
        labels: Clean labels, shape [n].
        rng: Source of the batches and the resamples.
        bound: Which bound.
        batch: B, pairs of an InfoNCE batch, at least 2; samples past the last whole batch are left out.
        resampling: Number of resamples, and coverage.

    Returns:
        Inputs hold ``ceiling``, what the bound cannot exceed: ``min(log B, H(y))`` for InfoNCE, else H(y).

    Raises:
        RequestError: ``bound`` or ``batch`` is out of range.
        ValueError: No probabilities with labels, a sample whose label has probability 0, fewer samples than a
            batch, or a bound that is not positive.
    """
    require_known("bound", bound, ("infonce", "classifier"))
    if batch < 2:
        raise RequestError(f"batch must be at least 2 but got {batch}; use for example 256")
    rows = probability_rows("probabilities", probabilities)
    classes = class_labels(labels, len(rows), rows.shape[1])
    own = rows[np.arange(len(rows)), classes]
    if (own == 0).any():
        raise ValueError(
            f"the label of {np.count_nonzero(own == 0)} samples has probability 0, whose logarithm is infinite; "
            "take the softmax in float64, or calibrate the classifier"
        )
    shares = np.bincount(classes, minlength=rows.shape[1]) / len(classes)
    ceiling = float(entropy(shares))
    inputs: dict[str, float | int | str] = {"bound": bound, "classes": rows.shape[1]}
    if bound == "classifier":
        terms = np.log(own) + ceiling
    else:
        terms = _infonce(rows, classes, shares, batch, rng)
        ceiling = min(ceiling, math.log(batch))
        inputs |= {"batch": batch}
    value = float(terms.mean())
    if value <= 0:
        raise ValueError(
            f"the {bound} bound is {value:.3g} nats: the classifier is no better than the class shares, so the bound "
            "says nothing; calibrate the classifier or train it longer"
        )
    drawn = resampled_means(terms[:, None], rng, resampling.draws)[:, 0]
    low, high = basic_interval(value, drawn, resampling.confidence, domain=(0.0, ceiling))
    return Estimate(value, low, high, "nats", len(terms), inputs | {"ceiling": ceiling})


def teacher(
    probabilities: ArrayLike,
    rng: np.random.Generator,
    *,
    prior: ArrayLike | None = None,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return ``mean(H(p(y)) - H(p(y|x)))`` of a teacher's predictions.

    With p(y) the mean prediction it is the information I(x; ŷ) that the teacher claims: right if the teacher is
    calibrated, too large if it is overconfident. Resampling unit: the sample, p(y) computed anew.

    Args:
        probabilities: Predictions p(y|x) of a cleanly trained teacher, shape [n, C].
        rng: Source of the resamples.
        prior: p(y), shape [C]; the default is the mean prediction.
        resampling: Number of resamples, and coverage.

    Returns:
        Inputs hold the two entropies, ``marginal`` and ``conditional``, and which prior was used.

    Raises:
        ValueError: No probabilities, a prior of other classes, or a teacher that is on average less certain than
            the prior.
    """
    rows = probability_rows("probabilities", probabilities)
    conditional = entropy(rows)
    fixed = None if prior is None else _prior(prior, rows.shape[1])
    marginal = float(entropy(rows.mean(axis=0) if fixed is None else fixed))
    value = marginal - float(conditional.mean())
    if value <= 1e-12:
        raise ValueError(
            f"the teacher is no more certain than its prior ({float(conditional.mean()):.4g} against {marginal:.4g} "
            "nats), so a sample holds no information; train the teacher longer or check the prior"
        )
    drawn = resampled_means(np.column_stack([rows, conditional]), rng, resampling.draws)
    spread = (entropy(drawn[:, :-1]) if fixed is None else marginal) - drawn[:, -1]
    domain = (0.0, math.log(rows.shape[1]))
    low, high = basic_interval(value, spread, resampling.confidence, domain=domain)
    inputs: dict[str, float | int | str] = {"classes": rows.shape[1], "marginal": marginal}
    inputs |= {"conditional": float(conditional.mean()), "prior": "mean prediction" if fixed is None else "given"}
    return Estimate(value, low, high, "nats", len(rows), inputs)


def gradient(gradients: ArrayLike, rng: np.random.Generator, *, resampling: Resampling = STANDARD) -> Estimate:
    """Return the mean norm of per-sample gradients, in relative units.

    Resampling unit: the sample.

    Args:
        gradients: Gradients of the loss of each clean sample, flattened, shape [n, D]; or random projections of
            them, which keep norms on average (:func:`analysis.theory.redundancy.random_projection`).
        rng: Source of the resamples.
        resampling: Number of resamples, and coverage.

    Raises:
        ValueError: No finite gradients, or all are zero.
    """
    norms = np.linalg.norm(finite_rows("gradients", gradients), axis=1)
    if norms.max() == 0:
        raise ValueError(
            "all gradients are zero, so no sample informs the network; take them before the network has fitted them"
        )
    value = float(norms.mean())
    drawn = resampled_means(norms[:, None], rng, resampling.draws)[:, 0]
    low, high = basic_interval(value, drawn, resampling.confidence, domain=(0.0, math.inf))
    return Estimate(value, low, high, "relative", len(norms), {"parameters": np.asarray(gradients).shape[1]})


def _infonce(rows: Floats, classes: Integers, shares: Floats, batch: int, rng: np.random.Generator) -> Floats:
    """Return the InfoNCE terms of the samples in whole random batches, shape [n // B * B]."""
    if len(rows) < batch:
        raise ValueError(f"a batch is of {batch} pairs but got {len(rows)} samples; use a smaller batch")
    with np.errstate(divide="ignore", invalid="ignore"):
        critic = np.log(rows) - np.log(shares)
    order = rng.permutation(len(rows))[: len(rows) // batch * batch].reshape(-1, batch)
    return np.concatenate([infonce_terms(critic[np.ix_(part, classes[part])]) for part in order])


def _prior(values: ArrayLike, classes: int) -> Floats:
    prior = np.asarray(values, dtype=np.float64)
    if prior.shape != (classes,) or not (prior >= 0).all() or abs(float(prior.sum()) - 1) > 1e-6:
        raise ValueError(
            f"a prior must be {classes} probabilities with sum 1 but got {prior.tolist()}; pass the class shares"
        )
    return prior
