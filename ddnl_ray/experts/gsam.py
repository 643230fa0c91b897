"""GSAM: the update direction of flat experts (Zhuang et al., ICLR 2022), as FTD and DATM use it.

FTD: Du et al., CVPR 2023, arXiv 2211.11004; authors' code: AngusDujw/FTD-distillation. The perturbation is the
adaptive one and ``rho`` is constant, as it is in effect in their scripts (their schedule needs ``rho_max == rho_min``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-12


Differentiate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps the weights of experts [..., P] to their losses [...] and the gradient of each in its own weights [..., P]."""


def gsam_direction(differentiate: Differentiate, theta: Tensor, rho: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the loss at ``theta`` and the GSAM update direction.

    With ``g = grad loss(theta)``, the perturbation ``e = rho * theta^2 g / | |theta| g |`` and
    ``g' = grad loss(theta + e)``, the direction is ``g' - alpha * v``, where ``v`` is the component of ``g``
    orthogonal to ``g'``. Each expert has norms of its own.

    Args:
        differentiate: Gives losses and gradients; called twice, on the same augmented batches.
        theta: Weights [..., P].
        rho: Radius of the perturbation.
        alpha: Weight of the orthogonal component.

    Returns:
        The losses [...] and the directions [..., P], detached.
    """
    value, gradient = differentiate(theta)
    perturbation = rho * theta.square() * gradient / (_norm(theta.abs() * gradient) + TINY)
    _, perturbed = differentiate(theta + perturbation)
    norm, perturbed_norm = _norm(gradient), _norm(perturbed)
    cosine = torch.linalg.vecdot(gradient, perturbed).unsqueeze(-1) / (norm * perturbed_norm + TINY)
    orthogonal = gradient - cosine * norm * perturbed / (perturbed_norm + TINY)
    return value, perturbed - alpha * orthogonal


def loss_and_gradient(loss: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses [...] at ``theta`` [..., P] and the gradient of each in its own weights [..., P], detached."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    return value.detach(), gradient


def _norm(vectors: Tensor) -> Tensor:
    """Return the norms [..., 1] of vectors [..., P]."""
    norms: Tensor = vectors.norm(dim=-1, keepdim=True)
    return norms
