"""The closed forms of RCIG: an inner problem that is a convex quadratic, and the gradient through its solution.

Symbols (Loo et al. 2023; N images X with labels Y in C columns, B real images x): ``h`` features, ``J`` the Jacobian of
the logits with respect to the weights at the pool network's own, ``omega`` a move of these weights, ``lam`` the ridge,
``A = (h h^T + lam I)^-1``. The linear layer is always solved for, so that the linearised network, without its value at
the start, is ``p(x) = J(x) omega + h(x) h^T A (Y - J omega)`` and, with ``R = Y - J omega`` and ``s = lam / (N C)``,

    loss(omega) = s / 2 (<R, A R> + |omega|^2)
    gradient    = s (omega - J^T A R)
    H v         = s (v + J^T A J v)

The outer loss is the cross-entropy of ``exp(t) p(x)``. With ``delta`` its derivative by ``p``, ``alpha = A R`` and
``gamma = A h h(x)^T delta``, its derivatives at fixed omega are

    by omega:  g = J(x)^T delta - J^T gamma
    by Y:      gamma        by J omega:  -gamma
    by h:      alpha (h(x)^T delta)^T - (gamma alpha^T + alpha gamma^T) h

and what omega adds by moving with X and Y is the derivative of ``s <J xi, A R>`` with ``H xi = g``: with
``kappa = A J xi``

    by Y:      s kappa      by J omega:  -s kappa      by J xi:  s alpha
    by h:      -s (kappa alpha^T + alpha kappa^T) h

What is left for automatic differentiation is one pass from ``h``, ``J omega`` and ``J xi`` back to X.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.distill.linearised import Linearised, along, back, images_gradient, parts_of
from ddnl_ray.distill.moments import Adam, Moments
from ddnl_ray.models import Flat

CG_STEPS, CG_TOLERANCE = 100, 1e-4


class Support:
    """The synthetic set under one network: the inner problem.

    Args:
        network: The network.
        theta: Its weights [P].
        images: X [N, C, H, W].
        labels: Y [N, classes].
        ridge: ``lam``.
        frozen: Which weights ``omega`` never moves, as a slice of P.
        memory: Bytes for kept tapes.
        smaller: How often the work ran out of memory.

    Attributes:
        scale: ``lam / (N C)``.
    """

    def __init__(
        self,
        network: Flat,
        theta: Tensor,
        images: Tensor,
        labels: Tensor,
        ridge: float,
        frozen: slice,
        memory: int = 0,
        smaller: int = 0,
    ) -> None:
        self.network, self.theta, self.images, self.labels = network, theta, images, labels
        self.frozen, self.smaller = frozen, smaller
        self._jacobian = Linearised(network, theta, images, memory, smaller)
        self.features = self._jacobian.features
        self.scale = ridge / labels.numel()
        wide = self.features.double()
        kernel = wide @ wide.T
        kernel.diagonal().add_(ridge)
        self._kernel = kernel
        factor, failed = torch.linalg.cholesky_ex(kernel)
        self._factor = torch.where(failed == 0, factor, torch.nan)

    def solve(self, rows: Tensor) -> Tensor:
        """Return ``A`` times [N, k], computed in float64."""
        return torch.cholesky_solve(rows.double(), self._factor).to(rows.dtype)

    def push(self, vector: Tensor) -> Tensor:
        """Return ``J v`` [N, classes]."""
        return self._jacobian.push(vector)

    def pull(self, cotangent: Tensor, frozen: bool = True) -> Tensor:
        """Return ``J^T c`` [P], 0 for the frozen weights unless told otherwise."""
        found = self._jacobian.pull(cotangent)
        if frozen:
            found[self.frozen] = 0
        return found

    def inner(self, omega: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inner loss (float64) and its gradient [P]."""
        residual = self.labels - self.push(omega)
        alpha = self.solve(residual)
        value = 0.5 * self.scale * (_dot(residual, alpha) + _dot(omega, omega))
        return value, self.scale * (omega - self.pull(alpha))

    def hessian(self, vector: Tensor, frozen: bool = True) -> Tensor:
        """Return ``H v`` [P]; without ``frozen`` that of all weights."""
        return self.scale * (vector + self.pull(self.solve(self.push(vector)), frozen))

    def dual(self, rows: Tensor, frozen: bool = True) -> Tensor:
        """Return ``u`` [N, classes] with ``(J J^T + h h^T + lam I) u = rows``, by conjugate gradients."""

        def product(u: Tensor) -> Tensor:
            return self.push(self.pull(u, frozen)) + (self._kernel @ u.double()).to(u.dtype)

        return _conjugate_gradients(product, rows)


def descend(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, lr: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return where Adam ends, and the objective before every step [steps].

    Args:
        objective: Maps a point to its value and gradient.
        start: First point.
        lr: Learning rate, scalar.
        steps: How many.
    """
    adam, moments, x = Adam(lr.to(start.dtype)), Moments(torch.zeros_like(start), torch.zeros_like(start)), start
    values = []
    for taken in range(steps):
        value, gradient = objective(x)
        values.append(value)
        x, moments = adam.step(x, moments, gradient, taken)
    return x, torch.stack(values)


def solve_inner(support: Support, lr: Tensor, steps: int, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Return ``omega`` [P] and the inner losses on the way (of an exact solution: the first and the last)."""
    start = torch.zeros_like(support.theta)
    if not exact:
        return descend(support.inner, start, lr, steps)
    omega = support.pull(support.dual(support.labels))
    return omega, torch.stack([support.inner(start)[0], support.inner(omega)[0]])


def solve_hessian(
    support: Support, gradient: Tensor, lr: Tensor, steps: int, exact: bool = False, frozen: bool = True
) -> tuple[Tensor, Tensor]:
    """Return ``xi`` [P] with ``H xi = g``, and ``<xi, H xi - 2 g>`` on the way.

    Args:
        support: The inner problem.
        gradient: ``g`` [P].
        lr: Learning rate of Adam.
        steps: Its steps.
        exact: Whether to solve by conjugate gradients instead.
        frozen: Whether the frozen weights stay out of the system.
    """

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        product = support.hessian(x, frozen)
        return _dot(x, product - 2 * gradient), product - gradient

    if not exact:
        return descend(objective, torch.zeros_like(gradient), lr, steps)
    dual = support.dual(support.push(gradient), frozen)
    found = (gradient - support.pull(dual, frozen)) / support.scale
    return found, torch.stack([torch.zeros_like(objective(found)[0]), objective(found)[0]])


@dataclass(frozen=True)
class Outer:
    """The outer loss at a fixed ``omega``, and its derivatives.

    Attributes:
        loss: Mean cross-entropy of the real batch, scalar.
        temperature: Derivative by ``t``, scalar.
        omega: ``g`` [P].
        labels: By Y [N, classes].
        features: By h [N, F].
        alpha: ``A R`` [N, classes].
    """

    loss: Tensor
    temperature: Tensor
    omega: Tensor
    labels: Tensor
    features: Tensor
    alpha: Tensor


def outer_loss(
    support: Support, omega: Tensor, temperature: Tensor, images: Tensor, labels: Tensor, frozen: bool = True
) -> Outer:
    """Return the Platt-scaled cross-entropy of real images and its derivatives.

    Args:
        support: The inner problem.
        omega: [P].
        temperature: ``t``, scalar.
        images: Real images [B, C, H, W].
        labels: Their observed classes, int64 [B].
        frozen: Whether ``g`` is 0 for the frozen weights.
    """
    network, theta = support.network, support.theta
    alpha = support.solve(support.labels - support.push(omega))
    readout = support.features.T @ alpha
    parts = parts_of(network, images, support.smaller)
    with torch.no_grad():
        found = [along(network, theta, part, omega) for part in parts]
        features = torch.cat([own for own, _ in found])
        scaled = temperature.exp() * (torch.cat([moved for _, moved in found]) + features @ readout)
        log_p = scaled.log_softmax(1)
        error = log_p.exp()
        error[torch.arange(len(error), device=error.device), labels] -= 1
        error /= len(error)
        delta = temperature.exp() * error
    down = features.T @ delta
    gamma = support.solve(support.features @ down)
    omega_gradient = -support.pull(gamma, frozen)
    for part, share in zip(parts, delta.split([len(part) for part in parts]), strict=True):
        pulled = back(network, theta, part, share)
        if frozen:
            pulled[support.frozen] = 0
        omega_gradient += pulled
    by_features = alpha @ down.T - _symmetric(gamma, alpha) @ support.features
    loss = -log_p.gather(1, labels.unsqueeze(1)).mean()
    return Outer(loss, (error * scaled).sum(), omega_gradient, gamma, by_features, alpha)


def direct_gradient(support: Support, omega: Tensor, outer: Outer) -> tuple[Tensor, Tensor]:
    """Return the derivatives of the outer loss by X [N, C, H, W] and Y [N, classes] at fixed ``omega``."""
    products = [(omega, -outer.labels)]
    return _images(support, outer.features, products), outer.labels


def implicit_gradient(support: Support, omega: Tensor, xi: Tensor, outer: Outer) -> tuple[Tensor, Tensor]:
    """Return what the move of ``omega`` adds to the derivatives by X and Y (``H xi = g``)."""
    kappa = support.solve(support.push(xi))
    scale, alpha = support.scale, outer.alpha
    features = -scale * (_symmetric(kappa, alpha) @ support.features)
    products = [(omega, -scale * kappa), (xi, scale * alpha)]
    return _images(support, features, products), scale * kappa


def _images(support: Support, features: Tensor, products: list[tuple[Tensor, Tensor]]) -> Tensor:
    return images_gradient(support.network, support.theta, support.images, features, products, support.smaller)


def _symmetric(left: Tensor, right: Tensor) -> Tensor:
    """Return ``a b^T + b a^T`` [N, N]."""
    product = left @ right.T
    return product + product.T


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left.double() * right.double()).sum()


def _conjugate_gradients(product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return ``u`` with ``product(u) = rows`` up to :data:`CG_TOLERANCE`, in at most :data:`CG_STEPS` steps."""
    u, residual = torch.zeros_like(rows), rows
    direction, size = residual, _dot(residual, residual)
    target = CG_TOLERANCE**2 * size
    for _ in range(CG_STEPS):
        if not bool(size > target):
            break
        image = product(direction)
        step = size / _dot(direction, image)
        u = u + (step * direction).to(u.dtype)
        residual = residual - (step * image).to(u.dtype)
        after = _dot(residual, residual)
        direction, size = residual + (after / size * direction).to(u.dtype), after
    return u
