"""The steps against torch's own optimizer, and the losses by hand."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise import Problem, predict
from ddnl_ray.denoise.networks import Network, Sgd, clipped, confidence_penalty, cycled, supervised_epoch
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, generator=generator, dtype=torch.float64)
    leaf = weights.clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=0.1, momentum=0.9, weight_decay=0.01)
    theta, velocity = weights, torch.zeros_like(weights)
    for _ in range(4):
        leaf.grad = torch.randn(5, generator=generator, dtype=torch.float64)
        theta, velocity = Sgd(0.1, 0.9, 0.01).step(theta, velocity, leaf.grad)
        optimizer.step()
    torch.testing.assert_close(theta, leaf.detach())


def test_gradients_are_clipped_as_torch_does_it() -> None:
    gradient = torch.tensor([3.0, 4.0])
    leaf = torch.zeros(2, requires_grad=True)
    leaf.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([leaf], 0.8)
    torch.testing.assert_close(clipped(gradient, 0.8), leaf.grad)
    torch.testing.assert_close(clipped(gradient, 10.0), gradient)
    assert clipped(gradient, None) is gradient


def test_the_confidence_penalty_by_hand() -> None:
    odds = math.log(3)
    found = confidence_penalty(torch.tensor([[odds, 0.0], [0.0, 0.0]], dtype=torch.float64))
    expected = (0.75 * math.log(0.75) + 0.25 * math.log(0.25) + math.log(0.5)) / 2
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_cycled_batches_are_whole_passes() -> None:
    rows = torch.tensor([3, 5, 8, 9, 11])
    batches = cycled(rows, 2, 7, SEED)
    assert [len(batch) for batch in batches] == [2, 2, 1, 2, 2, 1, 2]
    passes = [torch.cat(batches[first : first + 3]) for first in (0, 3)]
    for each in passes:
        assert sorted(each.tolist()) == rows.tolist()
    assert not torch.equal(*passes)
    assert [len(batch) for batch in cycled(rows[:0], 2, 3, SEED)] == [0, 0, 0]


def test_an_epoch_of_one_batch_is_one_step(noisy: tuple[Problem, Tensor]) -> None:
    """Of blank images, which no augmentation changes."""
    problem, _ = noisy
    blank = dataclasses.replace(problem, images=torch.zeros_like(problem.images))
    network = Network(blank)
    theta = network.begin(blank, SEED)
    found, velocity, loss = supervised_epoch(
        network, theta, torch.zeros_like(theta), blank, Sgd(0.1, 0.9, 0.0), 150, SEED, penalise=True, clip=0.01
    )
    leaf = theta.clone().requires_grad_()
    logits = network(leaf, blank.images)
    value = F.cross_entropy(logits, blank.labels) + confidence_penalty(logits)
    (gradient,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(found, theta - 0.1 * gradient * 0.01 / gradient.norm(), rtol=1e-4, atol=1e-7)
    assert abs(loss - value.item()) < 1e-5
    assert velocity.norm().item() < 0.011


def test_predictions_are_of_the_sum_of_logits(noisy: tuple[Problem, Tensor]) -> None:
    problem, _ = noisy
    network = Network(problem)
    thetas = torch.stack([network.begin(problem, SEED.child(index)) for index in range(2)])
    summed = network(thetas[0], problem.images) + network(thetas[1], problem.images)
    assert torch.equal(predict(problem, thetas, problem.images), summed.argmax(1))
    soft = network.ensemble(thetas, problem.images)
    torch.testing.assert_close(soft, sum(network(theta, problem.images).softmax(1) for theta in thetas) / 2)
