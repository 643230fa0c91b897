"""Distances against the equations in NumPy, and votes worked out by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.robust import reliability
from ddnl_ray.robust.reliability import (
    Reference,
    accepted_mask,
    anchor_statistics,
    labels_and_margins,
    most_reliable,
    pseudo_scores,
    reliabilities,
    shrink,
)

Array = npt.NDArray[np.float64]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shrunk(cov: Array, g1: float, g2: float) -> Array:
    """FeCAM's shrinkage, entry by entry."""
    q = len(cov)
    off = [cov[i, j] for i in range(q) for j in range(q) if i != j]
    added = np.full((q, q), g2 * np.mean(off))
    np.fill_diagonal(added, g1 * np.mean(np.diag(cov)))
    return cov + added


def expected_distances(points: Array, labels: list[int], anchors: Array, classes: Array, g1: float, g2: float) -> Array:
    """Equation 7 with an explicit inverse; a class of fewer than 8 anchors takes the pooled covariance."""
    groups = [anchors[classes == label] for label in range(int(classes.max()) + 1)]
    scatter = sum((rows - rows.mean(0)).T @ (rows - rows.mean(0)) for rows in groups)
    pooled = scatter / (len(anchors) - len(groups))
    found = []
    for point, label in zip(points, labels, strict=True):
        rows = groups[label]
        cov = np.cov(rows.T) if len(rows) >= 8 else pooled
        away = point - rows.mean(0)
        found.append(np.sqrt(away @ np.linalg.inv(shrunk(cov, g1, g2)) @ away))
    return np.array(found)


@pytest.mark.parametrize("sizes", [(12, 9, 30), (3, 5, 4), (8, 7, 20)])
@pytest.mark.parametrize(("g1", "g2"), [(1.0, 0.0), (0.3, 0.1)])
def test_distances_are_those_of_the_equation(sizes: tuple[int, ...], g1: float, g2: float) -> None:
    classes = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    anchors = normal(len(classes), 5) @ normal(5, 5, seed=1) + 3 * classes[:, None]
    points, labels = 2 * normal(20, 5, seed=2), torch.arange(20) % 3
    statistics = anchor_statistics(anchors, classes, points, 3, None, g1, g2)
    found = statistics.distances(points, labels)
    expected = expected_distances(points.numpy(), labels.tolist(), anchors.numpy(), classes.numpy(), g1, g2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_distances_are_taken_along_the_principal_axes_of_the_samples() -> None:
    scales = torch.tensor([5.0, 4.0, 3.0, 0.2, 0.1, 0.1], dtype=torch.float64)
    samples = normal(200, 6) * scales @ torch.linalg.qr(normal(6, 6, seed=3))[0]
    classes = torch.arange(40) % 2
    anchors = samples[:40] + 0.5 * classes[:, None]
    statistics = anchor_statistics(anchors, classes, samples, 2, 3)
    centred = samples.numpy() - samples.numpy().mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:3].T
    projected = [values.numpy() @ axes for values in (samples, anchors)]
    labels = (torch.arange(200) % 2).tolist()
    expected = expected_distances(projected[0], labels, projected[1], classes.numpy(), 1.0, 0.0)
    np.testing.assert_allclose(statistics.distances(samples, torch.tensor(labels)).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 10])
def test_where_anchors_coincide_distances_are_euclidean_up_to_a_factor(size: int) -> None:
    """One anchor per class has no spread, nor have ten that are equal."""
    classes = torch.arange(2).repeat_interleave(size)
    anchors = torch.eye(4, dtype=torch.float64)[classes]
    points, labels = normal(6, 4), torch.arange(6) % 2
    found = anchor_statistics(anchors, classes, points, 2, None).distances(points, labels)
    ratios = found / (points - torch.eye(4, dtype=torch.float64)[labels]).norm(dim=1)
    torch.testing.assert_close(ratios, ratios[:1].expand(6))


def test_shrinkage_by_hand() -> None:
    covariance = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
    assert torch.equal(shrink(covariance, 1.0, 0.0), torch.tensor([[7.0, 1.0], [1.0, 5.0]]))
    assert torch.equal(shrink(covariance, 0.0, 0.5), torch.tensor([[4.0, 1.5], [1.5, 2.0]]))
    assert torch.equal(shrink(torch.tensor([[[3.0]]]), 1.0, 1.0), torch.tensor([[[6.0]]]))


def test_a_covariance_that_shrinking_spoils_is_refused() -> None:
    anchors = torch.tensor([[0.0, 0.0], [1.0, 0.9], [2.0, 2.1], [3.0, 3.0]] * 2, dtype=torch.float64)
    with pytest.raises(RequestError, match=r"anchors of class 0 .* lower shrink_covariance to 0$"):
        anchor_statistics(anchors, torch.zeros(8, dtype=torch.int64), anchors, 1, None, 0.0, 5.0)


def test_reliability_is_scaled_inside_every_class() -> None:
    distances = torch.tensor([1.0, 3.0, 2.0, 9.0, 5.0, 7.0, 4.0], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    trusted = torch.tensor([True, True, True, False, True, True, True])
    near = reliabilities(distances, labels, trusted)
    assert near.tolist() == [1.0, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0]
    far = reliabilities(distances, labels, trusted, "distance")
    assert far.tolist() == [0.0, 1.0, 0.5, 0.0, 0.0, 1.0, 0.0]
    with pytest.raises(RequestError, match="unknown reliability 'nearness'"):
        reliabilities(distances, labels, trusted, "nearness")


def test_reliability_lies_between_0_and_1() -> None:
    distances, labels, trusted = normal(300).abs() * 50, torch.arange(300) % 7, normal(300, seed=5) > 0
    for reading in ("proximity", "distance"):
        found = reliabilities(distances, labels, trusted, reading)
        assert found.min() == 0
        assert found.max() == 1


def test_the_most_reliable_of_every_class() -> None:
    reliability_ = torch.tensor([0.2, 0.9, 0.9, 0.5, 1.0, 0.3])
    labels = torch.tensor([0, 0, 0, 1, 1, 0])
    trusted = torch.tensor([True, True, True, True, False, True])
    found = [rows.tolist() for rows in most_reliable(reliability_, labels, trusted, 3, 2)]
    assert found == [[1, 2], [3], []]
    found = [rows.tolist() for rows in most_reliable(reliability_, labels, trusted, 3, 9)]
    assert found == [[1, 2, 5, 0], [3], []]


def test_scores_by_hand_on_six_points() -> None:
    """Voters 0 and 1 of class 0 at 0 and 60 degrees, 2 and 3 of class 1 at 90 and 180; 4 and 5 at 30 and 150."""
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0, 30.0, 150.0], dtype=torch.float64).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], 1)
    reliability_ = torch.tensor([1.0, 0.5, 0.8, 0.2, 0.0, 0.0])
    top = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([], dtype=torch.int64)]
    scores = pseudo_scores(features[4:], features, reliability_, top)
    root = 3**0.5 / 2
    # At 30: cosines cos 30, cos 30; cos 60, cos 150 < 0. At 150: cos 150 < 0, cos 90 = 0; cos 60, cos 30.
    expected = [[(root + 0.5 * root) / 2, 0.8 * 0.5 / 2, 0.0], [0.0, (0.8 * 0.5 + 0.2 * root) / 2, 0.0]]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-12)
    labels, margins = labels_and_margins(scores)
    assert labels.tolist() == [0, 1]
    torch.testing.assert_close(
        margins, torch.tensor([1 - 0.2 / (0.75 * root), 1.0], dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


def test_a_class_of_many_voters_has_no_advantage() -> None:
    features = torch.eye(3)[[0, 1, 1, 1, 2]]
    features[4] = F.normalize(torch.tensor([1.01, 1.0, 0.0]), dim=0)
    scores = pseudo_scores(features[4:], features, torch.ones(5), [torch.tensor([0]), torch.tensor([1, 2, 3])])
    assert labels_and_margins(scores)[0].tolist() == [0]


def test_samples_in_parts_get_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    features, top = F.normalize(normal(30, 4), dim=1), [torch.arange(5), torch.arange(5, 12)]
    weights = normal(30, seed=4).abs()
    expected = pseudo_scores(features[12:], features, weights, top)
    monkeypatch.setattr(reliability, "SCORE_ROWS", 4)
    torch.testing.assert_close(pseudo_scores(features[12:], features, weights, top), expected)


def test_nothing_said_is_no_margin() -> None:
    _, margins = labels_and_margins(torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.1, 0.4, 0.2]]))
    torch.testing.assert_close(margins, torch.tensor([-1.0, 0.0, 0.5]))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, []), (0.1, [2]), (0.2, [2]), (0.4, [0, 2, 3]), (0.6, [0, 2, 3]), (0.7, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_the_labels_that_lead_most_are_accepted(share: float, expected: list[int]) -> None:
    """Of five samples two lead alike, and one has no score at all."""
    margins = torch.tensor([0.3, 0.0, 0.9, 0.3, -1.0])
    assert accepted_mask(margins, share).nonzero().flatten().tolist() == expected


def test_of_nothing_nothing_is_accepted() -> None:
    assert accepted_mask(torch.zeros(0), 0.5).shape == (0,)


def test_a_reference_survives_the_round_trip() -> None:
    features = F.normalize(normal(20, 6), dim=1)
    made = Reference(features, anchor_statistics(features[:10], torch.arange(10) % 2, features, 2, 3))
    tensors = made.to_tensors()
    back = Reference.from_tensors(tensors)
    assert all(torch.equal(value, back.to_tensors()[name]) for name, value in tensors.items())
    labels = torch.arange(20) % 2
    assert torch.equal(back.statistics.distances(features, labels), made.statistics.distances(features, labels))
    with pytest.raises(CorruptFileError, match=r"a reference holds .*delete its file"):
        Reference.from_tensors({name: value for name, value in tensors.items() if name != "means"})
