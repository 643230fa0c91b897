"""DivideMix: two networks that tell each other which labels to trust, and learn from the rest without labels.

Li, Socher and Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning", ICLR 2020 (authors' code:
LiJunnan1992/DivideMix). After a warm-up, a mixture of two Gaussians on the losses of either network splits the images
for the other one (co-divide). Labels that are trusted are refined by the network itself, the others are guessed by both
(co-refinement, co-guessing), and both kinds are mixed (MixMatch, :mod:`ddnl_ray.lnl.mixmatch`).

Differs from the original:
    - networks are those of :mod:`ddnl_ray.models` without batch normalisation (there a pre-activation ResNet-18 with
      it), so that the passes that make targets do not change them;
    - what :mod:`ddnl_ray.lnl.mixmatch` lists;
    - a threshold that would leave a side without images is moved to just inside the range of the posterior, as C2D does
      it (there it stops). Where the posterior is the same everywhere all images are labelled;
    - losses of one kind (:mod:`ddnl_ray.lnl.mixture`) are no split: all labels are trusted, with weight 1;
    - the mixture starts from a fixed seed;
    - labels are exported as the code does not do it: the mean softmax of both networks after the last epoch, without
      augmentation; the confidence is the mean of the posteriors at that point. The rate is 1 less its mean, and the
      transition matrix takes the mean softmax for the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.denoise.base import Cleaned, Cleaner, CleanerConfig, Problem, settle, transition_of
from ddnl_ray.denoise.networks import Network, Sgd, cycled, supervised_epoch
from ddnl_ray.distill.base import State
from ddnl_ray.errors import RequestError
from ddnl_ray.experts.gsam import loss_and_gradient
from ddnl_ray.lnl.mixmatch import Batch, draw_mixing, mixmatch_loss, ramp_up, targets_of, two_views
from ddnl_ray.lnl.mixture import lower_component, scale_losses
from ddnl_ray.seeds import SeedTree

HISTORY = 5
MARGIN = 1e-5


@dataclass(frozen=True, kw_only=True)
class DivideMixConfig(CleanerConfig):
    """Settings of DivideMix; the defaults are those of its code for CIFAR-10."""

    epochs: int = 301
    """Epochs, the warm-up among them (there 0 to 300)."""
    warm_up: int = 10
    """Epochs on all images with their observed labels; 30 for CIFAR-100."""
    warm_up_batch: int = 128
    """Images per step of the warm-up."""
    penalise: bool = False
    """Whether the warm-up rewards entropy of the predictions: for asymmetric noise."""
    batch_size: int = 64
    """Labelled images per step, and as many others; each is seen twice."""
    lr: float = 0.02
    """Learning rate."""
    lr_drop: int = 150
    """Epoch from which on the learning rate is a tenth."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    unlabelled_weight: float = 25.0
    """Weight of the squared error on images without labels (lambda_u), reached 16 epochs after the warm-up."""
    threshold: float = 0.5
    """Posterior above which a label is trusted; 0.6 at 90 % noise."""
    temperature: float = 0.5
    """Of the targets (T)."""
    alpha: float = 4.0
    """Parameter of the Beta distribution of MixUp."""
    mixture_steps: int = 10
    """The most steps of the fit of the mixture."""
    history: bool = False
    """Whether the mixture is fitted to the mean of the scaled losses of the last 5 epochs: for 90 % noise."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        least = {"epochs": 1, "warm_up": 0, "warm_up_batch": 1, "batch_size": 1, "lr_drop": 1, "mixture_steps": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise RequestError(f"{name} must be at least {lowest}, but got {getattr(self, name)}")
        for name in ("lr", "temperature", "alpha"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be above 0, but got {getattr(self, name)}")
        for name in ("weight_decay", "unlabelled_weight"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise RequestError(f"momentum must lie in [0, 1), but got {self.momentum}")
        if not 0 <= self.threshold <= 1:
            raise RequestError(f"threshold must lie in [0, 1], but got {self.threshold}")

    def optimizer(self, epoch: int) -> Sgd:
        """Return the optimizer of an epoch, counted from 0."""
        return Sgd(self.lr / 10 if epoch >= self.lr_drop else self.lr, self.momentum, self.weight_decay)


@dataclass(frozen=True)
class TwoNetworks(State):
    """Two networks in training.

    Attributes:
        weights: [2, P].
        velocity: Momentum buffers [2, P].
        losses: Scaled losses of either network at the last 5 epochs after the warm-up, the latest first, [2, 5, N]; NaN
            where there was none.
    """

    weights: Tensor
    velocity: Tensor
    losses: Tensor


@dataclass(frozen=True)
class Division:
    """Which labels one network trusts, by the losses of the other.

    Attributes:
        posterior: That the label is right [N], float64.
        trusted: Which are trusted, bool [N].
    """

    posterior: Tensor
    trusted: Tensor


def divide(posterior: Tensor, threshold: float) -> Division:
    """Return the images whose posterior exceeds the threshold, so that neither side is empty where that can be.

    Args:
        posterior: [N], float64.
        threshold: It is moved into the range of the posterior, less a margin of 1e-5.
    """
    low, high = float(posterior.min()) + MARGIN, float(posterior.max()) - MARGIN
    if high <= low:
        return Division(posterior, torch.ones_like(posterior, dtype=torch.bool))
    return Division(posterior, posterior > min(max(threshold, low), high))


class DivideMix(Cleaner[TwoNetworks]):
    """See the module."""

    name: ClassVar[str] = "dividemix"
    state: ClassVar[type[State]] = TwoNetworks
    from_trunk: ClassVar[bool] = False
    config: DivideMixConfig

    def length(self, problem: Problem) -> int:
        """Return the number of epochs."""
        return self.config.epochs

    def init(self, problem: Problem, seed: SeedTree) -> TwoNetworks:
        """Return two networks, initialised apart."""
        network = Network(problem)
        weights = torch.stack(
            [network.begin(problem, seed.child("init", index), self.from_trunk) for index in range(2)]
        )
        blank = torch.full((2, HISTORY, len(problem.labels)), torch.nan, device=problem.device)
        return TwoNetworks(0, weights, torch.zeros_like(weights), blank)

    def epoch(self, state: TwoNetworks, problem: Problem, seed: SeedTree) -> tuple[TwoNetworks, float]:
        """Train both networks, in turn, for an epoch."""
        network, number = Network(problem), state.iteration
        seed = seed.child("epoch", number)
        state, losses = (self._warm_up if number < self.config.warm_up else self._co_divide)(
            state, problem, network, seed
        )
        return replace(state, iteration=number + 1), sum(losses) / 2

    def export(self, state: TwoNetworks, problem: Problem) -> Cleaned:
        """Return what both networks say of the labels."""
        network = Network(problem)
        scored = state
        for index in range(2):
            scored = self.score(scored, index, problem, network)
        posteriors = torch.stack([self.posterior(scored, index) for index in range(2)])
        soft, confidence = network.ensemble(state.weights, problem.images), posteriors.mean(0)
        return settle(
            self.config,
            problem.labels,
            soft,
            confidence,
            confidence > self.config.threshold,
            float(1 - confidence.mean()),
            transition_of(soft, problem.labels),
            state.weights,
        )

    def _warm_up(
        self, state: TwoNetworks, problem: Problem, network: Network, seed: SeedTree
    ) -> tuple[TwoNetworks, list[float]]:
        """Train both networks on the observed labels."""
        config, losses = self.config, []
        for index in range(2):
            theta, velocity, loss = supervised_epoch(
                network,
                state.weights[index],
                state.velocity[index],
                problem,
                config.optimizer(state.iteration),
                config.warm_up_batch,
                seed.child("network", index),
                config.penalise,
                self.warm_up_clip,
            )
            state = put(state, index, theta, velocity)
            losses.append(loss)
        return state, losses

    @property
    def warm_up_clip(self) -> float | None:
        """Largest norm of a gradient of the warm-up; None: any."""
        return None

    def _co_divide(
        self, state: TwoNetworks, problem: Problem, network: Network, seed: SeedTree
    ) -> tuple[TwoNetworks, list[float]]:
        """Score both networks, then train each on the division of the other."""
        for index in range(2):
            state = self.score(state, index, problem, network)
        divisions = [divide(self.posterior(state, 1 - index), self.config.threshold) for index in range(2)]
        losses = []
        for index, division in enumerate(divisions):
            state, loss = self.learn(state, index, division, problem, network, seed.child("network", index))
            losses.append(loss)
        return state, losses

    def score(self, state: TwoNetworks, index: int, problem: Problem, network: Network) -> TwoNetworks:
        """Return the state with the losses of a network, scaled to [0, 1], as its latest."""
        latest = scale_losses(network.losses(state.weights[index], problem)).to(state.losses)
        losses = state.losses.clone()
        losses[index] = torch.cat([latest[None], state.losses[index, :-1]])
        return replace(state, losses=losses)

    def posterior(self, state: TwoNetworks, index: int) -> Tensor:
        """Return how sure the latest losses of a network are of every label [N], float64."""
        losses = state.losses[index]
        values = losses.nanmean(0) if self.config.history else losses[0]
        return lower_component(values, self.config.mixture_steps)

    def learn(
        self,
        state: TwoNetworks,
        index: int,
        division: Division,
        problem: Problem,
        network: Network,
        seed: SeedTree,
    ) -> tuple[TwoNetworks, float]:
        """Train a network for a pass over its labelled images; return the state and the mean loss of the steps."""
        config = self.config
        labelled, others = (mask.nonzero().flatten() for mask in (division.trusted, ~division.trusted))
        order = torch.randperm(len(labelled), generator=seed.child("labelled").torch()).to(problem.device)
        known = labelled[order].split(config.batch_size)
        unknown = cycled(others, config.batch_size, len(known), seed.child("unlabelled"))
        theta, velocity, other = state.weights[index], state.velocity[index], state.weights[1 - index]
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        for step, rows in enumerate(zip(known, unknown, strict=True)):
            batch, own = Batch(*rows), seed.child("step", step)
            views = two_views(problem.images, batch, own.child("views").torch(), problem.flip)
            labels, sure = problem.labels[batch.labelled], division.posterior[batch.labelled]
            targets = targets_of(network, theta, views, labels, sure, config.temperature, other)
            weight = config.unlabelled_weight * ramp_up(state.iteration + step / len(known), config.warm_up)
            value, gradient = self.gradient(network, theta, views, targets, 2 * len(labels), weight, own)
            theta, velocity = config.optimizer(state.iteration).step(theta, velocity, gradient)
            theta, velocity = self.after(
                index, state.iteration, theta, velocity, views, targets, division, problem, network, own
            )
            total += value
        return put(state, index, theta, velocity), float(total) / len(known)

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
        """Return the loss of the mixed views and its gradient [P].

        Args:
            network: The network.
            theta: Its weights [P].
            views: From :func:`ddnl_ray.lnl.mixmatch.two_views`.
            targets: Of every view [n, C].
            num_labelled: Views before this one are of labelled images.
            weight: Of the squared error, on this step.
            seed: Determines the mixing.
        """
        mixing = draw_mixing(len(views), self.config.alpha, seed.child("mixing"), views.device)
        mixed, goals = mixing.apply(views), mixing.apply(targets)
        return loss_and_gradient(
            lambda weights: mixmatch_loss(network(weights, mixed), goals, num_labelled, weight), theta
        )

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
        """Return weights and momentum after what a variant does beside a step: nothing."""
        return theta, velocity


def put(state: TwoNetworks, index: int, theta: Tensor, velocity: Tensor) -> TwoNetworks:
    """Return the state with the weights and the momentum of one network replaced."""
    weights, velocities = state.weights.clone(), state.velocity.clone()
    weights[index], velocities[index] = theta, velocity
    return replace(state, weights=weights, velocity=velocities)
