"""Acc-DD: Accelerating Dataset Distillation via Model Augmentation (Zhang et al., CVPR 2023, arXiv 2212.06152).

Authors' code: ncsu-dk-lab/Acc-DD. The loop of IDC (Kim et al., ICML 2022, arXiv 2205.14959): several images in one
stored image (:mod:`ddnl_ray.distill.formation`), the squared distance between the gradients of convolutions
(:mod:`ddnl_ray.distill.gradients`), and a network that learns from real images between two updates. Where IDC starts
from random networks, Acc-DD starts from a few that are trained for ``start_epoch`` epochs, with weights that are
perturbed anew at every start. With ``start_epoch`` 0 and no perturbation this is IDC, with as many different starts as
there are experts.

Differs from the original:
    - all classes step at once (:mod:`ddnl_ray.distill.classwise`);
    - real images of a class are drawn without repetition in each update (there: from an endless reshuffled loader that
      drops its last batch), and labels are made for the images that there are (there: for a full batch);
    - the first images are random ones of their class (there: the first ones of the file); they are made smaller by
      nearest neighbours, as there, also with factor 1;
    - stored images are clamped to [0, 1] at the start of every outer iteration, as there, and when they are exported,
      and a data set is normalised as everywhere in this package (there: CIFAR-100 by the statistics of CIFAR-10);
    - the pretrained networks are experts after a fixed number of epochs; there the epoch with the best test accuracy
      is taken, and repetitions overwrite one file, so that it takes several runs to have several networks;
    - the network to start from is drawn from all there are (there the upper bound is one too high: an IndexError in
      one of n + 1 draws);
    - stored pixels are normalised before they are cut (there: after; per-channel statistics give the same);
    - one step of the method is one update of the images; no checkpoint is chosen on the test set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.augment import DiffAug
from ddnl_ray.data.cutmix import CutMix, mixing
from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.classwise import (
    View,
    class_labels,
    first_images,
    joint_rate,
    observed_pools,
    require_image_optimizer,
)
from ddnl_ray.distill.gradients import SQUARED, matching_gradient
from ddnl_ray.distill.networks import Sgd, slope
from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat
from ddnl_ray.seeds import SeedTree

FILTER_EPS = 1e-10


@dataclass(frozen=True, kw_only=True)
class AccddConfig:
    """Hyper-parameters of Acc-DD."""

    iterations: int = 50_000
    """Updates of the images in all: outer iterations times ``inner_loop``."""
    inner_loop: int = 100
    """Updates of the images from one start of the network to the next."""
    start_epoch: int = 2
    """Epoch of the experts from which a network starts; 0: before training."""
    perturbation_low: float = 0.01
    """Least magnitude of each of the two perturbations of the weights, relative to each filter's norm."""
    perturbation_high: float = 0.09
    """Largest magnitude; 0: the weights are not perturbed."""
    lr_img: float = 0.01
    """Learning rate of the images for 10 per class of 32 x 32 pixels; see :meth:`rate`."""
    momentum: float = 0.5
    """Momentum of the authors' steps per class; images move by the rate over ``1 - momentum`` times the gradient."""
    factor: int = 2
    """Each stored image holds ``factor`` x ``factor`` training images."""
    batch_real: int = 64
    """Real images per class and update."""
    batch_syn_max: int = 128
    """Most training images of a class that are matched in one update, a random choice of them."""
    match_augment: str | None = "color_crop_cutout"
    """Operations on real and synthetic images alike (:class:`ddnl_ray.data.augment.DiffAug`); None: none."""
    n_data: int = 2000
    """Real images from which the network learns after each update, in full batches; 0: it does not learn."""
    batch_train: int = 64
    """Real images per step of the network."""
    lr_net: float = 0.01
    """Learning rate of the network."""
    net_momentum: float = 0.9
    """Its momentum."""
    net_weight_decay: float = 5e-4
    """Its weight decay."""
    train_augment: str | None = "color_crop"
    """Operations on each image from which the network learns; None: none."""
    cutmix: float = 0.5
    """Probability with which a batch from which the network learns is mixed."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_image_optimizer(self.iterations, self.batch_real, self.lr_img, self.momentum)
        for name in ("inner_loop", "factor", "batch_syn_max", "batch_train"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, but got {getattr(self, name)}")
        for name in ("start_epoch", "n_data", "net_weight_decay"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if not 0 <= self.perturbation_low <= self.perturbation_high < math.inf:
            raise RequestError(
                "perturbation_low must lie between 0 and perturbation_high, but got "
                f"{self.perturbation_low} and {self.perturbation_high}; published: 0.01 and 0.09"
            )
        if not self.lr_net > 0:
            raise RequestError(f"lr_net must be above 0, but got {self.lr_net}")
        if not 0 <= self.net_momentum < 1:
            raise RequestError(f"net_momentum must lie in [0, 1), but got {self.net_momentum}")
        mixing(self.cutmix)
        for name in ("match_augment", "train_augment"):
            try:
                _augmentation(getattr(self, name))
            except RequestError as error:
                raise RequestError(f"{name}: {error}") from error

    @property
    def last_epoch(self) -> int:
        """The last epoch of the experts that is read."""
        return self.start_epoch

    @property
    def sgd(self) -> Sgd:
        """The network's optimizer."""
        return Sgd(self.lr_net, self.net_momentum, self.net_weight_decay)

    def rate(self, ipc: int, size: int) -> float:
        """Return what the gradient is multiplied by, for ``ipc`` images per class of ``size`` x ``size`` pixels."""
        return joint_rate(self.lr_img * (ipc / 10) * (size / 32) ** 2, self.momentum)


@dataclass(frozen=True)
class AccddState(State):
    """Images, and the network under which they move.

    Attributes:
        images: Stored pixels [classes * ipc, C, H, W], class by class, between clamps about in [0, 1].
        theta: Weights of the network [P].
        velocity: Its momentum [P].
    """

    images: Tensor
    theta: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Accdd(Method[Any]):
    """Gradient matching from early networks with perturbed weights.

    A robust variant overrides :meth:`_start` (what an outer iteration begins with), :meth:`_pools` (which real images
    are matched), :meth:`_extra` (a further term of the images) and :meth:`_learn` (how the network learns). All of
    them see the iteration of the step that is being taken in ``state.iteration``.
    """

    config: AccddConfig
    name: ClassVar[str] = "accdd"
    state: ClassVar[type[AccddState]] = AccddState
    needs_experts: ClassVar[bool] = True
    keeps_pixels: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> Any:
        """Return the first state, with the first network (see :meth:`Method.init`)."""
        images = first_images(problem, seed.child("init"), self._view(problem), "real", encoding="nearest")
        theta = _early_network(self.config, problem, seed.child("network", 0)).to(images)
        return AccddState(0, images, theta, torch.zeros_like(theta))

    def step(self, state: Any, problem: Problem, seed: SeedTree) -> tuple[Any, StepInfo]:
        """Move the images once, then train the network (see :meth:`Method.step`)."""
        assert problem.ipc is not None
        following, own = state.iteration + 1, seed.child("step", state.iteration)
        given = dataclasses.replace(state, iteration=following)
        if state.iteration % self.config.inner_loop == 0:
            state = dataclasses.replace(state, images=state.images.clamp(0, 1))
            state = self._start(state, problem, seed.child("network", state.iteration // self.config.inner_loop))
        loss, gradient = self._matching(state, problem, own.child("match"))
        extra = self._extra(state, problem, own.child("extra"))
        if extra is not None:
            loss, gradient = loss + extra[0], gradient + extra[1]
        rate = self.config.rate(problem.ipc, state.images.shape[-1])
        state = dataclasses.replace(state, images=state.images - rate * gradient)
        state = self._learn(state, problem, own.child("learn"))
        finite = torch.stack([value.isfinite().all() for value in (loss, state.images, state.theta, state.velocity)])
        if not bool(finite.all()):
            return given, StepInfo(float("nan"), accepted=False)
        return dataclasses.replace(state, iteration=following), StepInfo(float(loss), accepted=True)

    def export(self, state: Any, problem: Problem) -> Distilled:
        """Return the stored images as networks see them, with hard labels."""
        pixels = state.images.clamp(0, 1)
        images = pixels if problem.transform is None else problem.transform.apply(pixels)
        return Distilled(images, class_labels(problem), factor=self.config.factor)

    def _view(self, problem: Problem) -> View:
        return View(self.config.factor, problem.transform, self.config.batch_syn_max)

    def _start(self, state: Any, problem: Problem, seed: SeedTree) -> Any:
        """Return the state at the start of an outer iteration, with another network."""
        theta = _early_network(self.config, problem, seed).to(state.images)
        return dataclasses.replace(state, theta=theta, velocity=torch.zeros_like(theta))

    def _pools(self, state: Any, problem: Problem) -> Sequence[Tensor]:
        """Return the rows of the real images that every class is matched with."""
        return observed_pools(problem)

    def _matching(self, state: Any, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor]:
        """Return IDC's objective and its gradient with respect to the stored images."""
        augment, pools = _augmentation(self.config.match_augment), self._pools(state, problem)
        view, batch = self._view(problem), self.config.batch_real
        return matching_gradient(state.images, problem, state.theta, view, SQUARED, augment, pools, batch, seed)

    def _extra(self, state: Any, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor] | None:
        """Return a further term of the images' objective, a scalar, and its gradient; None: there is none."""
        return None

    def _learn(self, state: Any, problem: Problem, seed: SeedTree) -> Any:
        """Return the state in which the network has learnt from real images."""
        assert problem.network is not None
        config, generator = self.config, seed.torch()
        augment, mix = _augmentation(config.train_augment), mixing(config.cutmix)
        wanted = -(-config.n_data // config.batch_train) * config.batch_train
        rows = torch.randperm(len(problem.images), generator=generator)[:wanted].to(problem.device)
        # A copy, because kernels choose their path by alignment, and a state that was read has one of its own.
        theta, velocity = state.theta.clone(), state.velocity
        for batch in rows.split(config.batch_train) if wanted else ():
            images, labels = problem.images[batch], problem.labels[batch]
            if augment is not None:
                images = augment(images, generator)
            if mix is not None:
                images, labels = _mixed(mix, images, labels, problem.num_classes, generator)
            found = slope(problem.network, theta, images, labels, problem.smaller)
            theta, velocity = config.sgd.step(theta, velocity, found.gradient)
        return dataclasses.replace(state, theta=theta, velocity=velocity)


def perturb(network: Flat, theta: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return weights [P] that are moved along two random directions, by as much in every filter.

    ``theta + a * d1 + b * d2``: the magnitudes of a and b are uniform on [low, high], their signs are random.

    Args:
        network: What the weights belong to.
        theta: The weights [P].
        low: Least magnitude.
        high: Largest magnitude; 0: the weights are returned as they are.
        generator: Source of randomness, on the CPU.
    """
    if high == 0:
        return theta
    magnitude, sign = torch.rand(2, 2, generator=generator, dtype=torch.float64)
    factors = (low + (high - low) * magnitude) * torch.where(sign < 0.5, -1.0, 1.0)
    for move in [factor * direction(network, theta, generator) for factor in factors.tolist()]:
        theta = theta + move
    return theta


def direction(network: Flat, theta: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random direction [P] with the norm of the weights, filter by filter.

    A Gaussian direction is scaled to the norm of the weights in every slice along the first dimension of every tensor
    with two dimensions or more; it is 0 in the others (Li et al., "Visualizing the Loss Landscape of Neural Nets",
    NeurIPS 2018).
    """
    noise = torch.randn(len(theta), generator=generator).to(theta)
    pieces = []
    for weight, piece in zip(network.unflatten(theta).values(), network.unflatten(noise).values(), strict=True):
        if weight.dim() < 2:
            pieces.append(torch.zeros_like(piece).flatten())
            continue
        rows, target = piece.flatten(1), weight.flatten(1)
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True) + FILTER_EPS
        pieces.append((rows * (torch.linalg.vector_norm(target, dim=1, keepdim=True) / lengths)).flatten())
    return torch.cat(pieces)


def _early_network(config: AccddConfig, problem: Problem, seed: SeedTree) -> Tensor:
    """Return the perturbed weights [P] of a randomly chosen expert after the first epochs."""
    assert problem.network is not None
    assert problem.experts is not None
    expert = int(torch.randint(len(problem.experts), (1,), generator=seed.child("expert").torch()))
    theta = problem.experts.snapshot(expert, config.start_epoch).to(problem.device)
    generator = seed.child("perturbation").torch()
    return perturb(problem.network, theta, config.perturbation_low, config.perturbation_high, generator)


def _mixed(
    mix: CutMix, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return images and labels, mixed and as probabilities where the draw says so."""
    draw = mix.draw(generator, len(images), images.shape[-1], images.device)
    if draw is None:
        return images, labels
    sure = F.one_hot(labels, num_classes).to(images)
    return mix.apply(images, draw), draw.own * sure + (1 - draw.own) * sure[draw.order]


def _augmentation(strategy: str | None) -> DiffAug | None:
    return None if strategy is None else DiffAug(strategy)
