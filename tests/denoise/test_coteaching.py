"""Co-teaching: its schedules, who learns from whom, Adam against torch's, and that the labels get better."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise import Problem, clean
from ddnl_ray.denoise.coteaching import Coteaching, CoteachingConfig, adam, small_loss_of_class, smallest, teach
from ddnl_ray.denoise.networks import Network
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def test_what_is_forgotten_follows_the_code() -> None:
    config = CoteachingConfig(forget_rate=0.45)
    schedule = np.full(200, 0.45)
    schedule[:10] = np.linspace(0, 0.45, 10)
    np.testing.assert_allclose([config.forgotten(epoch) for epoch in range(1, 200)], schedule[1:])
    assert CoteachingConfig(forget_rate=0.25, exponent=0.5).forgotten(50) == 0.5
    assert CoteachingConfig(forget_rate=0.25, ramp=1).forgotten(1) == 0.25


def test_learning_rates_and_betas_follow_the_code() -> None:
    config = CoteachingConfig(forget_rate=0.2)
    rates, betas = np.full(200, 1e-3), np.full(200, 0.9)
    rates[80:] = [(200 - epoch) / 120 * 1e-3 for epoch in range(80, 200)]
    betas[80:] = 0.1
    found = [config.adam(epoch) for epoch in range(1, 200)]
    np.testing.assert_allclose([rate for rate, _ in found], rates[1:])
    np.testing.assert_allclose([beta for _, beta in found], betas[1:])


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    leaf = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()
    theta, first, second = leaf.detach().clone(), torch.zeros(4).double(), torch.zeros(4).double()
    optimizer = torch.optim.Adam([leaf], lr=0.01)
    for step in range(1, 7):
        beta = 0.9 if step < 4 else 0.1
        optimizer.param_groups[0]["betas"] = (beta, 0.999)
        leaf.grad = torch.randn(4, generator=generator, dtype=torch.float64)
        theta, first, second = adam(theta, first, second, leaf.grad, step, 0.01, beta)
        optimizer.step()
    torch.testing.assert_close(theta, leaf.detach())


@pytest.mark.parametrize(("share", "expected"), [(0.0, [1, 3, 0, 2]), (0.5, [1, 3]), (0.3, [1, 3]), (0.99, [1])])
def test_the_smallest_losses_are_kept(share: float, expected: list[int]) -> None:
    assert smallest(torch.tensor([2.0, 0.5, 3.0, 1.0]), share).tolist() == expected


def test_each_network_learns_what_the_other_finds_easy(noisy: tuple[Problem, Tensor]) -> None:
    problem, _ = noisy
    network = Network(problem)
    weights = torch.stack([network.begin(problem, SEED.child(index)) for index in range(2)]).double()
    images, labels = problem.images[:10].double(), problem.labels[:10]
    found, gradient = teach(network, weights, images, labels, 0.4)
    leaves = [theta.clone().requires_grad_() for theta in weights]
    losses = [F.cross_entropy(network(leaf, images), labels, reduction="none") for leaf in leaves]
    order = [own.argsort()[:6] for own in losses]
    assert set(order[0].tolist()) != set(order[1].tolist())
    for index in range(2):
        expected = losses[index][order[1 - index]].mean()
        torch.testing.assert_close(found[index], expected.detach())
        torch.testing.assert_close(gradient[index], torch.autograd.grad(expected, leaves[index])[0])


def test_credible_labels_are_chosen_class_by_class() -> None:
    confidence = torch.tensor([0.9, 0.2, 0.1, 0.05, 0.8, 0.7])
    labels = torch.tensor([0, 0, 1, 1, 0, 0])
    found = small_loss_of_class(confidence, labels, 3, 0.5)
    assert found.tolist() == [True, False, True, False, True, False]


def test_labels_get_better(noisy: tuple[Problem, Tensor]) -> None:
    problem, truth = noisy
    config = CoteachingConfig(forget_rate=0.3, epochs=30, decay_start=20, batch_size=32, lr=0.01)
    found = clean(Coteaching(config), problem, SEED)
    wrong = problem.labels != truth
    assert (found.hard == truth).float().mean() > 0.95
    assert found.confidence[~wrong].mean() > 0.5 + found.confidence[wrong].mean()
