"""GSAM against an independent reference on parameter lists, its limits, and a case worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from ddnl_ray.experts.gsam import gsam_direction, loss_and_gradient

Loss = Callable[[Tensor], Tensor]


def direction_at(loss: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float) -> tuple[Tensor, Tensor]:
    return gsam_direction(partial(loss_and_gradient, loss), theta, rho, alpha)


def problem(seed: int = 0) -> tuple[Loss, Tensor]:
    """A two-layer network's loss as a function of flat float64 weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (16,), generator=generator)
    theta = torch.randn(3 * 5 + 5 * 4, generator=generator, dtype=torch.float64)

    def loss(weights: Tensor) -> Tensor:
        hidden = torch.tanh(x @ weights[:15].view(3, 5))
        return torch.nn.functional.cross_entropy(hidden @ weights[15:].view(5, 4), y)

    return loss, theta


def reference(loss: Loss, theta: Tensor, rho: float, alpha: float) -> Tensor:
    """The published steps on a list of parameters: sums over tensors, and the weights moved and moved back."""
    weights = [theta[:15].clone().requires_grad_(), theta[15:].clone().requires_grad_()]

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(loss(torch.cat(weights)), weights))

    old = gradients()
    norm = sum(float((w.detach().abs() * g).square().sum()) for w, g in zip(weights, old, strict=True)) ** 0.5
    steps = [rho * w.detach() ** 2 * g / (norm + 1e-12) for w, g in zip(weights, old, strict=True)]
    with torch.no_grad():
        for w, step in zip(weights, steps, strict=True):
            w.add_(step)
    new = gradients()
    inner = sum(float((a * b).sum()) for a, b in zip(old, new, strict=True))
    old_norm = sum(float(g.square().sum()) for g in old) ** 0.5
    new_norm = sum(float(g.square().sum()) for g in new) ** 0.5
    cosine = inner / (old_norm * new_norm)
    directions = [b - alpha * (a - cosine * old_norm * b / new_norm) for a, b in zip(old, new, strict=True)]
    return torch.cat(directions)


@pytest.mark.parametrize("rho", [0.01, 0.5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_equals_the_reference(rho: float, alpha: float) -> None:
    for seed in range(3):
        loss, theta = problem(seed)
        _, direction = direction_at(loss, theta, rho, alpha)
        torch.testing.assert_close(direction, reference(loss, theta, rho, alpha), rtol=1e-9, atol=1e-12)


def test_each_expert_has_norms_of_its_own() -> None:
    problems = [problem(seed) for seed in range(3)]

    def losses(theta: Tensor) -> Tensor:
        return torch.stack([loss(own) for (loss, _), own in zip(problems, theta, strict=True)])

    values, directions = direction_at(losses, torch.stack([theta for _, theta in problems]), 0.5, 0.3)
    for value, direction, (loss, theta) in zip(values, directions, problems, strict=True):
        alone = direction_at(loss, theta, 0.5, 0.3)
        torch.testing.assert_close((value, direction), alone, rtol=1e-12, atol=1e-14)


def test_by_hand() -> None:
    """Loss (a^2 + 3 b^2)/2 at (1, 2): g = (1, 6), |theta| g = (1, 12), so e = rho (1, 24) / sqrt(145)."""
    rho, alpha = 145**0.5, 0.5

    def loss(theta: Tensor) -> Tensor:
        return (theta[0] ** 2 + 3 * theta[1] ** 2) / 2

    value, direction = direction_at(loss, torch.tensor([1.0, 2.0], dtype=torch.float64), rho, alpha)
    assert float(value) == 6.5
    # theta + e = (2, 26), g' = (2, 78); <g, g'> / |g'|^2 = 470 / 6088; v = g - 470/6088 g'.
    expected = [2 - alpha * (1 - 470 / 6088 * 2), 78 - alpha * (6 - 470 / 6088 * 78)]
    torch.testing.assert_close(direction, torch.tensor(expected, dtype=torch.float64))


def test_alpha_zero_is_sharpness_aware_minimisation() -> None:
    loss, theta = problem()
    _, gradient = loss_and_gradient(loss, theta)
    step = 0.05 * theta**2 * gradient / (theta.abs() * gradient).norm()
    _, expected = loss_and_gradient(loss, theta + step)
    torch.testing.assert_close(direction_at(loss, theta, 0.05, 0.0)[1], expected, rtol=1e-9, atol=1e-12)
    assert (expected - gradient).norm() > 1e-3 * gradient.norm()


def test_the_orthogonal_part_is_orthogonal() -> None:
    loss, theta = problem()
    sharp, tilted = (direction_at(loss, theta, 0.5, alpha)[1] for alpha in (0.0, 1.0))
    orthogonal = sharp - tilted
    assert orthogonal.norm() > 1e-3 * sharp.norm()
    assert abs(float(orthogonal @ sharp)) < 1e-10 * float(orthogonal.norm() * sharp.norm())


def test_a_vanishing_radius_is_plain_gradient_descent() -> None:
    loss, theta = problem()
    _, gradient = loss_and_gradient(loss, theta)
    gaps = [float((direction_at(loss, theta, rho, 0.3)[1] - gradient).norm()) for rho in (1e-3, 1e-6, 0.0)]
    assert gaps[0] > 100 * gaps[1] > gaps[2]
    assert gaps[2] < 1e-9 * float(gradient.norm())


def test_a_vanishing_gradient_gives_no_nan() -> None:
    value, direction = direction_at(lambda theta: (theta * 0).sum(), torch.ones(3), 0.01, 0.3)
    assert float(value) == 0
    assert torch.equal(direction, torch.zeros(3))


def test_results_are_detached_and_the_weights_untouched() -> None:
    loss, theta = problem()
    before = theta.clone()
    with torch.no_grad():
        value, direction = direction_at(loss, theta, 0.01, 0.3)
    assert not value.requires_grad
    assert not direction.requires_grad
    assert not theta.requires_grad
    assert torch.equal(theta, before)
