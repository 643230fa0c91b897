"""A pool of networks that grow on a synthetic set, and are replaced when they have seen enough of it.

FRePo (Zhou et al., NeurIPS 2022) and RCIG (Loo et al., ICML 2023): one member is drawn for an iteration, used, then
trained a few steps on the synthetic set, and replaced by a fresh one at an age.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.moments import Adam, Moments
from ddnl_ray.distill.networks import slope
from ddnl_ray.models import Flat
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class Pool:
    """The networks.

    Attributes:
        weights: [M, P].
        first: First moments of their training [M, P].
        second: Second moments [M, P].
        ages: Training steps that each has taken, int64 [M].
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    ages: Tensor

    @classmethod
    def fresh(cls, problem: Problem, size: int, seed: SeedTree) -> Pool:
        """Return ``size`` new networks."""
        assert problem.network is not None
        weights = [problem.network.fresh(seed.child("network", index).torch()) for index in range(size)]
        stacked = torch.stack(weights).to(problem.images.dtype)
        ages = torch.zeros(size, dtype=torch.int64, device=problem.device)
        return cls(stacked, torch.zeros_like(stacked), torch.zeros_like(stacked), ages)

    def trained(
        self,
        index: int,
        network: Flat,
        images: Tensor,
        labels: Tensor,
        steps: int,
        lr: float,
        batch: int | None,
        seed: SeedTree,
        smaller: int = 0,
    ) -> Pool:
        """Return the pool in which one member has learnt the labels by regression; this one is left as it was.

        Args:
            index: Which member.
            network: What its weights are of.
            images: [N, C, H, W].
            labels: Targets [N, classes].
            steps: Steps of Adam.
            lr: Learning rate.
            batch: Images per step, drawn without repetition; None: all.
            seed: Draws the batches.
            smaller: How often the work ran out of memory.
        """
        theta, moments = self.weights[index], Moments(self.first[index], self.second[index])
        age, generator, adam = int(self.ages[index]), seed.torch(), Adam(lr)
        for taken in range(age, age + steps):
            x, y = images, labels
            if batch is not None and batch < len(images):
                rows = torch.randperm(len(images), generator=generator)[:batch].to(images.device)
                x, y = images[rows], labels[rows]
            gradient = slope(network, theta, x, y, smaller, half_square).gradient
            theta, moments = adam.step(theta, moments, gradient, taken)
        return self._with(index, theta, moments, age + steps)

    def renewed(self, index: int, max_age: int, problem: Problem, seed: SeedTree) -> Pool:
        """Return the pool in which a member of at least ``max_age`` steps is a fresh network."""
        if int(self.ages[index]) < max_age:
            return self
        assert problem.network is not None
        theta = problem.network.fresh(seed.torch()).to(self.weights)
        nothing = torch.zeros_like(theta)
        return self._with(index, theta, Moments(nothing, nothing), 0)

    def _with(self, index: int, theta: Tensor, moments: Moments, age: int) -> Pool:
        place = torch.tensor([index], device=self.ages.device)
        return Pool(
            self.weights.index_copy(0, place, theta.unsqueeze(0)),
            self.first.index_copy(0, place, moments.first.unsqueeze(0)),
            self.second.index_copy(0, place, moments.second.unsqueeze(0)),
            self.ages.index_fill(0, place, age),
        )


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return half the squared error, averaged over images and classes."""
    return 0.5 * F.mse_loss(outputs, targets)
