"""Contrastive terms against double loops, closed forms and cases by hand; where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.robust.contrast import (
    class_pairs,
    contrast_within,
    draw_partners,
    golden_mixup_contrast,
    plan_views,
    released_contrast,
    supcon,
)
from ddnl_ray.seeds import SeedTree

E = math.e


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def by_loops(
    anchors: Tensor, candidates: Tensor, weights: Tensor, exclude: Tensor, temperature: float
) -> list[float | None]:
    """The loss of every anchor in plain numbers; None without a positive."""
    losses: list[float | None] = []
    for i, anchor in enumerate(anchors.tolist()):
        seen = [j for j in range(len(candidates)) if not exclude[i, j]]
        similar = {j: cosine(anchor, candidates[j].tolist()) / temperature for j in seen}
        total = math.log(sum(math.exp(value) for value in similar.values()))
        mass = sum(float(weights[i, j]) for j in seen)
        part = sum(float(weights[i, j]) * (total - similar[j]) for j in seen)
        losses.append(part / mass if mass > 0 else None)
    return losses


def random_case(cross: bool, soft: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors, candidates, positives and exclusions; anchor 0 has no positive, anchor 1 has one."""
    generator = torch.Generator().manual_seed(3)
    anchors = 3 * double(9, 4, seed=1)
    candidates = double(12, 4, seed=2) if cross else anchors
    weights = torch.rand(9, len(candidates), generator=generator, dtype=torch.float64)
    weights = weights if soft else (weights < 0.4).double()
    exclude = torch.rand(9, len(candidates), generator=generator) < 0.2 if cross else torch.eye(9, dtype=torch.bool)
    weights[0] = 0
    weights[1] = F.one_hot(torch.tensor(5), len(candidates))
    exclude[1, 5] = False
    return anchors, candidates, weights, exclude


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_the_loss_is_that_of_a_double_loop(cross: bool, soft: bool, temperature: float) -> None:
    anchors, candidates, weights, exclude = random_case(cross, soft)
    losses = by_loops(anchors, candidates, weights, exclude, temperature)
    valid = [loss for loss in losses if loss is not None]
    assert losses[0] is None
    assert len(valid) == 8
    given = weights if soft else weights.bool()
    found = {kind: supcon(anchors, candidates, given, exclude, temperature, kind) for kind in ("mean", "sum")}
    assert float(found["sum"]) == pytest.approx(sum(valid), rel=1e-10)
    assert float(found["mean"]) == pytest.approx(sum(valid) / 8, rel=1e-10)
    everything = torch.zeros_like(exclude)
    unexcluded = [loss for loss in by_loops(anchors, candidates, weights, everything, temperature) if loss is not None]
    open_sum = supcon(anchors, candidates, given, None, temperature, "sum")
    assert float(open_sum) == pytest.approx(sum(unexcluded), rel=1e-10)


def test_the_gradients_are_those_of_finite_differences() -> None:
    anchors, candidates, weights, exclude = random_case(cross=True, soft=True)
    inputs = (anchors.requires_grad_(), candidates.requires_grad_())

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return supcon(a, b, weights, exclude, 0.5)

    assert torch.autograd.gradcheck(loss, inputs)
    weights.requires_grad_()
    assert torch.autograd.grad(loss(*inputs), weights, allow_unused=True) == (None,)
    labels = torch.arange(9) % 3
    assert torch.autograd.gradcheck(lambda x: contrast_within(x, labels, 0.5, "sum"), (anchors,))


def test_without_positives_the_loss_is_zero_with_a_graph() -> None:
    anchors = double(5, 3).requires_grad_()
    for loss in (
        supcon(anchors, double(4, 3, seed=1), torch.zeros(5, 4)),
        contrast_within(anchors, torch.arange(5)),
        contrast_within(anchors[:1], torch.zeros(1, dtype=torch.int64)),
        supcon(anchors, anchors, torch.ones(5, 5), torch.ones(5, 5, dtype=torch.bool)),
    ):
        (gradient,) = torch.autograd.grad(loss, anchors)
        assert float(loss.detach()) == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_one_class_has_the_logarithm_of_its_others_as_lower_bound(temperature: float) -> None:
    labels = torch.zeros(7, dtype=torch.int64)
    for seed in range(5):
        loss = float(contrast_within(double(7, 3, seed=seed), labels, temperature))
        assert loss > math.log(6) + 1e-3
    same = double(1, 3).repeat(7, 1)
    assert float(contrast_within(same, labels, temperature)) == pytest.approx(math.log(6), abs=1e-12)
    # Equal similarities, whatever they are, reach it too: the corners of a simplex.
    assert float(contrast_within(torch.eye(7).double(), labels, temperature)) == pytest.approx(math.log(6), abs=1e-12)


def test_the_lengths_of_embeddings_do_not_matter_and_excluded_candidates_neither() -> None:
    anchors, candidates, weights, exclude = random_case(cross=True, soft=False)
    exclude[:, 0] = True
    expected = supcon(anchors, candidates, weights, exclude)
    scaled = candidates * torch.linspace(0.1, 9, 12, dtype=torch.float64)[:, None]
    scaled[0] = anchors[3]
    torch.testing.assert_close(supcon(anchors * 5, scaled, weights, exclude), expected)


@pytest.mark.parametrize("temperature", [1e-3, 0.07])
def test_loss_and_gradient_are_finite_at_low_temperature_and_for_dead_features(temperature: float) -> None:
    embeddings = double(8, 4).float()
    embeddings[:2] = 0
    embeddings[2] = embeddings[3] = -embeddings[4]
    embeddings.requires_grad_()
    loss = contrast_within(embeddings, torch.arange(8) % 2, temperature)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_an_anchor_far_from_all_that_it_sees_keeps_its_loss_in_float32() -> None:
    """Itself, which it does not see, is nearer by 1.5 / 0.005 = 300 in the logits."""
    angles = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64) * math.pi / 3
    points = torch.stack([angles.cos(), angles.sin()], dim=1) + 0.001 * double(3, 2)
    labels = torch.tensor([0, 0, 1])
    losses = by_loops(points, points, labels[:, None] == labels[None], torch.eye(3, dtype=torch.bool), 0.005)
    found = contrast_within(points.float(), labels, 0.005, "sum")
    assert float(found) == pytest.approx(sum(loss for loss in losses if loss is not None), rel=1e-3)


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    embeddings, labels = double(16, 8).bfloat16(), torch.arange(16) % 4
    loss = contrast_within(embeddings, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, contrast_within(embeddings.float(), labels), rtol=0, atol=0)


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(RequestError, match=r"unknown reduction 'means': did you mean 'mean'"):
        supcon(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 1), reduction="means")


def test_pairs_of_classes_and_of_probabilities() -> None:
    a, b = torch.tensor([0, 2]), torch.tensor([2, 0, 1])
    assert class_pairs(a, b).tolist() == [[False, True, False], [True, False, False]]
    one_hot = [F.one_hot(each, 3).double() for each in (a, b)]
    assert torch.equal(class_pairs(*one_hot), class_pairs(a, b).double())
    soft = class_pairs(torch.tensor([[0.5, 0.5]], requires_grad=True), torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert soft.tolist() == [[0.5, 0.5]]
    assert not soft.requires_grad
    with pytest.raises(ValueError, match="make the classes one-hot"):
        class_pairs(a, one_hot[1])


def gmc_case() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "syn": double(12, 5, seed=1),
        "mixed": double(10, 5, seed=2),
        "golden": double(8, 5, seed=3),
        "labels_syn": torch.arange(12) % 3,
        "labels_golden": torch.tensor([0, 0, 1, 2, 2, 1, 0, 2]),
        "source": torch.randint(12, (10,), generator=generator),
        "partner": torch.randint(8, (10,), generator=generator),
    }


def test_golden_mixup_contrast_is_that_of_double_loops() -> None:
    case = gmc_case()
    found = golden_mixup_contrast(**case, mixup=0.6, temperature=0.2)

    def mean(anchors: Tensor, own: Tensor, candidates: Tensor, labels: Tensor, itself: bool) -> float:
        exclude = torch.eye(len(anchors), dtype=torch.bool) if itself else torch.zeros(len(anchors), len(candidates))
        losses = by_loops(anchors, candidates, own[:, None] == labels[None], exclude, 0.2)
        assert None not in losses
        return sum(loss for loss in losses if loss is not None) / len(losses)

    with_syn = mean(case["mixed"], case["labels_syn"][case["source"]], case["syn"], case["labels_syn"], False)
    of_partner = case["labels_golden"][case["partner"]]
    with_golden = mean(case["mixed"], of_partner, case["golden"], case["labels_golden"], False)
    syn = mean(case["syn"], case["labels_syn"], case["syn"], case["labels_syn"], True)
    assert float(found.with_syn) == pytest.approx(with_syn, rel=1e-10)
    assert float(found.with_golden) == pytest.approx(with_golden, rel=1e-10)
    assert float(found.syn) == pytest.approx(syn, rel=1e-10)
    assert float(found.loss) == pytest.approx(0.6 * with_syn + 0.4 * with_golden + syn, rel=1e-10)


def test_golden_mixup_contrast_by_hand() -> None:
    """One mixed image in the direction of its source; temperature 1."""
    found = golden_mixup_contrast(
        syn=torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64),
        mixed=torch.tensor([[2.0, 0.0]], dtype=torch.float64),
        golden=torch.tensor([[0.0, 3.0], [1.0, 0.0]], dtype=torch.float64),
        labels_syn=torch.tensor([0, 1, 0]),
        labels_golden=torch.tensor([1, 0]),
        source=torch.tensor([0]),
        partner=torch.tensor([0]),
        temperature=1.0,
    )
    # Cosines 1, 0 and -1; the first (its own source) and the last are positives: log(e + 1 + 1/e) - (1 - 1) / 2.
    assert float(found.with_syn) == pytest.approx(1.407606, abs=1e-6)
    # Cosines 0 (its own partner, the positive) and 1: log(1 + e) - 0.
    assert float(found.with_golden) == pytest.approx(1.313262, abs=1e-6)
    # The first sees cosines 0 and -1 (its positive), log(1 + 1/e) + 1; so does the last; the second has no positive.
    assert float(found.syn) == pytest.approx(1.313262, abs=1e-6)
    assert float(found.loss) == pytest.approx(0.75 * 1.407606 + 0.25 * 1.313262 + 1.313262, abs=1e-6)


def test_released_contrast_by_hand() -> None:
    """One class, three images at cosines 0, 0 and -1 of each other; temperature 1."""
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    found = released_contrast(points, points, torch.tensor([4, 7, 4]), temperature=1.0)
    # log(1 + 1/e) + 1/2 twice, and log 2: without negatives.
    expected = (2 * (math.log(1 + 1 / E) + 0.5) + math.log(2)) / 3
    assert expected == pytest.approx(0.773224, abs=1e-6)
    assert float(found.syn) == pytest.approx(expected, rel=1e-12)
    assert float(found.with_syn) == pytest.approx(expected, rel=1e-12)
    # log(1 + 1/e) + 1 twice; the one whose partner's class is alone counts as 0 in the mean.
    assert float(found.with_golden) == pytest.approx(2 * (math.log(1 + 1 / E) + 1) / 3, rel=1e-12)
    assert float(found.loss) == pytest.approx(1.75 * 0.773224 + 0.25 * 0.875508, abs=1e-6)


def test_one_hot_labels_give_what_classes_give() -> None:
    case = gmc_case()
    soft = case | {name: F.one_hot(case[name], 3).double() for name in ("labels_syn", "labels_golden")}
    for name in ("with_syn", "with_golden", "syn"):
        hard, found = (getattr(golden_mixup_contrast(**each), name) for each in (case, soft))
        torch.testing.assert_close(found, hard, rtol=1e-12, atol=0)


def test_golden_embeddings_get_no_gradient_and_images_of_every_class_do() -> None:
    """As a method calls it: the network's weights are frozen; images, golden images and soft labels could learn."""
    network = Flat(build(NetworkSpec("convnet1", 4), (1, 4, 4), 3, SeedTree.root(0).torch()))
    theta = network.flatten().double()
    syn, golden = double(6, 1, 4, 4).requires_grad_(), double(6, 1, 4, 4, seed=1).requires_grad_()
    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    soft = F.one_hot(classes, 3).double().requires_grad_()
    each = torch.arange(6)

    def embed(images: Tensor) -> Tensor:
        return network.outputs(theta, images).features

    found = golden_mixup_contrast(
        embed(syn), embed(0.75 * syn + 0.25 * golden.detach()), embed(golden), soft, soft, each, each.flip(0)
    )
    for term in (found.with_syn, found.with_golden, found.syn, found.loss):
        to_syn, to_golden, to_labels = torch.autograd.grad(
            term, (syn, golden, soft), retain_graph=True, allow_unused=True
        )
        assert to_golden is None
        assert to_labels is None
        assert (to_syn.flatten(1).norm(dim=1) > 1e-6).all()
    assert not theta.requires_grad


def test_synthetic_candidates_keep_their_gradient() -> None:
    case = gmc_case()
    case["syn"].requires_grad_()
    (gradient,) = torch.autograd.grad(golden_mixup_contrast(**case).with_syn, case["syn"])
    assert (gradient.norm(dim=1) > 1e-6).all()


def test_partners_are_drawn_by_class_first() -> None:
    pools = [torch.tensor([3]), torch.arange(10, 110), torch.tensor([], dtype=torch.int64), torch.tensor([5, 6])]
    rows, labels = draw_partners(pools, 6000, torch.Generator().manual_seed(0))
    counts = torch.bincount(labels, minlength=4)
    assert counts[2] == 0
    assert all(abs(int(counts[label]) - 2000) < 150 for label in (0, 1, 3))
    for label, pool in enumerate(pools):
        assert torch.isin(rows[labels == label], pool).all()
    spread = torch.bincount(rows[labels == 1] - 10, minlength=100)
    assert spread.min() > 0
    assert spread.max() < 45
    assert abs(int((rows == 5).sum()) - 1000) < 110


def test_a_draw_of_partners_is_that_of_its_generator() -> None:
    pools = [torch.arange(50), torch.arange(50, 60)]
    first, again, other = (draw_partners(pools, 20, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_an_empty_golden_set_has_no_partners() -> None:
    with pytest.raises(RequestError, match=r"golden set is empty.*lengthen warm_up"):
        draw_partners([torch.tensor([], dtype=torch.int64)] * 2, 3, torch.Generator())


@pytest.mark.parametrize(
    ("num_classes", "per_class", "max_anchors", "kept", "views"),
    [
        (10, 40, 4096, 40, 4),  # 400 images, 1600 anchors
        (10, 200, 4096, 102, 4),  # CIFAR-10 at 50 per class: 1020 images
        (100, 40, 4096, 10, 4),
        (200, 40, 4096, 5, 4),
        (10, 200, 2100, 102, 2),
        (10, 200, 3059, 102, 2),
        (10, 200, 3060, 102, 3),
        (10, 200, 500, 102, 1),  # one view at least, above the cap
        (2000, 2, 4096, 1, 2),  # one image of a class at least, above the cap
    ],
)
def test_the_plan_keeps_within_its_caps(
    num_classes: int, per_class: int, max_anchors: int, kept: int, views: int
) -> None:
    labels = torch.arange(num_classes * per_class) % num_classes
    plan = plan_views(labels, num_classes, torch.Generator().manual_seed(0), max_anchors=max_anchors)
    assert plan.num_views == views
    assert torch.bincount(labels[plan.rows], minlength=num_classes).tolist() == [kept] * num_classes
    assert (plan.rows.diff() > 0).all()


def test_the_images_of_a_plan_are_drawn_anew_from_all() -> None:
    labels = torch.arange(40) // 20
    generator = torch.Generator().manual_seed(0)
    plans = [plan_views(labels, 2, generator, max_images=10).rows for _ in range(40)]
    assert all(len(rows) == 10 for rows in plans)
    assert len(torch.cat(plans).unique()) == 40


def test_a_class_with_fewer_images_takes_part_with_all() -> None:
    labels = torch.tensor([0, 1, 1, 1, 1, 3])
    plan = plan_views(labels, 4, torch.Generator().manual_seed(0), max_images=8)
    assert torch.bincount(labels[plan.rows], minlength=4).tolist() == [1, 2, 0, 1]
