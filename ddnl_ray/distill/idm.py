"""IDM: Improved Distribution Matching for Dataset Condensation (Zhao et al., CVPR 2023, arXiv 2307.09742).

Authors' code: uitrbn/IDM. Distribution matching (:mod:`ddnl_ray.distill.dm`) with four images stored in one, networks
that are trained a little on the real images and come from a first-in-first-out queue, and a cross-entropy of the
synthetic images under the network whose weight grows with the network's training accuracy.

Differs from the original:
    - all classes step at once (:mod:`ddnl_ray.distill.classwise`);
    - the accuracy meters, which the authors' evaluation resets to 0 as a side effect, have an interval of their own
      (``meter_reset_interval``), whatever is evaluated when; 0: never;
    - no checkpoint is chosen on the test set;
    - nothing is changed in the unit of the accuracy: it is in percent, as the published weights assume, so that
      ``ce_weight`` 0.5 at 40 % means 20.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.classwise import (
    INITS,
    Terms,
    View,
    class_gradient,
    class_labels,
    first_images,
    joint_rate,
    observed_pools,
    require_image_optimizer,
)
from ddnl_ray.distill.networks import Sgd, slope
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class IdmConfig:
    """Hyper-parameters of IDM."""

    iterations: int = 20_000
    """Updates of the images."""
    lr_img: float = 0.2
    """Learning rate of the images in the authors' steps per class."""
    momentum: float = 0.5
    """Momentum of those steps; images move by ``lr_img / (1 - momentum)`` times the gradient."""
    batch_real: int = 256
    """Real images per class and update."""
    ce_weight: float = 0.5
    """Weight of the cross-entropy, times the network's training accuracy in percent."""
    factor: int = 2
    """Each stored image holds ``factor`` x ``factor`` training images."""
    init: str = "real"
    """First images: ``real`` (each quarter a random image of the observed class) or ``noise`` (standard normal)."""
    first_networks: int = 3
    """Networks before the first update."""
    net_num: int = 100
    """Most networks in the queue."""
    net_generate_interval: int = 30
    """Updates between two new networks."""
    train_net_num: int = 1
    """Networks under which the images are moved in one iteration, one after the other."""
    fetch_net_num: int = 2
    """Networks that are trained in one iteration."""
    model_train_steps: int = 10
    """Steps of each."""
    batch_train: int = 256
    """Real images per such step."""
    lr_net: float = 0.01
    """Learning rate of the networks."""
    net_momentum: float = 0.9
    """Their momentum."""
    net_weight_decay: float = 5e-4
    """Their weight decay."""
    meter_reset_interval: int = 0
    """Updates after which the accuracy meters start again; 0: never."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("init", self.init, INITS)
        require_image_optimizer(self.iterations, self.batch_real, self.lr_img, self.momentum)
        counts = ("factor", "net_num", "net_generate_interval", "train_net_num", "fetch_net_num", "batch_train")
        for name in counts:
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, but got {getattr(self, name)}")
        for name in ("ce_weight", "first_networks", "model_train_steps", "net_weight_decay", "meter_reset_interval"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if not self.lr_net > 0:
            raise RequestError(f"lr_net must be above 0, but got {self.lr_net}")
        if not 0 <= self.net_momentum < 1:
            raise RequestError(f"net_momentum must lie in [0, 1), but got {self.net_momentum}")

    @property
    def sgd(self) -> Sgd:
        """The networks' optimizer."""
        return Sgd(self.lr_net, self.net_momentum, self.net_weight_decay)


@dataclass(frozen=True)
class IdmState(State):
    """Images, and the queue of networks, the oldest first.

    Attributes:
        images: Stored images [classes * ipc, C, H, W], class by class.
        networks: Weights of the networks [Q, P].
        velocities: Their momentum [Q, P].
        correct: Training images that each network got right since its meter was reset, int64 [Q].
        seen: Training images that it saw since, int64 [Q].
    """

    images: Tensor
    networks: Tensor
    velocities: Tensor
    correct: Tensor
    seen: Tensor

    @property
    def accuracies(self) -> Tensor:
        """Training accuracy of every network in percent [Q]; 0 where its meter is empty."""
        return 100 * self.correct / self.seen.clamp_min(1)


S = TypeVar("S", bound=IdmState)


@dataclass(frozen=True)
class Idm(Method[Any]):
    """Improved distribution matching.

    A robust variant overrides :meth:`_renewed` (which networks there are), :meth:`_gradient` (what moves the images)
    and :meth:`_learn` (how networks learn).
    """

    config: IdmConfig
    name: ClassVar[str] = "idm"
    state: ClassVar[type[IdmState]] = IdmState
    needs_network: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> Any:
        """Return the first state (see :meth:`Method.init`)."""
        own = seed.child("init")
        images = first_images(problem, own, self._view, self.config.init)
        state = IdmState(0, images, *_empty_queue(problem))
        for index in range(self.config.first_networks):
            state = self._pushed(state, problem, own.child("network", index))
        return state

    def step(self, state: Any, problem: Problem, seed: SeedTree) -> tuple[Any, StepInfo]:
        """Renew the queue, move the images under one network, train others (see :meth:`Method.step`)."""
        config, own = self.config, seed.child("step", state.iteration)
        given, state = state, self._renewed(state, problem, own)
        loss = state.images.new_zeros(())
        generator = own.child("choose").torch()
        for turn, index in enumerate(torch.randperm(len(state.networks), generator=generator)[: config.train_net_num]):
            value, gradient = self._gradient(state, int(index), problem, own.child("match", turn))
            images = state.images - joint_rate(config.lr_img, config.momentum) * gradient
            state, loss = dataclasses.replace(state, images=images), loss + value
        fetched = torch.randperm(len(state.networks), generator=generator)[: config.fetch_net_num]
        state = self._learn(state, fetched.tolist(), problem, own.child("learn"))
        if not bool(loss.isfinite() & state.images.isfinite().all() & state.networks.isfinite().all()):
            return dataclasses.replace(given, iteration=given.iteration + 1), StepInfo(float("nan"), accepted=False)
        return dataclasses.replace(state, iteration=state.iteration + 1), StepInfo(float(loss), accepted=True)

    def export(self, state: Any, problem: Problem) -> Distilled:
        """Return the stored images with hard labels."""
        return Distilled(state.images.clone(), class_labels(problem), factor=self.config.factor)

    @property
    def _view(self) -> View:
        return View(self.config.factor)

    def _renewed(self, state: Any, problem: Problem, seed: SeedTree) -> Any:
        """Return the state with a new network, or empty meters, where it is time."""
        iteration, interval = state.iteration, self.config.meter_reset_interval
        if interval and iteration and iteration % interval == 0:
            nothing = torch.zeros_like(state.seen)
            state = dataclasses.replace(state, correct=nothing, seen=nothing)
        if iteration % self.config.net_generate_interval == 0:
            state = self._pushed(state, problem, seed.child("network"))
        return state

    def _pushed(self, state: S, problem: Problem, seed: SeedTree) -> S:
        """Return the state with a fresh network at the end of the queue; a full queue loses its oldest."""
        assert problem.network is not None
        theta = problem.network.fresh(seed.torch()).to(state.images).unsqueeze(0)
        first = max(0, len(state.networks) + 1 - self.config.net_num)
        none = state.seen.new_zeros(1)
        return dataclasses.replace(
            state,
            networks=torch.cat([state.networks[first:], theta]),
            velocities=torch.cat([state.velocities[first:], torch.zeros_like(theta)]),
            correct=torch.cat([state.correct[first:], none]),
            seen=torch.cat([state.seen[first:], none]),
        )

    def _gradient(self, state: Any, index: int, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor]:
        """Return the objective under one network and its gradient with respect to the stored images."""
        return self._matching(state, index, problem, observed_pools(problem), seed)

    def _matching(
        self, state: IdmState, index: int, problem: Problem, pools: Sequence[Tensor], seed: SeedTree
    ) -> tuple[Tensor, Tensor]:
        """Return IDM's own objective and its gradient."""
        config = self.config
        terms = Terms(1.0, config.ce_weight * float(state.accuracies[index]))
        theta = state.networks[index]
        return class_gradient(state.images, problem, theta, self._view, terms, pools, config.batch_real, seed)

    def _learn(self, state: Any, fetched: Sequence[int], problem: Problem, seed: SeedTree) -> Any:
        """Return the state in which the fetched networks have learnt from real images, without augmentation."""
        networks, velocities = state.networks.clone(), state.velocities.clone()
        correct, seen = state.correct.clone(), state.seen.clone()
        assert problem.network is not None
        for index in fetched:
            generator = seed.child("batches", index).torch()
            for _ in range(self.config.model_train_steps):
                rows = torch.randperm(len(problem.images), generator=generator)[: self.config.batch_train]
                rows = rows.to(problem.device)
                labels = problem.labels[rows]
                found = slope(problem.network, networks[index], problem.images[rows], labels, problem.smaller)
                networks[index], velocities[index] = self.config.sgd.step(
                    networks[index], velocities[index], found.gradient
                )
                correct[index] += (found.logits.argmax(1) == labels).sum()
                seen[index] += len(rows)
        return dataclasses.replace(state, networks=networks, velocities=velocities, correct=correct, seen=seen)


def _empty_queue(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weights, velocities, and meters of no networks."""
    assert problem.network is not None
    nothing = problem.images.new_zeros(0, problem.network.num_params)
    none = torch.zeros(0, dtype=torch.int64, device=problem.device)
    return nothing, nothing.clone(), none, none.clone()
