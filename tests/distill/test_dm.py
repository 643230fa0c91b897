"""DM: its contract, and its gradient against a class-by-class loop in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import (
    Terms,
    View,
    class_gradient,
    class_labels,
    draw_rows,
    first_images,
    joint_rate,
    observed_pools,
)
from ddnl_ray.distill.dm import Dm, DmConfig
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import CLASSES, toy_problem


class TestDm(MethodContract):
    method = Dm
    config = DmConfig(iterations=3, batch_real=4)


def double_problem(augment: bool = True) -> Problem:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    problem.network.module.double()
    changes = {} if augment else {"augment": None}
    return dataclasses.replace(problem, images=problem.images.double(), **changes)


def theta_of(problem: Problem) -> Tensor:
    assert problem.network is not None
    return problem.network.fresh(torch.Generator().manual_seed(0)).double()


def by_class(problem: Problem, stored: Tensor, theta: Tensor, view: View, terms: Terms, seed: SeedTree) -> Tensor:
    """Return the summed loss, one class after the other, from the same random numbers."""
    network, augment = problem.network, problem.augment
    assert network is not None
    generator, total = seed.torch(), stored.new_zeros(())
    rows = draw_rows(observed_pools(problem), 4, generator) if terms.match else None
    draws = [None] * CLASSES
    if augment is not None:
        draws = [augment.draw(generator, 1, 8, "cpu", siamese=True) for _ in range(CLASSES)]
    picks = view.picks(CLASSES, len(stored) // CLASSES, generator)
    for label, (own, draw) in enumerate(zip(stored.chunk(CLASSES), draws, strict=True)):
        images = view.decoded(own)
        images = images if picks is None else images[picks[label]]
        images = images if augment is None else augment.apply(images, draw)
        found = network.outputs(theta, images)
        if rows is not None:
            real = problem.images[rows[label]]
            real = real if augment is None else augment.apply(real, draw)
            gap = network.outputs(theta, real).embedding.mean(0) - found.embedding.mean(0)
            total = total + terms.match * (gap**2).sum()
        log_p = found.logits.log_softmax(1)[:, label]
        total = total - terms.cross_entropy * log_p.mean()
    return total


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("smaller", [0, 9])
@pytest.mark.parametrize(
    ("view", "terms"),
    [
        (View(), Terms()),
        (View(factor=2), Terms(1.0, 3.0)),
        (View(factor=2, limit=3), Terms(0.5, 0.1)),
        (View(factor=2), Terms(0.0, 1.0)),
    ],
)
def test_the_gradient_is_that_of_a_loop_over_classes(augment: bool, smaller: int, view: View, terms: Terms) -> None:
    problem = dataclasses.replace(double_problem(augment), smaller=smaller)
    theta = theta_of(problem)
    stored = torch.randn(CLASSES * 2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for step in range(6):  # so that several operations of the augmentation are met
        seed = SeedTree.root(0).child(step)
        leaf = stored.clone().requires_grad_()
        expected = by_class(problem, leaf, theta, view, terms, seed)
        (slope,) = torch.autograd.grad(expected, leaf)
        loss, gradient = class_gradient(stored, problem, theta, view, terms, observed_pools(problem), 4, seed)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)


def test_a_joint_step_is_a_sweep_of_steps_with_momentum() -> None:
    """Class c's loss is a quadratic of its own image; compared when the next gradient of that image is computed."""
    classes, lr, momentum = 10, 0.05, 0.5
    target = torch.randn(classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    curve = torch.linspace(0.5, 2.0, classes, dtype=torch.float64)
    x, velocity, joint = torch.zeros(classes).double(), torch.zeros(classes).double(), torch.zeros(classes).double()
    met = torch.zeros(classes).double()
    for _ in range(6):
        for label in range(classes):
            met[label] = x[label]
            gradient = torch.zeros_like(x)
            gradient[label] = curve[label] * (x[label] - target[label])
            velocity = momentum * velocity + gradient
            x = x - lr * velocity
        before = joint
        joint = joint - joint_rate(lr, momentum) * curve * (joint - target)
    assert ((met - before).abs() / target.abs()).max() < 10 * momentum**classes


def test_pools_are_observed_and_batches_have_no_repetitions() -> None:
    problem = toy_problem(2, network=True)
    pools = observed_pools(problem)
    assert sorted(torch.cat(pools).tolist()) == list(range(len(problem.labels)))
    assert all(bool((problem.labels[pool] == label).all()) for label, pool in enumerate(pools))
    drawn = draw_rows(pools, 8, torch.Generator().manual_seed(0))
    assert [len(rows) for rows in drawn] == [min(8, len(pool)) for pool in pools]
    assert all(len(set(rows.tolist())) == len(rows) for rows in drawn)


def test_first_images_are_real_ones_of_their_class_and_repeat_where_there_are_too_few() -> None:
    problem = toy_problem(2, network=True)
    whole = first_images(problem, SeedTree.root(0), View(), "real")
    for image, label in zip(whole, class_labels(problem), strict=True):
        assert any(torch.equal(image, own) for own in problem.images[problem.labels == label])
    many = dataclasses.replace(problem, ipc=5)
    assert first_images(many, SeedTree.root(0), View(factor=2), "real").shape == (15, 1, 8, 8)
    with pytest.raises(RequestError, match=r"\b10\b"):
        first_images(dataclasses.replace(problem, ipc=10), SeedTree.root(0), View(), "noise")


def test_each_iteration_has_a_new_network() -> None:
    """Without augmentation and with whole classes as batches, the network alone distinguishes two iterations."""
    problem = dataclasses.replace(toy_problem(2, network=True), augment=None)
    method = Dm(DmConfig(iterations=2, batch_real=100, lr_img=1e-30))
    state = method.init(problem, SeedTree.root(0))
    following, first = method.step(state, problem, SeedTree.root(0))
    _, second = method.step(following, problem, SeedTree.root(0))
    assert first.loss != second.loss


def test_momentum_is_that_of_torch() -> None:
    problem = toy_problem(2, network=True)
    config = DmConfig(iterations=3, batch_real=4, lr_img=0.3, momentum=0.5)
    method, seed = Dm(config), SeedTree.root(0)
    state = method.init(problem, seed)
    images = state.images.clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=0.3, momentum=0.5)
    assert problem.network is not None
    for step in range(3):
        own = seed.child("step", step)
        theta = problem.network.fresh(own.child("network").torch())
        found = class_gradient(
            images.detach(), problem, theta, View(), Terms(), observed_pools(problem), 4, own.child("match")
        )
        images.grad = found[1]
        optimizer.step()
        state, _ = method.step(state, problem, seed)
    torch.testing.assert_close(state.images, images.detach())


@pytest.mark.parametrize(
    "bad", [{"iterations": 0}, {"batch_real": 0}, {"lr_img": 0.0}, {"momentum": 1.0}, {"init": "zeros"}]
)
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        DmConfig(**bad)  # type: ignore[arg-type]
