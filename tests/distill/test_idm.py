"""IDM: its contract, its queue, its meters, and one iteration by hand in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import Terms, View, class_gradient, observed_pools
from ddnl_ray.distill.idm import Idm, IdmConfig, IdmState
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import CLASSES, toy_problem

SMALL = {
    "batch_real": 4,
    "batch_train": 5,
    "model_train_steps": 2,
    "net_num": 5,
    "net_generate_interval": 2,
}


class TestIdm(MethodContract):
    method = Idm
    config = IdmConfig(iterations=4, **SMALL)  # type: ignore[arg-type]


def run(config: IdmConfig, steps: int, problem: Problem | None = None) -> list[IdmState]:
    problem = problem or toy_problem(1, network=True)
    method, seed = Idm(config), SeedTree.root(0)
    states = [method.init(problem, seed)]
    for _ in range(steps):
        states.append(method.step(states[-1], problem, seed)[0])
    return states


def test_the_queue_grows_every_interval_and_then_loses_its_oldest() -> None:
    config = IdmConfig(net_num=6, net_generate_interval=3, model_train_steps=0, batch_real=2)
    states = run(config, 13)
    assert [len(state.networks) for state in states] == [3] + [4] * 3 + [5] * 3 + [6] * 7
    before, after = states[9].networks, states[10].networks
    assert torch.equal(after[:-1], before[1:])
    assert not torch.equal(after[-1], before[-1])


def test_at_the_published_setting_the_queue_is_full_after_2880_iterations() -> None:
    config = IdmConfig()
    pushes = sum(1 for iteration in range(2881) if iteration % config.net_generate_interval == 0)
    assert config.first_networks + pushes == 100
    assert config.first_networks + sum(1 for i in range(1) if i % config.net_generate_interval == 0) == 4


def test_meters_count_in_percent_and_start_again_when_told() -> None:
    config = IdmConfig(**{**SMALL, "meter_reset_interval": 3, "fetch_net_num": 9})  # type: ignore[arg-type]
    states = run(config, 4)
    assert states[0].accuracies.tolist() == [0.0] * 3
    assert states[3].seen[0] == 3 * 2 * 5
    assert states[4].seen[0] == 2 * 5
    assert 0 <= float(states[3].accuracies.min()) <= float(states[3].accuracies.max()) <= 100
    state = dataclasses.replace(states[3], correct=torch.tensor([3]), seen=torch.tensor([12]))
    assert state.accuracies.tolist() == [25.0]


def test_as_many_networks_learn_as_are_fetched() -> None:
    config = IdmConfig(**{**SMALL, "fetch_net_num": 2, "net_generate_interval": 100})  # type: ignore[arg-type]
    first, second = run(config, 2)[1:]
    assert (second.seen - first.seen).count_nonzero() == 2
    assert (second.networks != first.networks).any(1).sum() == 2


def test_networks_learn_as_torch_teaches_them() -> None:
    """One network that sees all images in every batch: the order within a batch does not matter."""
    problem = toy_problem(1, network=True)
    config = IdmConfig(first_networks=0, net_generate_interval=9, model_train_steps=3, batch_train=99, lr_net=0.1)
    state = run(config, 1, problem)[1]
    assert problem.network is not None
    own = SeedTree.root(0).child("step", 0).child("network")
    theta = problem.network.fresh(own.torch())
    module = problem.network.module
    for parameter, value in zip(module.parameters(), problem.network.unflatten(theta).values(), strict=True):
        parameter.data.copy_(value)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    right = 0
    for _ in range(3):
        optimizer.zero_grad()
        logits = module(problem.images)
        right += int((logits.argmax(1) == problem.labels).sum())
        F.cross_entropy(logits, problem.labels).backward()
        optimizer.step()
    torch.testing.assert_close(state.networks[0], problem.network.flatten(), rtol=1e-4, atol=1e-5)
    assert (int(state.correct[0]), int(state.seen[0])) == (right, 3 * len(problem.labels))


def test_images_move_by_the_accuracy_weighted_objective() -> None:
    """The second step, whose chosen network has been trained, with the published 2 x lr of a sweep with momentum."""
    problem = toy_problem(2, network=True)
    config = IdmConfig(first_networks=0, net_generate_interval=9, lr_img=0.3, ce_weight=0.5, **{
        "batch_real": 4, "batch_train": 5, "model_train_steps": 2,
    })  # fmt: skip
    state, after = run(config, 2, problem)[1:]
    weight = 0.5 * 100 * int(state.correct[0]) / int(state.seen[0])
    assert weight > 0
    seed = SeedTree.root(0).child("step", 1).child("match", 0)
    _, gradient = class_gradient(
        state.images, problem, state.networks[0], View(2), Terms(1.0, weight), observed_pools(problem), 4, seed
    )
    torch.testing.assert_close(after.images, state.images - 2 * 0.3 * gradient)


def test_the_set_holds_four_training_images_for_the_storage_of_one() -> None:
    problem = toy_problem(2, network=True)
    method = Idm(IdmConfig(**SMALL))  # type: ignore[arg-type]
    kept = method.export(method.init(problem, SeedTree.root(0)), problem)
    assert kept.images.shape == (CLASSES * 2, 1, 8, 8)
    assert kept.decoded().images.shape == (CLASSES * 8, 1, 8, 8)
    assert kept.decoded().labels.bincount().tolist() == [8] * CLASSES


@pytest.mark.parametrize(
    "bad", [{"factor": 0}, {"ce_weight": -1.0}, {"lr_net": 0.0}, {"net_momentum": 1.0}, {"fetch_net_num": 0}]
)
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        IdmConfig(**bad)  # type: ignore[arg-type]
