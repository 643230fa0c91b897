"""RCIG's closed forms against automatic differentiation, dense algebra and finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, jvp
from torch.nn import functional as F

from ddnl_ray.distill.rcig import readout_weights
from ddnl_ray.distill.rcig_kernel import (
    Outer,
    Support,
    direct_gradient,
    implicit_gradient,
    outer_loss,
    solve_hessian,
    solve_inner,
)
from ddnl_ray.models import DoublingConvNet, Flat, NetworkSpec, build

RIDGE, CLASSES, NUM, REAL = 0.3, 3, 6, 5
RATE = torch.tensor(0.01, dtype=torch.float64)


class Case:
    """A small problem: smooth network, synthetic images X with labels Y, a real batch, a temperature."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        module = build(NetworkSpec("doubling2", 2), (1, 4, 4), CLASSES, generator).double()
        assert isinstance(module, DoublingConvNet)
        self.flat = Flat(module.smoothed(5.0))
        self.theta = self.flat.flatten() + 0.1 * torch.randn(self.flat.num_params, generator=generator).double()
        self.images = torch.randn(NUM, 1, 4, 4, generator=generator).double()
        self.labels = torch.randn(NUM, CLASSES, generator=generator).double()
        self.real = torch.randn(REAL, 1, 4, 4, generator=generator).double()
        self.classes = torch.randint(CLASSES, (REAL,), generator=generator)
        self.temperature = torch.tensor(0.7, dtype=torch.float64)
        self.body = torch.ones(self.flat.num_params).double()
        self.body[readout_weights(self.flat)] = 0

    def support(self, images: Tensor | None = None, labels: Tensor | None = None, memory: int = 0) -> Support:
        x, y = (self.images if images is None else images), (self.labels if labels is None else labels)
        return Support(self.flat, self.theta, x, y, RIDGE, readout_weights(self.flat), memory)

    def jacobian(self, images: Tensor) -> Tensor:
        """[N, classes, P], zero for the linear layer's matrix."""
        found: Tensor = jacrev(lambda weights: self.flat(weights, images))(self.theta)
        return found * self.body

    def inner(self, omega: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The inner loss of the paper with the minimising W put in, by forward mode and dense algebra."""
        found, moved = self.along(omega, images)
        residual = labels - moved
        kernel = found @ found.T + RIDGE * torch.eye(len(images)).double()
        readout = found.T @ torch.linalg.solve(kernel, residual)
        error = (residual - found @ readout).square().sum()
        penalty = RIDGE * (readout.square().sum() + omega.square().sum())
        return 0.5 * (error + penalty) / labels.numel()

    def along(self, omega: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        def outputs(weights: Tensor) -> tuple[Tensor, Tensor]:
            found = self.flat.outputs(weights, images)
            return found.logits, found.features

        _, moved, features = jvp(outputs, (self.theta,), (omega * self.body,), has_aux=True)
        return features, moved

    def outer(self, omega: Tensor, images: Tensor, labels: Tensor, temperature: Tensor) -> Tensor:
        found, moved = self.along(omega, images)
        features, own = self.along(omega, self.real)
        kernel = found @ found.T + RIDGE * torch.eye(len(images)).double()
        predicted = own + features @ found.T @ torch.linalg.solve(kernel, labels - moved)
        return F.cross_entropy(temperature.exp() * predicted, self.classes)

    def best(self, images: Tensor, labels: Tensor) -> Tensor:
        """The inner solution by dense normal equations in all C N dimensions (differentiable)."""
        found = self.flat.outputs(self.theta, images).features
        kernel = found @ found.T + RIDGE * torch.eye(len(images)).double()
        matrix = self.jacobian(images).flatten(0, 1)
        system = matrix @ matrix.T + torch.kron(kernel, torch.eye(CLASSES).double())
        return matrix.T @ torch.linalg.solve(system, labels.flatten())


@pytest.fixture
def case() -> Case:
    return Case()


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max() + 1e-30))


@pytest.mark.parametrize("memory", [0, 2**30])
def test_the_inner_loss_gradient_and_hessian_are_those_of_the_paper(case: Case, memory: int) -> None:
    support = case.support(memory=memory)
    generator = torch.Generator().manual_seed(1)
    omega, vector = 0.1 * torch.randn(2, case.flat.num_params, generator=generator).double() * case.body

    def loss(w: Tensor) -> Tensor:
        return case.inner(w, case.images, case.labels)

    value, gradient = support.inner(omega)
    leaf = omega.clone().requires_grad_()
    close(value, loss(omega))
    (expected,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    close(gradient, expected.detach())
    (product,) = torch.autograd.grad(expected @ vector, leaf)
    close(support.hessian(vector), product)


def test_the_solve_is_ridge_regression_in_weight_space(case: Case) -> None:
    """The minimiser over W of ``|R - h W|^2 + lam |W|^2`` by the normal equations of the features."""
    support, rows = case.support(), case.labels
    h = case.flat.outputs(case.theta, case.images).features
    readout = torch.linalg.solve(h.T @ h + RIDGE * torch.eye(h.shape[1]).double(), h.T @ rows)
    close(h.T @ support.solve(rows), readout)


def test_the_exact_solutions_are_those_of_dense_algebra(case: Case) -> None:
    support = case.support()
    omega, losses = solve_inner(support, RATE, 0, exact=True)
    close(omega, case.best(case.images, case.labels), 1e-3)
    assert float(losses[1]) < float(losses[0])
    gradient = torch.randn(case.flat.num_params, generator=torch.Generator().manual_seed(1)).double() * case.body
    found, _ = solve_hessian(support, gradient, RATE, 0, exact=True)
    close(support.hessian(found), gradient, 1e-3)


def test_adam_descends_towards_them(case: Case) -> None:
    support = case.support()
    omega, losses = solve_inner(support, RATE, 200)
    exact = solve_inner(support, RATE, 0, exact=True)[1]
    assert losses.shape == (200,)
    assert float(exact[1]) < float(losses[-1]) < float(exact[0])
    assert float((losses[-1] - exact[1]) / (exact[0] - exact[1])) < 0.05
    assert bool((omega[readout_weights(case.flat)] == 0).all())


def outer_of(case: Case, support: Support, omega: Tensor, frozen: bool = True) -> Outer:
    return outer_loss(support, omega, case.temperature, case.real, case.classes, frozen)


def test_the_direct_gradients_are_those_of_automatic_differentiation(case: Case) -> None:
    support = case.support()
    omega = 0.3 * case.best(case.images, case.labels).detach()
    outer = outer_of(case, support, omega)
    leaves = [each.clone().requires_grad_() for each in (omega, case.images, case.labels, case.temperature)]
    loss = case.outer(*leaves)
    by_omega, by_images, by_labels, by_temperature = torch.autograd.grad(loss, leaves)
    images, labels = direct_gradient(support, omega, outer)
    close(outer.loss, loss.detach())
    close(outer.omega, by_omega)
    close(outer.temperature, by_temperature)
    close(images, by_images)
    close(labels, by_labels)


def test_the_implicit_term_is_that_of_nested_differentiation(case: Case) -> None:
    """``-d/d psi <xi, gradient of the inner loss>`` at a point that is not its minimum."""
    support = case.support()
    generator = torch.Generator().manual_seed(2)
    omega, xi = torch.randn(2, case.flat.num_params, generator=generator).double() * case.body
    leaves = [each.clone().requires_grad_() for each in (omega, case.images, case.labels)]
    (slope,) = torch.autograd.grad(case.inner(*leaves), leaves[0], create_graph=True)
    by_images, by_labels = torch.autograd.grad(-(slope @ xi), leaves[1:])
    images, labels = implicit_gradient(support, omega, xi, outer_of(case, support, omega))
    close(images, by_images)
    close(labels, by_labels)


def meta_gradient(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by X and Y at the exact inner solution, and the direct one by X."""
    support = case.support()
    omega = case.best(case.images, case.labels).detach()
    outer = outer_of(case, support, omega)
    columns = torch.stack([support.hessian(unit) for unit in torch.eye(len(omega)).double()], dim=1)
    xi = torch.linalg.solve(columns, outer.omega)
    direct, implicit = direct_gradient(support, omega, outer), implicit_gradient(support, omega, xi, outer)
    return direct[0] + implicit[0], direct[1] + implicit[1], direct[0]


def test_the_meta_gradient_is_that_through_the_closed_form_solution(case: Case) -> None:
    """Brute force: the inner solution by dense algebra, differentiated by autograd."""
    leaves = [each.clone().requires_grad_() for each in (case.images, case.labels)]
    total = case.outer(case.best(*leaves), *leaves, case.temperature)
    by_images, by_labels = torch.autograd.grad(total, leaves)
    images, labels, direct = meta_gradient(case)
    close(images, by_images, 1e-8)
    close(labels, by_labels, 1e-8)
    assert float((direct - by_images).norm() / by_images.norm()) > 0.05


def test_the_meta_gradient_is_that_of_finite_differences(case: Case) -> None:
    images, labels, _ = meta_gradient(case)
    generator = torch.Generator().manual_seed(4)
    move_x, move_y = (torch.randn(each.shape, generator=generator).double() for each in (case.images, case.labels))

    def value(step: float) -> float:
        x, y = case.images + step * move_x, case.labels + step * move_y
        return float(case.outer(case.best(x, y), x, y, case.temperature))

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    assert float((images * move_x).sum() + (labels * move_y).sum()) == pytest.approx(slope, rel=1e-6)


def test_the_released_system_is_over_the_linear_layer_too(case: Case) -> None:
    """Its operator is ``s (1 + J^T A J)`` with the features among the columns of J; the body's block is the same."""
    support, readout = case.support(), readout_weights(case.flat)
    omega = 0.3 * case.best(case.images, case.labels).detach()
    exact, released = outer_of(case, support, omega), outer_of(case, support, omega, frozen=False)
    close(released.omega * case.body, exact.omega)
    h = support.features
    expected = case.flat.outputs(case.theta, case.real).features.T @ error_of(case, omega) - h.T @ exact.labels
    close(released.omega[readout].view(CLASSES, -1).T, expected)
    vector = torch.randn(case.flat.num_params, generator=torch.Generator().manual_seed(1)).double()
    matrix = jacrev(lambda weights: case.flat(weights, case.images))(case.theta)
    inside = support.solve(matrix @ vector)
    close(support.hessian(vector, frozen=False), support.scale * (vector + torch.einsum("ncp,nc->p", matrix, inside)))
    close(support.hessian(vector * case.body), support.scale * case.body * (
        vector + torch.einsum("ncp,nc->p", matrix, support.solve(matrix @ (vector * case.body)))
    ))  # fmt: skip
    found, _ = solve_hessian(support, released.omega, RATE, 50, frozen=False)
    kept, _ = solve_hessian(support, exact.omega, RATE, 50)
    assert bool((kept[readout] == 0).all())
    assert float(found[readout].abs().max()) > 0


def error_of(case: Case, omega: Tensor) -> Tensor:
    """The derivative of the cross-entropy by the predictions."""
    found, moved = case.along(omega, case.images)
    features, own = case.along(omega, case.real)
    kernel = found @ found.T + RIDGE * torch.eye(NUM).double()
    predicted = own + features @ found.T @ torch.linalg.solve(kernel, case.labels - moved)
    leaf = predicted.detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(case.temperature.exp() * leaf, case.classes), leaf)
    return slope


def test_a_kernel_that_is_not_finite_gives_no_numbers(case: Case) -> None:
    broken = case.images.clone()
    broken[0] = torch.nan
    assert bool(case.support(broken).solve(case.labels).isnan().all())
