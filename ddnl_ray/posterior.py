"""A Gaussian posterior over the weights of a network, and its error: what a PAC-Bayes bound is made of.

The posterior is N(trained weights, sigma^2), the prior N(initial weights, sigma^2), which no label has touched. The
error of the Gibbs classifier, which draws its weights for every prediction, is averaged over draws on labels that were
not trained on. KL(Q||P) and the bound are not computed here (:mod:`analysis.noise_rate.gap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.models import Flat
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.seeds import SeedTree

SIGMAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Standard deviations that are tried, stated before any is: a bound over all of them holds for the one chosen."""
DRAWS = 10


@dataclass(frozen=True)
class Posterior:
    """A network with noise on its weights.

    Attributes:
        start: Initial weights [P], float32, on the CPU.
        end: Trained weights [P], likewise.
        error: Share of validation labels that the trained weights do not predict.
        gibbs: The same with noise on the weights, the mean over draws, for each of ``sigmas``.
        sigmas: Standard deviations of the noise.
        num_validation: Validation labels.
        choices: Between how many trained weights the validation labels chose.
    """

    start: Tensor
    end: Tensor
    error: float
    gibbs: tuple[float, ...]
    sigmas: tuple[float, ...]
    num_validation: int
    choices: int


@torch.no_grad()
def posterior_of(
    network: Flat,
    weights: tuple[Tensor, Tensor],
    images: Tensor,
    labels: Tensor,
    choices: int,
    seed: SeedTree,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = DRAWS,
) -> Posterior:
    """Return the errors of a network on validation labels, with and without noise on its weights.

    Args:
        network: The network.
        weights: Initial and trained weights [P].
        images: Validation images [V, C, H, W], on the device that works.
        labels: Their observed labels, int64 [V], likewise.
        choices: Between how many trained weights these labels chose.
        seed: Source of the noise; every draw is scaled to every sigma.
        sigmas: Standard deviations of the noise.
        draws: Draws per sigma.
    """
    start, end = (each.to(images.device) for each in weights)

    def error(theta: Tensor) -> float:
        return float((outputs_of(network, theta, images).logits.argmax(1) != labels).double().mean())

    noises = [torch.randn(len(end), generator=seed.child("draw", draw).torch()).to(end) for draw in range(draws)]
    gibbs = tuple(sum(error(end + sigma * noise) for noise in noises) / draws for sigma in sigmas)
    return Posterior(start.cpu(), end.cpu(), error(end), gibbs, tuple(sigmas), len(labels), choices)
