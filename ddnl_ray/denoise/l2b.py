"""L2B-DivideMix: DivideMix whose first network also takes steps that a held-back batch says are good.

Zhou et al., "L2B: Learning to Bootstrap Robust Models for Combating Label Noise", CVPR 2024 (authors' code:
yuyinzhou/L2B). After every step of the first network, each of its views has two losses: against its refined or guessed
target, and against the class that the network predicts. Both get the weight with which a virtual step on that loss
lowers the loss of a meta batch, and a real step is taken on the weighted sum.

At weights of 0 the virtual step of SGD is ``theta' = theta - lr (momentum v + weight_decay theta)``, and the derivative
of the meta loss in the weight of loss ``i`` is ``-lr <grad meta(theta'), grad c_i(theta)>``: one directional derivative
of all losses along the meta gradient.

Differs from the original:
    - what :mod:`ddnl_ray.denoise.dividemix` lists;
    - the meta batch is drawn from the labels that the division trusts (``meta`` divided), the fair setting of a
      two-stage baseline. The released scripts train with 1000 true labels, because ``--need_clean=False`` is parsed as
      true; ``meta`` known does that, with the rows of :class:`ddnl_ray.denoise.Known`;
    - a directional derivative takes the place of differentiating through the step: the same numbers, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise.base import Problem
from ddnl_ray.denoise.dividemix import DivideMix, DivideMixConfig, Division, TwoNetworks
from ddnl_ray.denoise.networks import Network, Sgd, clipped
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.gsam import loss_and_gradient
from ddnl_ray.seeds import SeedTree

META = ("divided", "known")
TINY = 1e-10


@dataclass(frozen=True, kw_only=True)
class L2bConfig(DivideMixConfig):
    """Settings of L2B-DivideMix; the defaults are those of its code for CIFAR-10."""

    meta: str = "divided"
    """Where meta batches come from: labels that the division trusts, ``divided``, or true ones, ``known``."""
    meta_batch: int = 64
    """Images of a meta batch, or all that there are."""
    clip: float = 0.8
    """Largest norm of the gradient of a weighted step."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        require_known("meta", self.meta, META)
        if self.meta_batch < 1:
            raise RequestError(f"meta_batch must be at least 1, but got {self.meta_batch}")
        if not self.clip > 0:
            raise RequestError(f"clip must be above 0, but got {self.clip}")


def loss_weights(
    losses: Callable[[Tensor], Tensor],
    meta: Callable[[Tensor], Tensor],
    theta: Tensor,
    velocity: Tensor,
    optimizer: Sgd,
) -> Tensor:
    """Return the weights of losses by what a virtual step on each would do to the meta loss [n], not negative.

    They sum to 1, or are 0 where every step would raise it.

    Args:
        losses: Maps weights [P] to losses [n].
        meta: Maps weights [P] to the meta loss, a scalar.
        theta: Weights [P].
        velocity: Momentum buffer [P].
        optimizer: Of the virtual step.
    """
    ahead, _ = optimizer.step(theta, velocity, torch.zeros_like(theta))
    _, direction = loss_and_gradient(meta, ahead)
    slopes = slopes_along(losses, theta, direction)
    weights: Tensor = (optimizer.lr * slopes).clamp_min(0)
    return weights / (weights.sum() + TINY)


def slopes_along(losses: Callable[[Tensor], Tensor], theta: Tensor, direction: Tensor) -> Tensor:
    """Return how fast losses [n] rise along a direction [P]: the product of their Jacobian with it [n].

    The gradient of a weighted sum of losses is linear in the weights; its product with the direction is differentiated
    in them (``torch.func.jvp`` does it in one pass, but through code that torch 2.15 warns of).

    Args:
        losses: Maps weights [P] to losses [n].
        theta: Weights [P].
        direction: [P].
    """
    leaf = theta.detach().requires_grad_()
    values = losses(leaf)
    ones = torch.ones_like(values, requires_grad=True)
    (gradient,) = torch.autograd.grad(values, leaf, ones, create_graph=True)
    (slopes,) = torch.autograd.grad(gradient, ones, direction)
    return slopes


def both_losses(network: Callable[[Tensor, Tensor], Tensor], theta: Tensor, views: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of views against their targets, then against the classes that are predicted [2n].

    Args:
        network: The network.
        theta: Its weights [P].
        views: [n, C, H, H].
        targets: Class probabilities [n, classes].
    """
    logits = network(theta, views)
    own = logits.detach().argmax(1)
    return torch.cat([F.cross_entropy(logits, goal, reduction="none") for goal in (targets, own)])


class L2B(DivideMix):
    """See the module."""

    name: ClassVar[str] = "l2b"
    config: L2bConfig

    def init(self, problem: Problem, seed: SeedTree) -> TwoNetworks:
        """Return two networks, initialised apart.

        Raises:
            RequestError: True labels are asked for, and the problem has none.
        """
        if self.config.meta == "known" and (problem.known is None or not len(problem.known.rows)):
            raise RequestError("l2b with meta known needs rows with true labels, but got none; use meta divided")
        return super().init(problem, seed)

    def after(
        self,
        index: int,
        epoch: int,
        theta: Tensor,
        velocity: Tensor,
        views: Tensor,
        targets: Tensor,
        division: Division,
        problem: Problem,
        network: Network,
        seed: SeedTree,
    ) -> tuple[Tensor, Tensor]:
        """Take a weighted step with the first network; the second one has none."""
        if index != 0:
            return theta, velocity
        optimizer = self.config.optimizer(epoch)
        images, labels = self._meta_batch(division, problem, seed.child("meta").torch())

        def losses(weights: Tensor) -> Tensor:
            return both_losses(network, weights, views, targets)

        def meta(weights: Tensor) -> Tensor:
            return F.cross_entropy(network(weights, images), labels)

        shares = loss_weights(losses, meta, theta, velocity, optimizer)
        _, gradient = loss_and_gradient(lambda weights: (shares * losses(weights)).sum(), theta)
        return optimizer.step(theta, velocity, clipped(gradient, self.config.clip))

    def _meta_batch(self, division: Division, problem: Problem, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw images and labels of a meta batch, without replacement."""
        if self.config.meta == "known":
            assert problem.known is not None
            rows, labels = problem.known.rows, problem.known.labels
        else:
            rows = division.trusted.nonzero().flatten()
            labels = problem.labels[rows]
        chosen = torch.randperm(len(rows), generator=generator)[: self.config.meta_batch].to(rows.device)
        return problem.images[rows[chosen]], labels[chosen]
