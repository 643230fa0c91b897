"""RCIG: Dataset Distillation with Convexified Implicit Gradients (Loo et al., ICML 2023, arXiv 2302.06755).

Authors' code: yolky/RCIG (JAX). Every iteration takes a network of a pool, linearises it at its weights, solves the
linear layer by kernel ridge regression on the synthetic images and their learnt labels, and moves the other weights a
little: a convex problem. Images, labels and a temperature follow the cross-entropy that the outcome has on noisy real
images, by the implicit gradient (:mod:`ddnl_ray.distill.rcig_kernel`). Then the network learns from the new images.

Differs from the original:
    - kernel and solves are float64 (there: float32, or mixed);
    - the implicit system is over the body, without the linear layer, which is solved for (``hessian: released`` has the
      authors' system over all weights). There, the inner Adam lets the linear layer drift by 1e-5 of itself as well,
      and goes on with the counter of the network's own training; here it stands still, and each Adam is new;
    - products with the Jacobian are exact sums over parts of the images (there: random parts of them carry gradients in
      the large settings, which makes the gradient too small), so there is nothing to repeat;
    - inner losses are compared in float64, so that rounding is never taken for a loss that rises;
    - the real images come in passes, each of them shuffled as a whole (there: through a buffer);
    - AdaBelief has the new first moment in its second, as Optax has now (it may once have been the old one);
    - an iteration that is not finite is refused as a whole;
    - ``solver: cg``, which solves both inner systems exactly, is ours.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.classwise import View, class_labels, first_images
from ddnl_ray.distill.moments import AdaBelief, Moments
from ddnl_ray.distill.pool import Pool
from ddnl_ray.distill.rcig_config import RcigConfig
from ddnl_ray.distill.rcig_kernel import (
    Support,
    direct_gradient,
    implicit_gradient,
    outer_loss,
    solve_hessian,
    solve_inner,
)
from ddnl_ray.distill.rcig_rates import FIRST_LR_HESSIAN, FIRST_LR_INNER, falls, largest_rate, rate_change
from ddnl_ray.errors import RequestError
from ddnl_ray.models import DoublingConvNet, Flat
from ddnl_ray.seeds import SeedTree

NOISE_SCALE = 0.3
READOUT = "classifier.weight"


@dataclass(frozen=True)
class RcigState(State):
    """State of a run of RCIG; ``n`` images in C classes, M networks.

    Attributes:
        updates: Iterations whose update was applied.
        images: [n, C, H, W], class by class.
        labels: Centred targets [n, C]: a hard label is 1 - 1 / C at its class, and -1 / C elsewhere.
        temperature: The logits are multiplied by its exponential, scalar.
        images_first, images_second: Moments of the images.
        labels_first, labels_second: Moments of the labels.
        temperature_first, temperature_second: Moments of the temperature.
        average_images: Moving sum of the images, not yet corrected for its start at 0.
        average_labels: The same of the labels.
        networks, networks_first, networks_second: The pool's weights and moments [M, P].
        ages: Training steps of each, int64 [M].
        lr_inner: Learning rate of the inner problem, float64.
        lr_hessian: Learning rate of the implicit system, float64.
        window: Since the inner rate was last adapted: iterations, those that ended with a higher inner loss, and those
            in which each step lowered it, int64 [3].
    """

    updates: int
    images: Tensor
    labels: Tensor
    temperature: Tensor
    images_first: Tensor
    images_second: Tensor
    labels_first: Tensor
    labels_second: Tensor
    temperature_first: Tensor
    temperature_second: Tensor
    average_images: Tensor
    average_labels: Tensor
    networks: Tensor
    networks_first: Tensor
    networks_second: Tensor
    ages: Tensor
    lr_inner: Tensor
    lr_hessian: Tensor
    window: Tensor

    @property
    def pool(self) -> Pool:
        """The pool of networks."""
        return Pool(self.networks, self.networks_first, self.networks_second, self.ages)


@dataclass(frozen=True)
class Slopes:
    """What one iteration knows.

    Attributes:
        loss: The outer loss, with the labels' margin, scalar.
        images: Its derivative by the images [n, C, H, W].
        labels: By the labels [n, classes].
        temperature: By the temperature, scalar.
        inner: Inner losses on the way.
    """

    loss: Tensor
    images: Tensor
    labels: Tensor
    temperature: Tensor
    inner: Tensor


@dataclass(frozen=True)
class Rcig(Method[RcigState]):
    """Convexified implicit gradients."""

    config: RcigConfig
    name: ClassVar[str] = "rcig"
    state: ClassVar[type[RcigState]] = RcigState
    needs_network: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> RcigState:
        """Return the first state (see :meth:`Method.init`), with tuned learning rates."""
        own, config = seed.child("init"), self.config
        images = first_images(problem, own, View(), config.init)
        if config.init == "noise":
            images = NOISE_SCALE * images
        labels = F.one_hot(class_labels(problem), problem.num_classes).to(images) - 1 / problem.num_classes
        pool = Pool.fresh(problem, config.pool_size, own.child("pool"))
        nothing = images.new_zeros(())
        rates = self._tuned(images, labels, problem, own.child("tune"))
        window = torch.zeros(3, dtype=torch.int64, device=problem.device)
        zeros = {
            f"{name}_{which}": torch.zeros_like(tensor)
            for name, tensor in (("images", images), ("labels", labels), ("temperature", nothing))
            for which in ("first", "second")
        }
        values: dict[str, Any] = zeros | {
            "average_images": torch.zeros_like(images),
            "average_labels": torch.zeros_like(labels),
            "networks": pool.weights,
            "networks_first": pool.first,
            "networks_second": pool.second,
            "ages": pool.ages,
            "lr_inner": rates[0],
            "lr_hessian": rates[1],
            "window": window,
        }
        return RcigState(0, 0, images, labels, nothing, **values)

    def step(self, state: RcigState, problem: Problem, seed: SeedTree) -> tuple[RcigState, StepInfo]:
        """Move images, labels and temperature under one network, then train it (see :meth:`Method.step`)."""
        config, own = self.config, seed.child("step", state.iteration)
        generator, given = own.child("choose").torch(), state
        index = int(torch.randint(config.pool_size, (), generator=generator))
        steps = int(torch.randint(1, config.pool_steps + 1, (), generator=generator))
        network = self._network(problem)
        rows = passes(len(problem.images), config.batch_real, state.iteration, seed).to(problem.device)
        slopes = self._slopes(state, network, state.networks[index], problem, rows)
        state = self._adapted(self._moved(state, slopes), slopes.inner)
        x, y = self._mirrored(state.images, state.labels)
        source = own.child("pool")
        pool = state.pool.trained(
            index, network, x, y, steps, config.lr_net, config.batch_pool, source.child("batches"), problem.smaller
        ).renewed(index, config.max_age, problem, source.child("network"))
        state = dataclasses.replace(
            state, networks=pool.weights, networks_first=pool.first, networks_second=pool.second, ages=pool.ages
        )
        finite = torch.stack([tensor.isfinite().all() for tensor in _changed(state, index)]).all()
        if not bool(finite & slopes.loss.isfinite()):
            return dataclasses.replace(given, iteration=given.iteration + 1), StepInfo(float("nan"), accepted=False)
        return state, StepInfo(float(slopes.loss), accepted=True)

    def export(self, state: RcigState, problem: Problem) -> Distilled:
        """Return the averaged images and labels."""
        images, labels = state.images.clone(), state.labels.clone()
        if state.updates:
            share = 1 - self.config.ema_decay**state.updates
            images, labels = state.average_images / share, state.average_labels / share
        return Distilled(images.float(), labels.float(), scores=True, mirrored=self.config.flip)

    def _network(self, problem: Problem) -> Flat:
        """Return the problem's network with the activation of distillation."""
        assert problem.network is not None
        module, softplus = problem.network.module, self.config.softplus
        if not softplus:
            return problem.network
        if not isinstance(module, DoublingConvNet):
            raise RequestError(
                f"softplus is {softplus}, but {type(module).__name__} cannot change its activation; "
                "set rcig.softplus to 0, or model.name to doubling3"
            )
        return Flat(module.smoothed(softplus))

    def _mirrored(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and labels with their mirrored copies, where these count."""
        if not self.config.flip:
            return images, labels
        return torch.cat([images, images.flip(-1)]), torch.cat([labels, labels])

    def _folded(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of images and labels from those with mirrored copies."""
        if not self.config.flip:
            return images, labels
        (own, other), (first, second) = images.chunk(2), labels.chunk(2)
        return own + other.flip(-1), first + second

    def _support(self, images: Tensor, labels: Tensor, network: Flat, theta: Tensor, problem: Problem) -> Support:
        x, y = self._mirrored(images, labels)
        ridge = self.config.l2_rate * len(images)
        memory = problem.graph_memory
        return Support(network, theta, x, y, ridge, readout_weights(network), memory, problem.smaller)

    def _slopes(self, state: RcigState, network: Flat, theta: Tensor, problem: Problem, rows: Tensor) -> Slopes:
        """Return the meta-gradient under one network."""
        config = self.config
        exact, frozen = config.solver == "cg", config.hessian == "exact"
        support = self._support(state.images, state.labels, network, theta, problem)
        omega, inner = solve_inner(support, state.lr_inner, config.inner_steps, exact)
        outer = outer_loss(support, omega, state.temperature, problem.images[rows], problem.labels[rows], frozen)
        xi, _ = solve_hessian(support, outer.omega, state.lr_hessian, config.hessian_steps, exact, frozen)
        direct = self._folded(*direct_gradient(support, omega, outer))
        implicit = self._folded(*implicit_gradient(support, omega, xi, outer))
        loss = outer.loss
        if config.margin:
            value, slope = label_margin(state.labels)
            loss, direct = loss - value, (direct[0], direct[1] - slope)
        pairs = zip(direct, implicit, strict=True)
        images, labels = (own + (clipped(other, own) if config.clip else other) for own, other in pairs)
        return Slopes(loss, images, labels, outer.temperature, inner)

    def _moved(self, state: RcigState, slopes: Slopes) -> RcigState:
        """Return the state after the update by AdaBelief, with its average; the pool is as it was."""
        config, taken = self.config, state.updates
        pixels, degree = AdaBelief(config.lr_img), AdaBelief(config.lr_temperature)
        images, own = pixels.step(state.images, Moments(state.images_first, state.images_second), slopes.images, taken)
        labels, soft = pixels.step(state.labels, Moments(state.labels_first, state.labels_second), slopes.labels, taken)
        moments = Moments(state.temperature_first, state.temperature_second)
        temperature, heat = degree.step(state.temperature, moments, slopes.temperature, taken)
        share = 1 - config.ema_decay
        return dataclasses.replace(
            state,
            iteration=state.iteration + 1,
            updates=taken + 1,
            images=images,
            labels=labels,
            temperature=temperature,
            images_first=own.first,
            images_second=own.second,
            labels_first=soft.first,
            labels_second=soft.second,
            temperature_first=heat.first,
            temperature_second=heat.second,
            average_images=state.average_images.lerp(images, share),
            average_labels=state.average_labels.lerp(labels, share),
        )

    def _adapted(self, state: RcigState, inner: Tensor) -> RcigState:
        """Return the state whose window has seen the inner losses, and whose inner rate follows the window."""
        every = self.config.adapt_every
        if not every or self.config.solver == "cg":
            return state
        seen = torch.stack([torch.ones_like(inner[0]), inner[-1] > inner[0], falls(inner)]).to(torch.int64)
        window, lr = state.window + seen, state.lr_inner
        if state.updates % every == 0:
            lr = lr * rate_change(window)
            window = torch.zeros_like(window)
        return dataclasses.replace(state, window=window, lr_inner=lr)

    def _tuned(self, images: Tensor, labels: Tensor, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor]:
        """Return the learning rates of both inner systems: those given, else tuned ones."""
        config, network = self.config, self._network(problem)
        given = (config.lr_inner, config.lr_hessian)
        inner, hessian = (torch.tensor(lr or 0.0, dtype=torch.float64, device=images.device) for lr in given)
        if config.solver == "cg" or None not in given:
            return inner, hessian
        assert problem.network is not None
        theta = problem.network.fresh(seed.child("network").torch()).to(images.dtype)
        support = self._support(images, labels, network, theta, problem)
        if config.lr_inner is None:
            inner = largest_rate(lambda lr: solve_inner(support, lr, config.inner_steps)[1], inner + FIRST_LR_INNER)
        if config.lr_hessian is None:
            frozen = config.hessian == "exact"
            rows = passes(len(problem.images), config.batch_real, 0, seed).to(problem.device)
            omega, _ = solve_inner(support, inner, config.inner_steps)
            real = problem.images[rows], problem.labels[rows]
            gradient = outer_loss(support, omega, images.new_zeros(()), *real, frozen).omega
            hessian = largest_rate(
                lambda lr: solve_hessian(support, gradient, lr, config.hessian_steps, frozen=frozen)[1],
                hessian + FIRST_LR_HESSIAN,
            )
        return inner, hessian


def passes(num: int, batch: int, iteration: int, seed: SeedTree) -> Tensor:
    """Return the rows of an iteration's batch, int64 [min(batch, num)]: the iterations go through shuffled passes."""
    size = min(batch, num)
    first, last = iteration * size, (iteration + 1) * size
    orders = [
        torch.randperm(num, generator=seed.child("pass", number).torch())
        for number in range(first // num, (last - 1) // num + 1)
    ]
    start = first % num
    return torch.cat(orders)[start : start + size]


def readout_weights(network: Flat) -> slice:
    """Return where the flat weights hold the matrix of the linear layer, which is solved for."""
    first = 0
    for name, shape in network.shapes.items():
        if name == READOUT:
            return slice(first, first + shape.numel())
        first += shape.numel()
    raise RequestError(f"rcig needs a network that ends in {READOUT}, but {type(network.module).__name__} does not")


def label_margin(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean gap between the two largest entries of labels [n, C], each cut at 1 / (2 C), and its derivative.

    A label whose gap is cut has derivative 0.
    """
    num, classes = labels.shape
    (first, second), places = (found.unbind(1) for found in labels.topk(2, dim=1))
    gap, limit = first - second, 1 / (2 * classes)
    share = (gap < limit).to(labels.dtype).unsqueeze(1) / num
    slope = torch.zeros_like(labels)
    slope.scatter_(1, places[0].unsqueeze(1), share)
    slope.scatter_(1, places[1].unsqueeze(1), -share)
    return gap.clamp_max(limit).mean(), slope


def clipped(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return a gradient scaled down to the norm of a reference; a shorter one is left as it is."""
    norm, most = gradient.norm(), reference.norm()
    return gradient * torch.where(norm > most, most / norm, 1)


def _changed(state: RcigState, index: int) -> list[Tensor]:
    """Return the tensors that a step may have changed; of the pool one network's."""
    pool = state.pool
    fields = [tensor for name, tensor in vars(state).items() if isinstance(tensor, Tensor) and "networks" not in name]
    return [*fields, pool.weights[index], pool.first[index], pool.second[index]]
