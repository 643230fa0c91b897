"""GSAM: the update direction of flat experts (Zhuang et al., ICLR 2022), as FTD and DATM use it.

FTD: Du et al., CVPR 2023, arXiv 2211.11004; authors' code: AngusDujw/FTD-distillation. The perturbation is the
adaptive one and ``rho`` is constant, as it is in effect in their scripts (their schedule needs ``rho_max == rho_min``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-12


def gsam_direction(loss: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the loss at ``theta`` and the GSAM update direction.

    With ``g = grad loss(theta)``, the perturbation ``e = rho * theta^2 g / | |theta| g |`` and
    ``g' = grad loss(theta + e)``, the direction is ``g' - alpha * v``, where ``v`` is the component of ``g``
    orthogonal to ``g'``.

    Args:
        loss: Maps weights [P] to a scalar; called twice, on the same augmented batch.
        theta: Weights [P].
        rho: Radius of the perturbation.
        alpha: Weight of the orthogonal component.

    Returns:
        The loss (scalar) and the direction [P], detached.
    """
    value, gradient = loss_and_gradient(loss, theta)
    perturbation = rho * theta.square() * gradient / ((theta.abs() * gradient).norm() + TINY)
    _, perturbed = loss_and_gradient(loss, theta + perturbation)
    norm, perturbed_norm = gradient.norm(), perturbed.norm()
    cosine = gradient @ perturbed / (norm * perturbed_norm + TINY)
    orthogonal = gradient - cosine * norm * perturbed / (perturbed_norm + TINY)
    return value, perturbed - alpha * orthogonal


def loss_and_gradient(loss: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss at ``theta`` (scalar) and its gradient [P], detached."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
