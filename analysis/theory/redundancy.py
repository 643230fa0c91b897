"""Estimators of r, the redundancy compression rate: three, all fractions of the samples.

Source: Distillers denoise (theory), appendix B.6.3.

Differs from the original:
    - Clusters: the connected components of the graph of pairs whose cosine reaches a threshold; the source names
      no algorithm. It depends on no order, but chains: ``largest`` shows a component that swallowed the rest.
    - Effective rank: the covariance has at most min(n - 1, d) directions, so r cannot exceed this over n, however
      different the samples are; ``ceiling`` is given beside it.
    - Influence: the source calls a ratio near 1 low redundancy. But the ratio measures alignment: it is 1 for
      copies of one sample, the most redundant data there are, and 0 for influences that cancel. It is implemented
      as published, and must not be read as a share of unique samples. At the minimum of the loss on these very
      samples the influences sum to 0 whatever they are, so take samples that the network was not trained on.
    - Influence: the Hessian of the softmax loss is exact on the last layer; for projected gradients it is the
      empirical Fisher matrix, as in TRAK (Park et al., 2023). The damping is relative to the mean eigenvalue.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.theory.arrays import Integers, class_labels, finite_rows, probability_rows
from analysis.theory.estimate import (
    STANDARD,
    Estimate,
    Floats,
    Resampling,
    basic_interval,
    resampled_counts,
    resampled_means,
)
from analysis.theory.measures import entropy
from ddnl_ray.errors import RequestError

LARGEST_HESSIAN = 8192
"""Side of the largest last-layer Hessian that is inverted, in parameters: 0.5 GiB in float64."""
_BLOCK = 2**22


def clusters(
    embeddings: ArrayLike,
    rng: np.random.Generator,
    *,
    threshold: float = 0.95,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return the number of clusters over the number of samples.

    Resampling unit: the cluster with all its samples; to resample samples would make clusters of the repeats. The
    interval is the inverted percentile interval of the mean cluster size, which is skewed and has no bias. All n^2
    pairs are compared, in blocks.

    Args:
        embeddings: Shape [n, d].
        rng: Source of the resamples.
        threshold: Smallest cosine of a pair that is joined, in (-1, 1]; the value depends on it, so report several.
        resampling: Number of resamples, and coverage.

    Returns:
        ``n`` is the number of clusters. Inputs hold the number of ``samples`` and the share of them in the
        ``largest`` cluster.

    Raises:
        RequestError: ``threshold`` is out of range.
        ValueError: No finite embeddings, or one is zero, so that it has no cosine.
    """
    if not -1 < threshold <= 1:
        raise RequestError(f"threshold must be a cosine in (-1, 1] but got {threshold}; use for example 0.95")
    array = finite_rows("embeddings", embeddings)
    norms = np.linalg.norm(array, axis=1)
    if (norms == 0).any():
        raise ValueError(f"{np.count_nonzero(norms == 0)} embeddings are zero and have no cosine; drop these samples")
    sizes = np.bincount(_components(array / norms[:, None], threshold)).astype(np.float64)
    value = len(sizes) / len(array)
    drawn = resampled_means(sizes[:, None], rng, resampling.draws)[:, 0]
    tail = (1 - resampling.confidence) / 2
    small, large = np.quantile(drawn, [tail, 1 - tail])
    inputs: dict[str, float | int | str] = {"threshold": threshold, "samples": len(array)}
    inputs |= {"largest": float(sizes.max()) / len(array)}
    low, high = min(value, float(1 / large)), max(value, float(1 / small))
    return Estimate(value, low, high, "fraction", len(sizes), inputs)


def effective_rank(
    embeddings: ArrayLike,
    rng: np.random.Generator,
    *,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return ``exp(H(p)) / n``, p the normalised singular values of the covariance of the embeddings.

    Effective rank: Roy and Vetterli (2007). Resampling unit: the sample. A resample holds some 63 % of the
    samples, so with fewer samples than some five times the dimension the interval rests on the correction of a
    large bias.

    Args:
        embeddings: Shape [n, d].
        rng: Source of the resamples.
        resampling: Number of resamples, and coverage; each costs the spectrum of a covariance.

    Returns:
        Inputs hold the ``rank`` exp(H(p)), the ``dimension`` d and ``ceiling``, the largest value that n and d
        allow.

    Raises:
        ValueError: No finite embeddings, or all are equal.
    """
    array = finite_rows("embeddings", embeddings)
    n, dimension = array.shape
    if np.ptp(array, axis=0).max() == 0:
        raise ValueError("embeddings are all equal, so their covariance has no spectrum; take another layer")
    rank = _rank(array, np.ones(n))
    drawn = np.array([_rank(array, resampled_counts(n, rng)) for _ in range(resampling.draws)])
    ceiling = min(n - 1, dimension) / n
    value = min(rank / n, ceiling)
    low, high = basic_interval(value, drawn / n, resampling.confidence, domain=(1 / n, ceiling))
    return Estimate(value, low, high, "fraction", n, {"rank": rank, "dimension": dimension, "ceiling": ceiling})


def influence(
    embeddings: ArrayLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    rng: np.random.Generator,
    *,
    damping: float = 0.01,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return ``||sum IF|| / sum ||IF||`` with influences on the last layer, weights and bias.

    ``IF = -(H + lambda I)^-1 grad``, H the Hessian of the mean softmax cross-entropy and lambda the damping times
    its mean eigenvalue. Resampling unit: the sample, with H held. The norm of a sum overstates a small alignment:
    the interval corrects for it, and then ends at the value. Needs n * C * (d + 1) float64 numbers twice.

    Args:
        embeddings: Inputs of the last layer, shape [n, d].
        probabilities: Its predictions, shape [n, C].
        labels: Labels of the loss, shape [n].
        rng: Source of the resamples.
        damping: Relative damping, above 0.
        resampling: Number of resamples, and coverage.

    Raises:
        RequestError: ``damping`` is not positive.
        ValueError: Arrays that do not fit together, a layer too large to invert, predictions that are all certain,
            so that the Hessian vanishes, or influences that are all zero.
    """
    rows = probability_rows("probabilities", probabilities)
    array = finite_rows("embeddings", embeddings)
    classes = class_labels(labels, len(rows), rows.shape[1])
    if len(array) != len(rows):
        raise ValueError(f"got {len(array)} embeddings but {len(rows)} predictions; pass both of the same samples")
    size = rows.shape[1] * (array.shape[1] + 1)
    if size > LARGEST_HESSIAN:
        raise ValueError(
            f"the last layer has {size} parameters, more than {LARGEST_HESSIAN}; reduce the embeddings to principal "
            "components, or use influence_projected"
        )
    inputs = np.column_stack([array, np.ones(len(array))])
    errors = rows - np.eye(rows.shape[1])[classes]
    gradients = (errors[:, :, None] * inputs[:, None, :]).reshape(len(rows), size)
    return _alignment(gradients, _softmax_hessian(inputs, rows), damping, rng, resampling, {"layer": "last"})


def influence_projected(
    gradients: ArrayLike,
    rng: np.random.Generator,
    *,
    dimension: int = 512,
    damping: float = 0.01,
    resampling: Resampling = STANDARD,
) -> Estimate:
    """Return ``||sum IF|| / sum ||IF||`` with influences of randomly projected gradients.

    As :func:`influence`, with the empirical Fisher matrix ``mean(g g^T)`` of the projections for H.

    Args:
        gradients: Per-sample gradients, flattened, shape [n, D].
        rng: Source of the projection and the resamples.
        dimension: Dimension of the projections; gradients of no more parameters are taken as they are.
        damping: Relative damping, above 0.
        resampling: Number of resamples, and coverage.

    Raises:
        RequestError: ``dimension`` or ``damping`` is not positive.
        ValueError: No finite gradients, or all are zero.
    """
    array = finite_rows("gradients", gradients)
    projected = random_projection(array, dimension, rng)
    fisher = projected.T @ projected / len(projected)
    return _alignment(projected, fisher, damping, rng, resampling, {"layer": "projected"})


def random_projection(gradients: ArrayLike, dimension: int, rng: np.random.Generator) -> Floats:
    """Return Gaussian random projections, which keep squared norms on average, shape [n, dimension].

    Args:
        gradients: Shape [n, D]; returned as they are if D is at most ``dimension``.
        dimension: Dimension of the projections, at least 1.
        rng: Source of the projection.

    Raises:
        RequestError: ``dimension`` is below 1.
        ValueError: No finite gradients.
    """
    if dimension < 1:
        raise RequestError(f"dimension must be at least 1 but got {dimension}; use for example 512")
    array = finite_rows("gradients", gradients)
    if array.shape[1] <= dimension:
        return array
    step = max(1, _BLOCK // dimension)
    starts = range(0, array.shape[1], step)
    parts = (array[:, i : i + step] for i in starts)
    total = np.zeros((len(array), dimension))
    for part in parts:
        total += part @ rng.standard_normal((part.shape[1], dimension))
    return total / math.sqrt(dimension)


def _components(unit: Floats, threshold: float) -> Integers:
    """Return the connected component of every row among unit vectors, shape [n]."""
    n = len(unit)
    found = np.arange(n)
    step = max(1, _BLOCK // n)
    # Rounding puts the cosine of equal vectors next to 1, on either side.
    least = threshold - 1e-9
    for start in range(0, n, step):
        row, column = np.nonzero(unit[start : start + step] @ unit[start:].T >= least)
        ends = (np.concatenate([row + start, np.arange(n)]), np.concatenate([column + start, _first_of(found)]))
        graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(n, n))
        found = connected_components(graph, directed=False)[1]
    return found.astype(np.int64)


def _first_of(components: Integers) -> Integers:
    """Return for every sample the index of the first one of its component."""
    _, first, inverse = np.unique(components, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def _rank(embeddings: Floats, counts: Floats) -> float:
    """Return the exponential of the entropy of the covariance spectrum; 1 if a resample has no spread."""
    weights = counts / counts.sum()
    scaled = np.sqrt(weights)[:, None] * (embeddings - weights @ embeddings)
    small = scaled.T @ scaled if scaled.shape[1] <= scaled.shape[0] else scaled @ scaled.T
    spectrum = np.maximum(np.linalg.eigvalsh(small), 0)
    return float(np.exp(entropy(spectrum / spectrum.sum()))) if spectrum.sum() > 0 else 1.0


def _softmax_hessian(inputs: Floats, probabilities: Floats) -> Floats:
    """Return ``mean((diag(p) - p p^T) x (h h^T))``, shape [C d, C d], ordered as flattened [C, d] weights."""
    n, width = inputs.shape
    classes = probabilities.shape[1]
    hessian = np.empty((classes, width, classes, width))
    for a in range(classes):
        for b in range(a + 1):
            curvature = probabilities[:, a] * ((a == b) - probabilities[:, b])
            hessian[a, :, b, :] = hessian[b, :, a, :] = (inputs * curvature[:, None]).T @ inputs / n
    return hessian.reshape(classes * width, classes * width)


def _alignment(
    gradients: Floats,
    hessian: Floats,
    damping: float,
    rng: np.random.Generator,
    resampling: Resampling,
    inputs: dict[str, float | int | str],
) -> Estimate:
    if damping <= 0:
        raise RequestError(f"damping must be above 0 but got {damping}; use for example 0.01")
    mean_eigenvalue = float(np.trace(hessian)) / len(hessian)
    if np.abs(gradients).max() == 0 or mean_eigenvalue <= np.finfo(np.float64).tiny:
        raise ValueError(
            "all gradients, or the Hessian, are zero: there is no influence to compare; take a network that is not "
            "certain of every sample"
        )
    factor = cho_factor(hessian + damping * mean_eigenvalue * np.eye(len(hessian)), lower=True)
    effects = -cho_solve(factor, gradients.T).T
    terms = np.column_stack([effects, np.linalg.norm(effects, axis=1)])
    mean = terms.mean(axis=0)
    value = min(1.0, float(np.linalg.norm(mean[:-1]) / mean[-1]))
    drawn = resampled_means(terms, rng, resampling.draws)
    # Where no drawn sample has an influence the ratio is 0 / 0: such a resample says nothing and is left out.
    drawn = drawn[drawn[:, -1] > 0]
    ratios = np.linalg.norm(drawn[:, :-1], axis=1) / drawn[:, -1]
    low, high = basic_interval(value, ratios, resampling.confidence, domain=(0.0, 1.0))
    sizes: dict[str, float | int | str] = {"damping": damping, "parameters": gradients.shape[1]}
    return Estimate(value, low, high, "fraction", len(gradients), inputs | sizes)
