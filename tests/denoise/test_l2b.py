"""L2B: its weights against differentiation through the virtual step, and the step that they make."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise import Known, Problem
from ddnl_ray.denoise.dividemix import divide
from ddnl_ray.denoise.l2b import L2B, L2bConfig, both_losses, loss_weights
from ddnl_ray.denoise.networks import Network, Sgd, clipped
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)
OPTIMIZER = Sgd(0.05, 0.9, 0.01)


@pytest.fixture
def network(noisy: tuple[Problem, Tensor]) -> Network:
    return Network(noisy[0])


@pytest.fixture
def theta(network: Network, noisy: tuple[Problem, Tensor]) -> Tensor:
    return network.begin(noisy[0], SEED).double()


@pytest.fixture
def problem(noisy: tuple[Problem, Tensor]) -> Problem:
    return dataclasses.replace(noisy[0], images=noisy[0].images.double())


def unrolled(network: Network, theta: Tensor, velocity: Tensor, problem: Problem, targets: Tensor) -> Tensor:
    """The weights from the derivative through a step of SGD with momentum and decay, in the perturbations at 0."""
    leaf = theta.clone().requires_grad_()
    losses = both_losses(network, leaf, problem.images[:9], targets)
    shares = torch.zeros(18, dtype=theta.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad((shares * losses).sum(), leaf, create_graph=True)
    ahead = leaf - 0.05 * (0.9 * velocity + gradient + 0.01 * leaf)
    meta = F.cross_entropy(network(ahead, problem.images[9:30]), problem.labels[9:30])
    (slope,) = torch.autograd.grad(meta, shares)
    kept = (-slope).clamp_min(0)
    return kept / (kept.sum() + 1e-10)


def test_weights_are_those_of_differentiating_through_the_step(
    network: Network, theta: Tensor, problem: Problem
) -> None:
    generator = torch.Generator().manual_seed(2)
    velocity = torch.randn(len(theta), generator=generator, dtype=theta.dtype)
    targets = torch.rand(9, 3, generator=generator, dtype=theta.dtype).softmax(1)
    found = loss_weights(
        lambda weights: both_losses(network, weights, problem.images[:9], targets),
        lambda weights: F.cross_entropy(network(weights, problem.images[9:30]), problem.labels[9:30]),
        theta,
        velocity,
        OPTIMIZER,
    )
    torch.testing.assert_close(found, unrolled(network, theta, velocity, problem, targets), rtol=1e-6, atol=1e-12)
    assert 0 < (found > 0).sum() < 18
    assert float(found.sum()) == pytest.approx(1)


def test_losses_that_would_all_raise_the_meta_loss_have_no_weight() -> None:
    theta = torch.tensor([1.0, 2.0])
    found = loss_weights(lambda w: torch.stack([-w.sum(), -w[0]]), lambda w: w.sum(), theta, theta * 0, OPTIMIZER)
    assert found.tolist() == [0, 0]


def test_weights_by_hand() -> None:
    """Along the meta gradient (1, 1) the losses rise by 1, 3 and -2."""
    theta = torch.tensor([1.0, 2.0])
    losses = lambda w: torch.stack([w[0], w[0] + 2 * w[1], -2 * w[1]])  # noqa: E731
    found = loss_weights(losses, lambda w: w.sum(), theta, torch.zeros(2), OPTIMIZER)
    assert found.tolist() == pytest.approx([0.25, 0.75, 0])


def test_both_losses_by_hand(network: Network, theta: Tensor, problem: Problem) -> None:
    targets = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    logs = network(theta, problem.images[:5]).log_softmax(1)
    expected = torch.cat([-(targets * logs).sum(1), -logs.max(1).values])
    torch.testing.assert_close(both_losses(network, theta, problem.images[:5], targets), expected)


def test_only_the_first_network_takes_the_weighted_step(network: Network, theta: Tensor, problem: Problem) -> None:
    cleaner = L2B(L2bConfig(meta_batch=10, clip=0.05, lr=0.05))
    division = divide(torch.linspace(0, 1, 150, dtype=torch.float64), 0.5)
    views, velocity = problem.images[:12], torch.full_like(theta, 0.1)
    targets = F.one_hot(problem.labels[:12], 3).double()
    arguments = (0, theta, velocity, views, targets, division, problem, network, SEED)
    second = cleaner.after(1, *arguments)
    assert second[0] is theta
    found, momentum = cleaner.after(0, *arguments)
    images, labels = cleaner._meta_batch(division, problem, SEED.child("meta").torch())
    shares = loss_weights(
        lambda weights: both_losses(network, weights, views, targets),
        lambda weights: F.cross_entropy(network(weights, images), labels),
        theta,
        velocity,
        cleaner.config.optimizer(0),
    )
    leaf = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((shares * both_losses(network, leaf, views, targets)).sum(), leaf)
    assert gradient.norm() > 0.05
    expected = 0.9 * velocity + clipped(gradient, 0.05) + 5e-4 * theta
    torch.testing.assert_close(momentum, expected)
    torch.testing.assert_close(found, theta - 0.05 * expected)


def test_meta_batches_are_of_trusted_labels_or_of_true_ones(problem: Problem) -> None:
    trusted = divide(torch.linspace(0, 1, 150, dtype=torch.float64), 0.9)
    known = dataclasses.replace(problem, known=Known(torch.tensor([3, 4, 5]), torch.tensor([2, 1, 0])))

    def rows(images: Tensor) -> list[int]:
        return [int((known.images == image).flatten(1).all(1).nonzero()) for image in images]

    images, labels = L2B(L2bConfig(meta_batch=8))._meta_batch(trusted, known, torch.Generator().manual_seed(0))
    found = rows(images)
    assert len(set(found)) == 8
    assert all(trusted.trusted[row] for row in found)
    assert labels.tolist() == known.labels[found].tolist()
    images, labels = L2B(L2bConfig(meta="known"))._meta_batch(trusted, known, torch.Generator().manual_seed(0))
    assert dict(zip(rows(images), labels.tolist(), strict=True)) == {3: 2, 4: 1, 5: 0}
