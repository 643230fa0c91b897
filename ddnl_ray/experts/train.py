"""Training of expert trajectories on the device, without a data loader: one, or several in lock-step.

Experts that train together take their steps together: one forward pass (``torch.func.vmap``) and one backward pass over
stacked weights [E, P]. Each keeps its own initialisation, order and augmentation: up to rounding, it is the expert that
trains alone, whoever the others are. That is for GPUs: on one CPU core, with a ConvNet-3 of width 16, four together
take 1.1 (8 x 8 digits) to 1.7 times (32 x 32) the time of four in turn (torch 2.15, process time, n = 4 experts).

Differs from the original (MTT's buffer script):
    - snapshots are copies (there they alias the live weights when training runs on a CPU);
    - every random number comes from the seed tree;
    - the learning rate is constant (there an optional flag divides it by 10 half-way; no published setting uses it);
      the experts of the IDC lineage (DANCE, Acc-DD) have the schedule ``thirds``, and CutMix;
    - a mixed batch whose images are weighted weighs either label like the image that the label is from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import augmentation, mixing
from ddnl_ray.errors import RequestError
from ddnl_ray.experts.batches import Batch, batches
from ddnl_ray.experts.gsam import gsam_direction, loss_and_gradient
from ddnl_ray.experts.policy import Plain, Policy
from ddnl_ray.experts.precision import products, require_precision
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.models import Flat, build
from ddnl_ray.models.parts import part_size
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class TrainingState:
    """All from which the training of an expert goes on, bit for bit.

    Attributes:
        epoch: Epochs that are done.
        weights: Weights after them [P], float32.
        velocity: Momentum buffer after them [P], float32; None where the recipe has no momentum.
    """

    epoch: int
    weights: Tensor
    velocity: Tensor | None


@dataclass(frozen=True)
class Trajectory:
    """One expert, or a later part of one.

    Attributes:
        snapshots: Weights [S, P], float32, on the CPU: before training (epoch 0) and after every epoch, from
            ``first_epoch`` on.
        losses: Mean training loss of every epoch that was trained (on augmented batches, against the observed labels).
        first_epoch: Epoch of the first snapshot; 0 unless training went on from a later state.
        velocity: Momentum buffer at the end [P], float32, on the CPU; None where the recipe has no momentum.
    """

    snapshots: Tensor
    losses: list[float]
    first_epoch: int = 0
    velocity: Tensor | None = None

    @property
    def end(self) -> TrainingState:
        """The state from which training would go on."""
        return TrainingState(self.first_epoch + len(self.snapshots) - 1, self.snapshots[-1], self.velocity)


def train_expert(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    seed: SeedTree,
    start: TrainingState | None = None,
) -> Trajectory:
    """Train one expert (see :func:`train_experts`)."""
    starts = None if start is None else [start]
    return train_experts(images, labels, num_classes, recipe, [seed], starts)[0]


def train_experts(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    seeds: Sequence[SeedTree],
    starts: Sequence[TrainingState] | None = None,
    policy: Policy | None = None,
    experts: Sequence[int] | None = None,
) -> list[Trajectory]:
    """Train experts in lock-step up to epoch ``recipe.epochs`` and keep their trajectories.

    A trajectory is a prefix of an endless one: each epoch draws from a seed of its own, and nothing depends on how many
    follow. The device holds what one forward and backward pass of every expert needs, the main memory every trajectory.

    Args:
        images: Training images in the transformed space [N, C, H, W], on the device; weights are of their type.
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        recipe: Network, optimizer and length.
        seeds: One per expert: determines initialisation, order and augmentation.
        starts: Go on from these, one per expert and all of one epoch, and return only the snapshots that follow; None:
            from the initialisations.
        policy: What the experts learn from; None: every image, with its label.
        experts: The indices by which the policy knows the experts; None: 0, 1, ...

    Raises:
        RequestError: Training diverged (a loss is not finite), or the device cannot compute in the recipe's precision.
        ValueError: There is not one start per expert, or they are of several epochs.
    """
    require_precision(recipe.precision, images.device)
    network, theta, velocity = _begin(images, num_classes, recipe, seeds, starts)
    done, first = (0, 0) if starts is None else (starts[0].epoch, starts[0].epoch + 1)
    snapshots = [torch.empty(recipe.epochs + 1 - first, network.num_params, dtype=theta.dtype) for _ in seeds]
    if starts is None:
        _keep(snapshots, 0, theta)
    losses: list[list[float]] = [[] for _ in seeds]
    augment, mix = augmentation(recipe.augment), mixing(recipe.cutmix)
    policy = policy or Plain(labels)
    names = range(len(seeds)) if experts is None else experts
    with products(recipe.precision, images.device):
        for epoch in range(done, recipe.epochs):
            generators = [seed.child("epoch", epoch).torch() for seed in seeds]
            total = torch.zeros(len(seeds), dtype=theta.dtype, device=images.device)
            lessons = [policy.lesson(name, epoch, network, own) for name, own in zip(names, theta, strict=True)]
            for batch in batches(images, lessons, recipe.batch_size, augment, mix, generators):
                loss, direction = _direction(network, batch, theta, recipe, policy.consistency)
                velocity = recipe.momentum * velocity + direction + recipe.weight_decay * theta
                theta = theta - recipe.lr_at(epoch) * velocity
                total += loss * batch.labels.shape[1]
            _keep(snapshots, epoch + 1 - first, theta)
            for own, value in zip(losses, total.tolist(), strict=True):
                own.append(value / len(images))
            require_finite(losses, epoch, recipe)
    ends = [each.cpu().clone() if recipe.momentum else None for each in velocity]
    kept = zip(snapshots, losses, ends, strict=True)
    return [Trajectory(own, means, first, end) for own, means, end in kept]


def _begin(
    images: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    seeds: Sequence[SeedTree],
    starts: Sequence[TrainingState] | None,
) -> tuple[Flat, Tensor, Tensor]:
    """Return the network, and the weights and momentum [E, P] from which training starts."""
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    networks = [Flat(build(recipe.network, shape, num_classes, seed.child("init").torch())) for seed in seeds]
    if starts is None:
        theta = torch.stack([network.flatten() for network in networks]).to(images)
        return networks[0], theta, torch.zeros_like(theta)
    if len(starts) != len(seeds) or len({start.epoch for start in starts}) != 1:
        epochs = ", ".join(str(start.epoch) for start in starts)
        raise ValueError(f"{len(seeds)} experts need as many starts, all of one epoch, but got epochs {epochs}")
    theta = torch.stack([start.weights for start in starts]).to(images)
    still = torch.zeros_like(starts[0].weights)
    velocity = torch.stack([start.velocity if start.velocity is not None else still for start in starts])
    return networks[0], theta, velocity.to(images)


def _keep(snapshots: list[Tensor], row: int, theta: Tensor) -> None:
    """Copy the weights [E, P] of every expert into a row of its snapshots."""
    for own, weights in zip(snapshots, theta.cpu(), strict=True):
        own[row] = weights


def require_finite(losses: list[list[float]], epoch: int, recipe: ExpertRecipe) -> None:
    """Check the last loss of every expert.

    Raises:
        RequestError: One is not finite.
    """
    for own in losses:
        if not own[-1] < float("inf"):
            raise RequestError(
                f"an expert diverged in epoch {epoch + 1} (loss {own[-1]}); lower experts.lr (it is {recipe.lr})"
            )


def _direction(
    network: Flat, batch: Batch, theta: Tensor, recipe: ExpertRecipe, consistency: float
) -> tuple[Tensor, Tensor]:
    """Return the batch losses [E] and the update directions [E, P].

    Only the forward pass is mapped over experts. Autograd differentiates the sum of their losses, each of which depends
    on its own weights alone: unlike ``torch.func.grad``, it records no graph of the backward pass. A batch goes through
    in parts (see :mod:`ddnl_ray.models.parts`), each with its share of the mean.
    """
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else theta.dtype
    num = batch.labels.shape[1]

    def alone(weights: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        logits = network(weights.to(dtype), own["images"].to(dtype)).to(weights.dtype)
        loss = sample_loss(logits, own["labels"], own.get("weights"), consistency)
        if "own" in own:
            other = sample_loss(logits, own["labels_other"], own.get("weights_other"), consistency)
            loss = own["own"] * loss + (1 - own["own"]) * other
        return loss

    def loss(weights: Tensor, rows: slice) -> Tensor:
        own = batch.part(rows)
        losses: Tensor
        if len(weights) == 1:
            losses = alone(weights[0], {name: value[0] for name, value in own.items()}).unsqueeze(0)
        else:
            losses = torch.func.vmap(alone)(weights, own)
        return losses * (own["labels"].shape[1] / num)

    size = part_size(network.module, batch.images.shape[-1], batch.images.device)
    assert size is not None  # a flat network has no batch normalisation
    parts = [slice(first, first + size) for first in range(0, num, size)]

    def differentiate(weights: Tensor) -> tuple[Tensor, Tensor]:
        found = [loss_and_gradient(partial(loss, rows=rows), weights) for rows in parts]
        value, gradient = found[0]
        for more, turn in found[1:]:
            value, gradient = value + more, gradient + turn
        return value, gradient

    if recipe.optimizer == "gsam":
        return gsam_direction(differentiate, theta, recipe.rho, recipe.alpha)
    return differentiate(theta)


def sample_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, consistency: float) -> Tensor:
    """Return the mean training loss of a batch: weighted cross-entropy, and TAD's consistency term.

    For one-hot labels the reverse cross-entropy with the negative constant A for log 0 is ``-A (1 - p_y)``.

    Args:
        logits: [B, classes].
        labels: int64 [B].
        weights: Weight of every image [B]; the sum is divided by B whatever they are; None: all 1.
        consistency: Weight of the mean of ``1 - p_y``, that is lambda |A|.
    """
    if weights is None:
        loss = F.cross_entropy(logits, labels)
    else:
        loss = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
    if consistency:
        own = logits.softmax(1).gather(1, labels.unsqueeze(1))
        loss = loss + consistency * (1 - own).mean()
    return loss
