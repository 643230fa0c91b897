"""DC and DSA: their contract, the two loops, and the network's training against torch."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional as F

from ddnl_ray.distill import dsa
from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import View, class_labels, observed_pools
from ddnl_ray.distill.dsa import GradientMatching, GradientMatchingConfig, GradientMatchingState
from ddnl_ray.distill.gradients import COSINE, matching_gradient
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import toy_problem

SEED = SeedTree.root(0)


class TestDsa(MethodContract):
    method = GradientMatching
    config = GradientMatchingConfig(iterations=4, outer=3, inner=2, batch_real=4, batch_train=4)


class TestDc(MethodContract):
    method = GradientMatching
    config = GradientMatchingConfig(iterations=3, outer=2, inner=1, batch_real=4, init="noise")

    def problem(self, device: torch.device) -> Problem:
        return dataclasses.replace(super().problem(device), augment=None)


def run(
    config: GradientMatchingConfig, steps: int, problem: Problem | None = None
) -> tuple[list[GradientMatchingState], Problem]:
    problem = problem or toy_problem(2, network=True)
    method = GradientMatching(config)
    states = [method.init(problem, SEED)]
    for _ in range(steps):
        states.append(method.step(states[-1], problem, SEED)[0])
    return states, problem


def is_fresh(theta: torch.Tensor) -> bool:
    """Whether weights are initial ones: those of the normalisation are then all 1."""
    network = toy_problem(2, network=True).network
    assert network is not None
    return bool((network.unflatten(theta)["blocks.0.norm.weight"] == 1).all())


def test_a_network_lives_for_the_outer_updates_and_learns_between_them() -> None:
    states, _ = run(GradientMatchingConfig(outer=3, inner=1, batch_real=4), 7)
    assert [is_fresh(state.theta) for state in states] == [True, False, False, True, False, False, True, False]
    first, second, third = (states[step].theta for step in (0, 3, 6))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_with_one_update_per_network_no_network_learns() -> None:
    states, _ = run(GradientMatchingConfig(outer=1, inner=1, batch_real=4), 3)
    assert all(is_fresh(state.theta) for state in states)
    assert len({tuple(state.theta.tolist()) for state in states}) == 4


def test_without_inner_epochs_the_network_stays_for_its_life() -> None:
    states, _ = run(GradientMatchingConfig(outer=2, inner=0, batch_real=4), 3)
    assert torch.equal(states[0].theta, states[1].theta)
    assert not torch.equal(states[1].theta, states[2].theta)
    assert torch.equal(states[2].theta, states[3].theta)


def test_the_network_learns_from_the_moved_images_as_torch_teaches_it() -> None:
    """One batch holds all images, so that their order does not matter."""
    problem = dataclasses.replace(toy_problem(2, network=True), augment=None)
    config = GradientMatchingConfig(outer=9, inner=5, batch_real=4, lr_img=1.0, lr_net=0.1)
    states, _ = run(config, 1, problem)
    assert problem.network is not None
    module = copy.deepcopy(problem.network.module)
    for parameter, value in zip(module.parameters(), problem.network.unflatten(states[0].theta).values(), strict=True):
        parameter.data.copy_(value)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(module(states[1].images), class_labels(problem)).backward()
        optimizer.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    torch.testing.assert_close(states[1].theta, expected, rtol=1e-4, atol=1e-5)


def test_each_epoch_passes_all_images_once_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = dataclasses.replace(toy_problem(2, network=True), augment=None)
    seen: list[torch.Tensor] = []
    real = dsa.slope

    def watched(network, theta, images, labels, smaller):  # type: ignore[no-untyped-def]
        seen.append(images)
        return real(network, theta, images, labels, smaller)

    monkeypatch.setattr(dsa, "slope", watched)
    states, _ = run(GradientMatchingConfig(outer=9, inner=2, batch_real=4, batch_train=4), 1, problem)
    assert [len(images) for images in seen] == [4, 2, 4, 2]
    for epoch in (torch.cat(seen[:2]), torch.cat(seen[2:])):
        assert sorted(epoch.flatten(1).tolist()) == sorted(states[1].images.flatten(1).tolist())
    assert not torch.equal(torch.cat(seen[:2]), torch.cat(seen[2:]))


def test_images_move_as_torch_moves_them() -> None:
    config = GradientMatchingConfig(outer=2, inner=1, batch_real=4, lr_img=0.3, momentum=0.5)
    states, problem = run(config, 3)
    images = states[0].images.clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=0.3, momentum=0.5)
    for step, state in enumerate(states[:3]):
        seed, pools = SEED.child("step", step).child("match"), observed_pools(problem)
        found = matching_gradient(
            images.detach(), problem, state.theta, View(), COSINE, problem.augment, pools, 4, seed
        )
        images.grad = found[1]
        optimizer.step()
    torch.testing.assert_close(states[3].images, images.detach())


def test_the_augmentation_of_the_problem_makes_dsa_of_dc() -> None:
    """It acts where images are matched, and where the network learns."""
    plain = dataclasses.replace(toy_problem(2, network=True), augment=None)
    config = GradientMatchingConfig(outer=9, inner=1, batch_real=99, lr_img=1e-30)
    first, second = run(config, 1)[0][1], run(config, 1, plain)[0][1]
    assert not torch.equal(first.velocity, second.velocity)
    torch.testing.assert_close(first.images, second.images)
    assert not torch.allclose(first.theta, second.theta)


def test_matching_brings_the_gradients_nearer() -> None:
    """Without augmentation and learning, with whole classes as batches, the objective is one function."""
    problem = dataclasses.replace(toy_problem(2, network=True), augment=None)
    config = GradientMatchingConfig(outer=99, inner=0, batch_real=99, lr_img=0.2, init="noise")
    method, losses = GradientMatching(config), []
    state = method.init(problem, SEED)
    for _ in range(40):
        state, info = method.step(state, problem, SEED)
        losses.append(info.loss)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "bad", [{"iterations": 0}, {"outer": 0}, {"inner": -1}, {"batch_train": 0}, {"lr_net": 0.0}, {"init": "zeros"}]
)
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        GradientMatchingConfig(**bad)  # type: ignore[arg-type]
