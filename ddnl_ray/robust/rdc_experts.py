"""RDC on trajectory methods: experts that learn semi-supervised, each from a golden set of its own.

A reconstruction: Kim and Song (ICCV 2025) report RDC on MTT and DATM in a supplement that could not be had. An expert
learns from all images with their observed labels for ``warm_up`` epochs, then from its golden set
(:mod:`ddnl_ray.robust.golden`) by the loss of :mod:`ddnl_ray.robust.semi`. The set is made anew after every epoch, from
the losses of all its snapshots from the end of the warm-up on.

How it is reconstructed:
    - the optimizer, the learning rate and the number of steps of an epoch are those of the plain expert; the batches
      are RDC's. Warm-up epochs are those of the plain expert, bit for bit; afterwards the augmentation is that of the
      semi-supervised loss, and nothing is mixed by CutMix;
    - under GSAM the perturbed weights are judged on the same views and targets: refined and guessed labels come from
      the weights before the perturbation;
    - before the first mixture that tells samples apart the warm-up goes on;
    - losses are those of the snapshots as they are stored, so that they can be had again from the store: a trajectory
      stops after any epoch and goes on bit for bit, and nothing but snapshots is kept;
    - after the warm-up experts learn one after the other: each has batches of other images.

The warm-up must be long enough for the experts' rate: what they cannot tell when it ends is not golden, so that they do
not learn it, and losses that are never forgotten keep it out. On the digits (symmetric noise 0.4, one draw, one expert
of MTT's recipe, 16 epochs, 0.88 on the test images without RDC) a warm-up of 2, 4, 6, 8 and 11 epochs ends at 0.47,
0.66, 0.84, 0.82 and 0.84.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddnl_ray.data import PreparedData
from ddnl_ray.distill.base import Problem
from ddnl_ray.experts import (
    BufferId,
    ExpertRecipe,
    ExpertStore,
    TrainingState,
    Trajectory,
    build_experts,
    train_expert,
    training_labels,
)
from ddnl_ray.experts.buffer import DTYPES
from ddnl_ray.experts.gsam import gsam_direction, loss_and_gradient
from ddnl_ray.experts.policy import Plain
from ddnl_ray.experts.precision import products, require_precision
from ddnl_ray.experts.train import require_finite
from ddnl_ray.models import Flat, build
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.robust.derived import Derived, Inputs
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc import Mined, judged
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.semi import draw_batch, semi_supervised_loss
from ddnl_ray.robust.stages import snapshots
from ddnl_ray.seeds import SeedTree

MINING = ("warm_up", "restarts", "confidence")
"""The settings that golden sets follow from, given the experts."""
LEARNING = (
    *("ssl", "labelled_batch", "unlabelled_batch", "unlabelled_weight", "alpha", "sharpen_temperature", "flip"),
    *MINING,
)
"""The settings that experts depend on."""


@dataclass(frozen=True)
class GoldenSource:
    """Experts with golden sets (a :class:`ddnl_ray.experts.policy.PolicySource`)."""

    config: RdcConfig

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that experts depend on."""
        return {"rdc": {name: getattr(self.config, name) for name in sorted(LEARNING)}}

    def plain_epochs(self, done: int, last: int, batch_size: int) -> float:
        """Return what it takes to train from one epoch to another, in epochs of a plain expert.

        Of the three passes of a training step over an image, forth and twice back, judging an image takes one.
        """
        config, labelled, unlabelled = self.config, self.config.labelled_batch, self.config.unlabelled_batch
        released = config.ssl == "released"
        per_step = labelled if released else 3 * labelled + 2 * unlabelled + 2 * (labelled + unlabelled) / 3
        warm = max(0, min(last, first_mined(config)) - done)
        return warm + (last - done - warm) * (per_step / batch_size + 1 / 3)

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Plain:
        """Return the policy of the warm-up (see :class:`PolicySource`)."""
        return Plain(labels)


@dataclass(frozen=True)
class GoldenSets(Derived):
    """The golden set of every expert at its end."""

    kind: ClassVar[str] = "golden"
    experts: BufferId
    num_experts: int
    config: RdcConfig

    @property
    def identity(self) -> dict[str, Any]:
        """The experts, how many, where they end, and the settings of the mining."""
        return {
            "experts": self.experts.key,
            "num_experts": self.num_experts,
            "epoch": self.experts.recipe.epochs,
            "mining": {name: getattr(self.config, name) for name in MINING},
            "seed": self.experts.seed,
        }

    @property
    def expert_epochs(self) -> float:
        """Every expert looks at all images at the end of every epoch after the warm-up."""
        return self.num_experts * max(0, self.experts.recipe.epochs + 1 - first_mined(self.config)) / 3

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Mine the snapshots of every expert again: labels [E, N], members, relabelled ones and weights."""
        images, recipe = inputs.data.train_images, self.experts.recipe
        problem = mining_problem(images, inputs.labels, inputs.data.num_classes, recipe)
        mined = [
            replayed(problem, partial(_stored, inputs.store, self.experts, index), recipe.epochs, self.config)
            for index in range(self.num_experts)
        ]
        return {
            "labels": torch.stack([each.golden_labels for each in mined]).int(),
            "member": torch.stack([each.golden_member for each in mined]),
            "relabelled": torch.stack([each.golden_relabelled for each in mined]),
            "weight": torch.stack([each.golden_weight for each in mined]),
        }, {}

    def sets(self, root: Path, device: torch.device | str) -> tuple[Golden, ...]:
        """Return the golden set of every expert; one that has found none has no members."""
        tensors = {name: each.to(device) for name, each in self.read(root)[0].items()}
        named = ("labels", "member", "relabelled", "weight")
        rows = zip(*(tensors[name] for name in named), strict=True)
        return tuple(Golden(labels.long(), *others) for labels, *others in rows)


def first_mined(config: RdcConfig) -> int:
    """Return the first epoch whose snapshot is asked for its losses: the end of the warm-up, but not the start."""
    return max(config.warm_up, 1)


def mining_problem(images: Tensor, labels: Tensor, num_classes: int, recipe: ExpertRecipe) -> Problem:
    """Return training images [N, C, H, W], observed labels [N] and an expert's network as a problem."""
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    network = Flat(build(recipe.network, shape, num_classes, SeedTree.root(0).torch(), images.device))
    return Problem(images, labels, num_classes, ipc=None, network=network, augment=None)


def replayed(problem: Problem, snapshot: Callable[[int], Tensor], last: int, config: RdcConfig) -> Mined:
    """Return what an expert has mined at the end of an epoch, from its snapshots.

    That is what :meth:`Mined.refreshed` gives epoch after epoch, but for ``refresh``, which is 1 where it is more: the
    last mixture that tells samples apart decides, so that the others are not fitted.

    Args:
        problem: Training images, observed labels and network.
        snapshot: Gives the expert's stored weights [P] after an epoch.
        last: The epoch.
        config: Settings.
    """
    nothing, epochs = Mined.nothing(problem), range(first_mined(config), last + 1)
    sums = [nothing.accumulated]
    for epoch in epochs:
        sums.append(sums[-1] + judged(problem, snapshot(epoch).to(problem.images))[1])
    for epoch, before in zip(reversed(epochs), reversed(sums[:-1]), strict=True):
        weights = snapshot(epoch).to(problem.images)
        found = replace(nothing, accumulated=before).refreshed(problem, weights, config)
        if found.refresh:
            return replace(found, accumulated=sums[-1])
    return replace(nothing, accumulated=sums[-1])


def build_golden_experts(
    data: PreparedData,
    labels: NoisyLabels,
    buffer: BufferId,
    indices: Sequence[int],
    last_epoch: int,
    store: ExpertStore,
) -> None:
    """Train experts with golden sets up to an epoch, and store what is new (see :func:`build_experts`).

    They are warmed up together, and stored; then each goes on by itself.
    """
    assert isinstance(buffer.policy, GoldenSource)
    config = buffer.policy.config
    build_experts(data, labels, buffer, indices, min(last_epoch, first_mined(config)), store)
    recipe = replace(buffer.recipe, epochs=last_epoch)
    problem = mining_problem(data.train_images, training_labels(data, labels), data.num_classes, recipe)
    for index in indices:
        start = store.end(buffer.key, index)
        assert start is not None
        if start.epoch < last_epoch:
            mined = replayed(problem, partial(_stored, store, buffer, index), start.epoch, config)
            trained = learn_on(problem, recipe, buffer.seeds(index), start, mined, config, buffer.dtype)
            store.save(buffer, index, trained)


def learn_on(
    problem: Problem,
    recipe: ExpertRecipe,
    seed: SeedTree,
    start: TrainingState,
    mined: Mined,
    config: RdcConfig,
    dtype: str = "float32",
) -> Trajectory:
    """Train a warm expert up to epoch ``recipe.epochs``; return the snapshots that follow ``start``.

    Args:
        problem: Training images, observed labels and network.
        recipe: Optimizer, steps per epoch and length.
        seed: The expert's: of each epoch what is drawn in it.
        start: Where it stands.
        mined: What it has mined there.
        config: Settings; ``ssl`` is not ``none``.
        dtype: How snapshots are stored: their losses are those of rounded weights.

    Raises:
        RequestError: Training diverged, or the device cannot compute in the recipe's precision.
    """
    require_precision(recipe.precision, problem.device)
    losses: list[float] = []
    kept: list[Tensor] = []
    state = start
    for epoch in range(start.epoch, recipe.epochs):
        golden = mined.golden
        if golden is None:
            once = replace(recipe, epochs=epoch + 1)
            plain = train_expert(problem.images, problem.labels, problem.num_classes, once, seed, state)
            state, loss = plain.end, plain.losses[0]
        else:
            with products(recipe.precision, problem.device):
                state, loss = _golden_epoch(problem, recipe, seed, state, golden, config)
            require_finite([[loss]], epoch, recipe)
        losses.append(loss)
        kept.append(state.weights.cpu().clone())
        stored = state.weights.to(DTYPES[dtype]).to(problem.images)
        mined = mined.refreshed(problem, stored, config)
    velocity = state.velocity.cpu().clone() if state.velocity is not None and recipe.momentum else None
    return Trajectory(torch.stack(kept), losses, start.epoch + 1, velocity)


def _golden_epoch(
    problem: Problem, recipe: ExpertRecipe, seed: SeedTree, start: TrainingState, golden: Golden, config: RdcConfig
) -> tuple[TrainingState, float]:
    """Return the state after an epoch of semi-supervised steps, and their mean loss."""
    theta = start.weights.to(problem.images)
    velocity = torch.zeros_like(theta) if start.velocity is None else start.velocity.to(theta)
    steps, total = -(-len(problem.images) // recipe.batch_size), theta.new_zeros(())
    for step in range(steps):
        own = seed.child("golden", start.epoch, step)
        loss, direction = _direction(problem, recipe, theta, golden, start.epoch + step / steps, config, own)
        velocity = recipe.momentum * velocity + direction + recipe.weight_decay * theta
        theta = theta - recipe.lr_at(start.epoch) * velocity
        total += loss
    return TrainingState(start.epoch + 1, theta, velocity if recipe.momentum else None), float(total) / steps


def _direction(
    problem: Problem,
    recipe: ExpertRecipe,
    theta: Tensor,
    golden: Golden,
    epoch: float,
    config: RdcConfig,
    seed: SeedTree,
) -> tuple[Tensor, Tensor]:
    """Return the loss of a step and its update direction [P]."""
    assert problem.network is not None
    flat, images = problem.network, problem.images
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else theta.dtype
    batch = draw_batch(golden, config.labelled_batch, config.unlabelled_batch, seed.child("batch").torch())

    def network(weights: Tensor, x: Tensor) -> Tensor:
        return flat(weights.to(dtype), x.to(dtype)).to(weights.dtype)

    def loss(weights: Tensor) -> Tensor:
        own = seed.child("loss")
        return semi_supervised_loss(network, weights, images, golden, batch, epoch, config, own, teacher=theta)

    differentiate = partial(loss_and_gradient, loss)
    if recipe.optimizer == "gsam":
        return gsam_direction(differentiate, theta, recipe.rho, recipe.alpha)
    return differentiate(theta)


def _stored(store: ExpertStore, buffer: BufferId, index: int, epoch: int) -> Tensor:
    """Return one snapshot of an expert [P], on the CPU."""
    return snapshots(store, buffer, index, [epoch])[0]
