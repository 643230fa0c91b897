"""Gradient matching: its distances by hand, and its image gradient against a class-by-class loop in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Normalise
from ddnl_ray.data.augment import Augment, DiffAug
from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import gradients
from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import View, draw_rows, observed_pools
from ddnl_ray.distill.gradients import COSINE, SQUARED, Distance, cosine_of_rows, matching_gradient, squared_difference
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing.problems import CLASSES, toy_problem

BATCH = 4
LIMITED = View(factor=2, limit=3, transform=Normalise(torch.tensor([0.4]), torch.tensor([0.3])))


def double_problem() -> Problem:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    problem.network.module.double()
    return dataclasses.replace(problem, images=problem.images.double())


def theta_of(problem: Problem) -> Tensor:
    assert problem.network is not None
    return problem.network.fresh(torch.Generator().manual_seed(0)).double()


def stored_images() -> Tensor:
    return torch.randn(CLASSES * 2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def layer_distance(name: str, shape: torch.Size, a: Tensor, b: Tensor) -> Tensor:
    """Return the distance of one layer's gradients, written out from the papers, row by row."""
    nothing = a.new_zeros(())
    if name == "squared":
        return ((a - b) ** 2).sum() if len(shape) == 4 else nothing
    if len(shape) == 1:
        return nothing
    pairs = zip(a.reshape(shape[0], -1), b.reshape(shape[0], -1), strict=True)
    return sum((1 - (x @ y) / ((x @ x).sqrt() * (y @ y).sqrt() + 1e-6) for x, y in pairs), nothing)


def by_class(
    name: str, problem: Problem, stored: Tensor, theta: Tensor, view: View, augment: Augment | None, seed: SeedTree
) -> Tensor:
    """Return the summed distance of all parameters' gradients, one class after the other, of the same random draws."""
    network, generator, total = problem.network, seed.torch(), stored.new_zeros(())
    assert network is not None
    rows = draw_rows(observed_pools(problem), BATCH, generator)
    draws = [None] * CLASSES
    if augment is not None:
        draws = [augment.draw(generator, 1, 8, "cpu", siamese=True) for _ in range(CLASSES)]
    picks = view.picks(CLASSES, len(stored) // CLASSES, generator)
    for label, (own, draw) in enumerate(zip(stored.chunk(CLASSES), draws, strict=True)):
        images, real = view.decoded(own), problem.images[rows[label]]
        images = images if picks is None else images[picks[label]]
        if augment is not None:
            images, real = augment.apply(images, draw), augment.apply(real, draw)
        found = []
        for batch in (real, images):
            leaf = theta.clone().requires_grad_()
            loss = F.cross_entropy(network(leaf, batch), torch.full((len(batch),), label))
            found.append(torch.autograd.grad(loss, leaf, create_graph=True)[0])
        pairs = zip(network.unflatten(found[0].detach()).values(), network.unflatten(found[1]).values(), strict=True)
        total = total + sum(layer_distance(name, a.shape, a, b) for a, b in pairs)
    return total


@pytest.mark.parametrize("stacking", [set(), {"cpu"}])
@pytest.mark.parametrize("smaller", [0, 9])
@pytest.mark.parametrize("augment", [None, Dsa(), DiffAug("color_crop_cutout")])
@pytest.mark.parametrize("view", [View(), View(factor=2), LIMITED])
@pytest.mark.parametrize("name", ["cosine", "squared"])
def test_the_image_gradient_is_that_of_a_loop_over_classes(
    monkeypatch: pytest.MonkeyPatch, name: str, view: View, augment: Augment | None, smaller: int, stacking: set[str]
) -> None:
    monkeypatch.setattr(gradients, "STACKING", stacking)
    problem = dataclasses.replace(double_problem(), smaller=smaller)
    theta, stored = theta_of(problem), stored_images()
    distance = {"cosine": COSINE, "squared": SQUARED}[name]
    for step in range(4 if augment else 1):  # so that several operations of the augmentation are met
        seed = SeedTree.root(0).child(step)
        leaf = stored.clone().requires_grad_()
        expected = by_class(name, problem, leaf, theta, view, augment, seed)
        (slope,) = torch.autograd.grad(expected, leaf)
        assert slope.abs().max() > 1e-5
        pools = observed_pools(problem)
        loss, gradient = matching_gradient(stored, problem, theta, view, distance, augment, pools, BATCH, seed)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("distance", [COSINE, SQUARED])
def test_the_image_gradient_is_that_of_finite_differences(distance: Distance) -> None:
    problem = double_problem()
    theta, stored, pools, seed = theta_of(problem), stored_images(), observed_pools(problem), SeedTree.root(3)

    def value(images: Tensor) -> float:
        return float(matching_gradient(images, problem, theta, LIMITED, distance, Dsa(), pools, BATCH, seed)[0])

    gradient = matching_gradient(stored, problem, theta, LIMITED, distance, Dsa(), pools, BATCH, seed)[1]
    for trial in range(3):
        along = torch.randn(stored.shape, generator=torch.Generator().manual_seed(trial)).double()
        slope = (value(stored + 1e-6 * along) - value(stored - 1e-6 * along)) / 2e-6
        assert slope == pytest.approx(float((gradient * along).sum()), rel=1e-5)


@pytest.mark.parametrize("stacking", [set(), {"cpu"}])
def test_a_resnet_is_matched_too(monkeypatch: pytest.MonkeyPatch, stacking: set[str]) -> None:
    monkeypatch.setattr(gradients, "STACKING", stacking)
    network = Flat(build(NetworkSpec("resnet18", 2), (1, 16, 16), CLASSES, torch.Generator().manual_seed(0)).double())
    problem = double_problem()
    problem = dataclasses.replace(problem, network=network, images=problem.images.repeat(1, 1, 2, 2))
    theta, leaf, seed = theta_of(problem), stored_images().repeat(1, 1, 2, 2).requires_grad_(), SeedTree.root(0)
    expected = by_class("squared", problem, leaf, theta, View(), None, seed)
    (slope,) = torch.autograd.grad(expected, leaf)
    args = (View(), SQUARED, None, observed_pools(problem), BATCH, seed)
    loss, gradient = matching_gradient(leaf.detach(), problem, theta, *args)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-9 * float(slope.abs().max()))


def test_a_scaled_gradient_has_cosine_distance_0_and_the_opposite_one_2_per_output() -> None:
    a = torch.randn(2, 5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(cosine_of_rows(a, 7 * a)) == pytest.approx(0, abs=1e-5)
    assert float(cosine_of_rows(a, -a)) == pytest.approx(2 * 2 * 5, rel=1e-6)
    scales = torch.tensor([1.0, 2, 3, 4, 5]).view(1, 5, 1, 1, 1)
    assert float(cosine_of_rows(a, scales * a)) == pytest.approx(0, abs=1e-5)
    assert float(squared_difference(a, 3 * a)) == pytest.approx(4 * float((a**2).sum()))


def test_distances_by_hand() -> None:
    real, synthetic = torch.tensor([[[3.0, 4], [1, 0]]]), torch.tensor([[[4.0, 3], [0, 2]]])
    assert float(cosine_of_rows(real, synthetic)) == pytest.approx((1 - 24 / 25) + 1)
    assert float(squared_difference(real, synthetic)) == pytest.approx(1 + 1 + 1 + 4)


def test_a_row_without_gradient_counts_1_and_gives_a_finite_slope() -> None:
    """A filter whose ReLU is never open has a gradient of 0, exactly."""
    real, synthetic = torch.tensor([[[3.0, 4]]]), torch.zeros(1, 1, 2, requires_grad=True)
    value = cosine_of_rows(real, synthetic)
    assert float(value.detach()) == 1
    (slope,) = torch.autograd.grad(value, synthetic)
    assert bool(slope.isfinite().all())


@pytest.mark.parametrize(
    ("distance", "counted"),
    [(COSINE, {"blocks.0.conv.weight", "classifier.weight"}), (SQUARED, {"blocks.0.conv.weight"})],
)
def test_only_the_tensors_that_count_are_differentiated(distance: Distance, counted: set[str]) -> None:
    problem = double_problem()
    assert problem.network is not None
    weights = gradients._Weights.cut(problem.network, theta_of(problem), distance.dims)
    assert set(weights.chosen) == counted
    assert set(weights.chosen) | set(weights.fixed) == set(problem.network.shapes)


def test_the_set_itself_as_real_images_is_at_distance_0() -> None:
    """Whole classes as batches, and the same images stored."""
    problem = double_problem()
    keep = torch.cat([problem.rows_of(label)[:2] for label in range(CLASSES)])
    problem = dataclasses.replace(problem, images=problem.images[keep], labels=problem.labels[keep])
    for distance, most in ((COSINE, 1e-3), (SQUARED, 1e-20)):
        args = (View(), distance, Dsa(), observed_pools(problem), 2, SeedTree.root(0))
        loss, _ = matching_gradient(problem.images, problem, theta_of(problem), *args)
        assert 0 <= float(loss) < most
