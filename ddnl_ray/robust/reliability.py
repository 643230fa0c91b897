"""How reliable a trusted sample is, and what the reliable ones say about the rest: the inner loop of TAD.

Wu et al. 2025, arXiv 2502.05027, Eqs. 7 and 8. Anchors (synthetic images that match early epochs alone) give every
class a mean and a covariance; a trusted sample near its class's anchors is reliable. The most reliable samples of every
class vote on the label of an untrusted one by cosine similarity.

Differs from the original (what it leaves open):
    - features are reduced by PCA, fitted on all training samples (there are more of them than dimensions, and their
      spread is what distances are about). No option but ``pca_dim``;
    - a covariance of few anchors is singular. It is shrunk as in FeCAM (Goswami et al., NeurIPS 2023), which the paper
      cites: ``cov + g1 mean(diagonal) I + g2 mean(off-diagonal) (1 - I)``, but with g2 = 0, which is positive definite.
      FeCAM's division by standard deviations has no option: it makes distances comparable between classes, and
      distances are only compared inside a class. Classes of fewer than 8 anchors take the pooled covariance;
    - a sample's distance is that to its own class, scaled by the smallest and the largest among the trusted samples of
      that class. No option;
    - reliability is proximity, ``1 - scaled distance``. The formula says the distance, which would let the outliers of
      a class speak for it; ``distance`` is that reading;
    - the k most reliable samples are taken per class, and a class's score is their mean (the sum of Eq. 8 would favour
      the classes with more of them). No option;
    - similarities below 0 count as 0. A sample that is similar to no reliable one gets no label.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import CorruptFileError, RequestError, require_known

READINGS = ("proximity", "distance")
POOLED_BELOW = 8
FLOOR = 1e-10
SCORE_ROWS = 4096


@dataclass(frozen=True, eq=False)
class AnchorStatistics:
    """Where the anchors of every class lie, in q dimensions.

    Attributes:
        centre: What is subtracted from a feature before its projection [d], float64.
        basis: The projection [d, q], float64.
        means: Mean of every class's anchors [C, q], float64.
        factors: Lower Cholesky factors of their shrunk covariances [C, q, q], float64.
    """

    centre: Tensor
    basis: Tensor
    means: Tensor
    factors: Tensor

    def project(self, features: Tensor) -> Tensor:
        """Return features [n, d] in the q dimensions [n, q], float64."""
        return (features.double() - self.centre) @ self.basis

    def distances(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the Mahalanobis distance of every sample to its own class [n], float64 (Eq. 7).

        Args:
            features: [n, d].
            labels: int64 [n].
        """
        points = self.project(features)
        distances = torch.zeros_like(points[:, 0])
        for label in labels.unique().tolist():
            own = labels == label
            away = (points[own] - self.means[label]).T
            distances[own] = torch.linalg.solve_triangular(self.factors[label], away, upper=False).norm(dim=0)
        return distances


@dataclass(frozen=True, eq=False)
class Reference:
    """What the labels of N training samples are judged by.

    Attributes:
        features: Of the training samples [N, d], each of length 1.
        statistics: Of the anchors.
    """

    features: Tensor
    statistics: AnchorStatistics

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors."""
        return {"features": self.features} | vars(self.statistics)

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Reference:
        """Rebuild a reference from :meth:`to_tensors`.

        Raises:
            CorruptFileError: A tensor is missing or unknown.
        """
        names = [field.name for field in dataclasses.fields(AnchorStatistics)]
        if set(tensors) != {"features", *names}:
            raise CorruptFileError(
                f"a reference holds {sorted(tensors)}, expected {sorted(['features', *names])}; "
                "delete its file to make it again"
            )
        return cls(tensors["features"], AnchorStatistics(**{name: tensors[name] for name in names}))


def principal_axes(features: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """Return the mean [d] of features [N, d] and their ``dim`` leading principal axes [d, q], float64.

    ``None``, or as many axes as there are dimensions, keeps the features as they are: the axes are the unit vectors.
    """
    values = features.double()
    centre = values.mean(0)
    if dim is None or dim >= values.shape[1]:
        return centre, torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    away = values - centre
    _, vectors = torch.linalg.eigh(away.T @ away)
    return centre, vectors[:, -dim:].flip(1)


def shrink(covariance: Tensor, variance: float, off_diagonal: float) -> Tensor:
    """Return covariances [..., q, q] plus a share of their mean variance and of their mean covariance.

    Args:
        covariance: Covariances.
        variance: g1, the share of the mean of the diagonal that is added to the diagonal.
        off_diagonal: g2, the share of the mean of the rest that is added to the rest; above 0 the result need not be
            positive definite.
    """
    q = covariance.shape[-1]
    eye = torch.eye(q, dtype=covariance.dtype, device=covariance.device)
    total, trace = covariance.sum((-2, -1)), covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    mean_variance, mean_rest = trace / q, (total - trace) / max(1, q * (q - 1))
    added = variance * mean_variance[..., None, None] * eye + off_diagonal * mean_rest[..., None, None] * (1 - eye)
    return covariance + added


def anchor_statistics(
    anchors: Tensor,
    labels: Tensor,
    features: Tensor,
    num_classes: int,
    pca_dim: int | None = 64,
    shrink_variance: float = 1.0,
    shrink_covariance: float = 0.0,
) -> AnchorStatistics:
    """Return the statistics of the anchors of every class.

    Args:
        anchors: Features of the anchors [m, d].
        labels: Their classes, int64 [m]; every class occurs.
        features: Features of the training samples [N, d], on which the projection is fitted.
        num_classes: Number of classes, C.
        pca_dim: Dimensions that are kept; None: all.
        shrink_variance: g1 of :func:`shrink`.
        shrink_covariance: g2 of :func:`shrink`.

    Raises:
        RequestError: A shrunk covariance is not positive definite.
    """
    centre, basis = principal_axes(features, pca_dim)
    points = (anchors.double() - centre) @ basis
    own = [points[labels == label] for label in range(num_classes)]
    means = torch.stack([rows.mean(0) for rows in own])
    away = [rows - mean for rows, mean in zip(own, means, strict=True)]
    scatter = torch.stack([rows.T @ rows for rows in away])
    pooled = scatter.sum(0) / max(1, len(points) - num_classes)
    covariances = [
        total / (len(rows) - 1) if len(rows) >= POOLED_BELOW else pooled
        for total, rows in zip(scatter, own, strict=True)
    ]
    shrunk = shrink(torch.stack(covariances), shrink_variance, shrink_covariance)
    # Where all anchors of a class coincide, the floor makes the distance a multiple of the Euclidean one.
    floor = FLOOR * torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    factors, faults = torch.linalg.cholesky_ex(shrunk + floor)
    if faults.any():
        raise RequestError(
            f"the anchors of class {int(faults.argmax())} have a covariance that is not positive definite with "
            f"shrink_variance {shrink_variance} and shrink_covariance {shrink_covariance}; lower shrink_covariance to 0"
        )
    return AnchorStatistics(centre, basis, means, factors)


def reliabilities(distances: Tensor, labels: Tensor, trusted: Tensor, reading: str = "proximity") -> Tensor:
    """Return the reliability of every trusted sample [N], float64 in [0, 1]; that of an untrusted one is 0.

    Args:
        distances: Of every sample to its own class [N], float64.
        labels: Observed labels, int64 [N].
        trusted: bool [N].
        reading: ``proximity`` (``1 - scaled distance``) or ``distance`` (as the formula is printed).

    Raises:
        RequestError: The reading is unknown.
    """
    require_known("reliability", reading, READINGS)
    found = torch.zeros_like(distances)
    for label in labels[trusted].unique().tolist():
        own = trusted & (labels == label)
        values = distances[own]
        spread = values.max() - values.min()
        scaled = (values - values.min()) / (spread if spread > 0 else 1.0)
        found[own] = 1 - scaled if reading == "proximity" else scaled
    return found


def most_reliable(reliability: Tensor, labels: Tensor, trusted: Tensor, num_classes: int, top_k: int) -> list[Tensor]:
    """Return the rows of the ``top_k`` most reliable trusted samples of every class, or of all that it has, int64."""
    chosen = []
    for label in range(num_classes):
        own = (trusted & (labels == label)).nonzero().flatten()
        order = reliability[own].argsort(descending=True, stable=True)
        chosen.append(own[order[:top_k]])
    return chosen


def pseudo_scores(samples: Tensor, features: Tensor, reliability: Tensor, top: list[Tensor]) -> Tensor:
    """Return how much the reliable samples of every class vouch for samples [n, C] (Eq. 8).

    The score of a class is the mean over its reliable samples of reliability times cosine, cosines below 0 as 0.

    Args:
        samples: Features of the samples to label [n, d], of length 1.
        features: Features of the training samples [N, d], of length 1.
        reliability: [N].
        top: Rows of the reliable samples of every class; a class without any scores 0.
    """
    rows = torch.cat(top)
    votes = torch.zeros(len(rows), len(top), dtype=features.dtype, device=features.device)
    first = 0
    for label, own in enumerate(top):
        votes[first : first + len(own), label] = reliability[own].to(votes) / max(1, len(own))
        first += len(own)
    voters = features[rows].T
    return torch.cat([(part @ voters).clamp_min(0) @ votes for part in samples.split(SCORE_ROWS)])


def labels_and_margins(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class with the largest score, int64 [n], and how far it leads, as a share of its score [n].

    Args:
        scores: [n, C], of 0 or more. The margin of a sample without any score is -1.
    """
    best, classes = scores.topk(2, dim=1)
    first, second = best.unbind(1)
    margins = torch.where(first > 0, (first - second) / first.clamp_min(torch.finfo(first.dtype).tiny), -1.0)
    return classes[:, 0], margins


def accepted_mask(margins: Tensor, share: float) -> Tensor:
    """Return which pseudo-labels are accepted, bool [n]: those of the largest margins, ties included.

    Args:
        margins: From :func:`labels_and_margins`; a sample without any score is never accepted.
        share: Share of the samples that is wanted, in [0, 1].
    """
    wanted = math.ceil(share * len(margins))
    if not wanted:
        return torch.zeros_like(margins, dtype=torch.bool)
    least = margins.sort(descending=True).values[wanted - 1]
    return (margins >= least) & (margins >= 0)
