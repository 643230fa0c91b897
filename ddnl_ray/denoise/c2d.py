"""C2D, Contrast to Divide: DivideMix from a self-supervised start.

Zheltonozhskii et al., "Contrast to Divide: Self-Supervised Pre-Training for Learning with Noisy Labels", WACV 2022
(authors' code: ContrastToDivide/C2D). The trunk of both networks comes from SimCLR on the same images
(:mod:`ddnl_ray.features`), their classifiers are drawn apart. It needs a shorter warm-up, and its code changes
DivideMix in the ways that the settings below and the methods of :class:`C2D` say.

Differs from the original:
    - what :mod:`ddnl_ray.denoise.dividemix` lists;
    - the trunk is trained by our SimCLR on a network without batch normalisation (there SupContrast's ResNet-18 or 50
      with it), and comes from outside: it is an artefact of its own, shared with other methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddnl_ray.denoise.base import Problem
from ddnl_ray.denoise.dividemix import DivideMix, DivideMixConfig, TwoNetworks, divide
from ddnl_ray.denoise.networks import Network, Sgd
from ddnl_ray.experts.gsam import loss_and_gradient
from ddnl_ray.lnl.mixmatch import draw_mixing, mixmatch_loss
from ddnl_ray.seeds import SeedTree

CLIP = 1.0


@dataclass(frozen=True, kw_only=True)
class C2dConfig(DivideMixConfig):
    """Settings of C2D; the defaults are those of its code for CIFAR-10."""

    epochs: int = 361
    """Epochs, the warm-up among them (there 0 to 360)."""
    warm_up: int = 5
    """Epochs on all images with their observed labels."""
    lr_drop: int = 150
    """Epochs between divisions of the learning rate by 10."""
    threshold: float = 0.03
    """Posterior above which a label is trusted."""
    mixture_steps: int = 200
    """The most steps of the fit of the mixture."""

    def optimizer(self, epoch: int) -> Sgd:
        """Return the optimizer of an epoch, counted from 0."""
        return Sgd(self.lr * 0.1 ** (epoch // self.lr_drop), self.momentum, self.weight_decay)


class C2D(DivideMix):
    """See the module."""

    name: ClassVar[str] = "c2d"
    from_trunk: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True

    @property
    def warm_up_clip(self) -> float | None:
        """Largest norm of a gradient of the warm-up."""
        return CLIP

    def _co_divide(
        self, state: TwoNetworks, problem: Problem, network: Network, seed: SeedTree
    ) -> tuple[TwoNetworks, list[float]]:
        """Score the second network and train the first; then score the first, as it is now, and train the second."""
        losses = []
        for index in range(2):
            state = self.score(state, 1 - index, problem, network)
            division = divide(self.posterior(state, 1 - index), self.config.threshold)
            state, loss = self.learn(state, index, division, problem, network, seed.child("network", index))
            losses.append(loss)
        return state, losses

    def gradient(
        self,
        network: Network,
        theta: Tensor,
        views: Tensor,
        targets: Tensor,
        num_labelled: int,
        weight: float,
        seed: SeedTree,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient; without an unlabelled weight from the mixed labelled views alone."""
        if self.config.unlabelled_weight:
            return super().gradient(network, theta, views, targets, num_labelled, weight, seed)
        mixing = draw_mixing(len(views), self.config.alpha, seed.child("mixing"), views.device)
        mixed, goals = mixing.apply(views)[:num_labelled], mixing.apply(targets)[:num_labelled]
        return loss_and_gradient(
            lambda weights: mixmatch_loss(network(weights, mixed), goals, num_labelled, 0.0), theta
        )
