"""Measures of continuous information: shrunk Gaussian densities, and nearest neighbours.

All in nats. Densities: Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional covariance
matrices. Neighbours: Ross (2014), Mutual information between discrete and continuous data sets, equation 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree
from scipy.special import digamma

from analysis.theory.arrays import Integers
from analysis.theory.estimate import Floats


@dataclass(frozen=True, slots=True, eq=False)
class ShrunkGaussian:
    """A normal density with Ledoit and Wolf's covariance.

    Attributes:
        mean: Shape [d].
        factor: Lower Cholesky factor of the covariance, shape [d, d].
    """

    mean: Floats
    factor: Floats

    @classmethod
    def fit(cls, samples: Floats) -> ShrunkGaussian:
        """Fit the density to samples of shape [n, d].

        Raises:
            ValueError: Fewer than two samples, or all of them coincide.
        """
        from sklearn.covariance import LedoitWolf

        if len(samples) < 2 or np.ptp(samples, axis=0).max() == 0:
            raise ValueError(
                f"a Gaussian is fitted to at least 2 different samples but got {len(samples)} "
                "that coincide; pass more samples of the class, or drop the class"
            )
        fitted = LedoitWolf().fit(samples)
        return cls(np.asarray(fitted.location_), np.tril(cho_factor(fitted.covariance_, lower=True)[0]))

    @property
    def entropy(self) -> float:
        """Differential entropy ``1/2 log det(2 pi e Sigma)``."""
        return 0.5 * len(self.mean) * (1 + math.log(2 * math.pi)) + self._half_log_determinant

    def log_density(self, points: Floats) -> Floats:
        """Return the log density at points of shape [n, d]; shape [n]."""
        centred = points - self.mean
        squared = (centred * cho_solve((self.factor, True), centred.T).T).sum(axis=1)
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi) + self._half_log_determinant
        return np.asarray(-0.5 * squared - constant, dtype=np.float64)

    @property
    def _half_log_determinant(self) -> float:
        return float(np.log(np.diagonal(self.factor)).sum())


def gaussian_entropy(samples: Floats) -> float:
    """Return the entropy of the shrunk Gaussian fitted to samples of shape [n, d].

    Among the densities of one covariance the Gaussian has the largest entropy: this bounds the entropy of any
    other from above.
    """
    return ShrunkGaussian.fit(samples).entropy


def within_factor(samples: Floats, labels: Integers) -> Floats:
    """Return the lower Cholesky factor of the pooled covariance within classes, shape [d, d].

    Samples divided by it have classes of about unit covariance, which shrinkage towards equal variances leaves
    as they are; on raw latents it would blur the thin directions that tell the classes apart.

    Args:
        samples: Shape [n, d].
        labels: Class indices from 0, all of them occurring, shape [n].

    Raises:
        ValueError: The classes have no spread in some direction.
    """
    counts = np.bincount(labels)
    means = np.stack([samples[labels == label].mean(axis=0) for label in range(len(counts))])
    residuals = samples - means[labels]
    covariance = residuals.T @ residuals / len(samples)
    spread = np.linalg.eigvalsh(covariance)
    if spread[0] <= 1e-12 * spread[-1]:
        raise ValueError(
            f"{len(samples)} samples of {len(counts)} classes have no spread within the classes in some of "
            f"{samples.shape[1]} directions; use fewer components or more samples"
        )
    return np.asarray(np.linalg.cholesky(covariance))


def neighbour_terms(samples: Floats, labels: Integers, neighbours: int = 3) -> Floats:
    """Return the terms whose mean is Ross' mutual information of continuous samples and discrete labels.

    ``psi(N) + psi(k) - psi(N_y) - psi(m)``: N_y is the number of samples of the class, m the number of samples
    of any class within the distance to the k-th neighbour of the same class, that neighbour included.

    Args:
        samples: Shape [n, d]; distances are Euclidean.
        labels: Class of each sample, shape [n].
        neighbours: k, at least 1.

    Returns:
        Shape [n]. A term can be negative.

    Raises:
        ValueError: A class has no more than k samples, or k + 1 samples of a class coincide.
    """
    radius, size = np.empty(len(samples)), np.empty(len(samples))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) <= neighbours:
            raise ValueError(
                f"{neighbours} neighbours need {neighbours + 1} samples of a class but class {label} has {len(own)}; "
                "use fewer neighbours or more samples"
            )
        distances, _ = cKDTree(samples[own]).query(samples[own], k=[neighbours + 1])
        radius[own], size[own] = distances[:, 0], len(own)
    if (radius == 0).any():
        raise ValueError(
            f"nearest neighbours need distances above 0 but {np.count_nonzero(radius == 0)} samples coincide with "
            f"{neighbours} others of their class; drop the duplicates"
        )
    # A closed ball just below the radius holds the sample itself in place of its k-th neighbour: the same count.
    within = cKDTree(samples).query_ball_point(samples, np.nextafter(radius, 0), return_length=True)
    terms = digamma(len(samples)) + digamma(neighbours) - digamma(size) - digamma(within)
    return np.asarray(terms, dtype=np.float64)
