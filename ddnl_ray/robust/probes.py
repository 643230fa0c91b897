"""Probe experts, what they find hard, and the anchors that are distilled from their first epochs.

For TAD (Wu et al. 2025, arXiv 2502.05027). A probe is an expert whose trajectory nobody distils: its losses say which
labels to doubt, and its first epochs, in which hardly any wrong label has been learnt, give synthetic images that
stand for the classes.

Differs from the original (what it leaves open):
    - the anchors are made by the base method with its own hyper-parameters, but for the number of iterations and the
      epochs: it matches no epoch past the early ones, from epoch 0 on, without a window that widens. Experts' last
      weights, where it reads them (DATM), are those after the early epochs;
    - the first anchors are those that the base method takes: random images of the observed class, but for DATM those
      that the probes agree with;
    - the images of a class keep its label: DATM's soft labels are learnt, but do not move an image to another class;
    - the last images are taken where the method could hand over a moving average (FTD, ATT), which the few iterations
      would leave at the first images; TESLA's labels stay hard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Augment
from ddnl_ray.distill import METHODS, Problem
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts import ArrayExperts, ExpertRecipe, Trajectory, train_experts
from ddnl_ray.experts.policy import Policy
from ddnl_ray.models import Flat
from ddnl_ray.models.parts import part_size
from ddnl_ray.seeds import SeedTree

_EARLY = {"min_start_epoch": 0, "current_max_start_epoch": None, "export": "last", "teacher_label": False}


def train_probes(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    seeds: Sequence[SeedTree],
    policy: Policy,
) -> list[Trajectory]:
    """Train probes to epoch ``recipe.epochs``: together on a GPU, one after another on a CPU.

    Args:
        images: Training images in the transformed space [N, C, H, W].
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        recipe: Network, optimizer and length.
        seeds: One per probe.
        policy: What they learn from.

    Raises:
        RequestError: Training diverged.
    """
    size = len(seeds) if images.is_cuda else 1
    found = []
    for first in range(0, len(seeds), size):
        group = range(first, first + size)
        own = [seeds[index] for index in group]
        found += train_experts(images, labels, num_classes, recipe, own, policy=policy, experts=group)
    return found


@torch.no_grad()
def sample_losses(network: Flat, weights: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every sample against its label, without augmentation [N].

    Args:
        network: The network.
        weights: Flat weights [P]; the mean over them is taken.
        images: [N, C, H, W].
        labels: int64 [N].
    """
    size = part_size(network.module, images.shape[-1], images.device)
    assert size is not None  # a flat network has no batch normalisation
    total = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    for own in weights:
        theta = own.to(images)
        parts = zip(images.split(size), labels.split(size), strict=True)
        total += torch.cat([F.cross_entropy(network(theta, x), y, reduction="none") for x, y in parts])
    return total / len(weights)


def probe_losses(
    probes: Sequence[Trajectory], network: Flat, images: Tensor, labels: Tensor, loss_epochs: int
) -> Tensor:
    """Return the mean of :func:`sample_losses` over the last ``loss_epochs`` epochs of all probes [N]."""
    weights = [theta for probe in probes for theta in probe.snapshots[-loss_epochs:]]
    return sample_losses(network, weights, images, labels)


def early_config(name: str, params: Mapping[str, Any], iterations: int, last_epoch: int) -> Any:
    """Return the configuration of a trajectory-matching method that matches epochs 0 to ``last_epoch`` only.

    Args:
        name: The method.
        params: Its hyper-parameters.
        iterations: Outer updates.
        last_epoch: The last epoch that is matched.

    Raises:
        RequestError: The method is unknown or matches no trajectories, or a hyper-parameter is out of range.
    """
    bases = [own for own in METHODS if METHODS[own].method.matches_trajectories]
    kind = METHODS[require_known("base method", name, bases)]
    config = kind.config(**params)
    length = min(config.expert_epochs, last_epoch)
    starts = min(config.max_start_epoch, last_epoch - length + 1)
    known = {field.name for field in dataclasses.fields(config)}
    changes: dict[str, Any] = {key: value for key, value in _EARLY.items() if key in known}
    changes |= {"iterations": iterations, "expert_epochs": length, "max_start_epoch": starts}
    return dataclasses.replace(config, **changes)


def distil_anchors(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    network: Flat,
    probes: Sequence[Trajectory],
    name: str,
    config: Any,
    per_class: int,
    augment: Augment | None,
    seed: SeedTree,
) -> tuple[Tensor, Tensor]:
    """Return anchors in the transformed space [C * n, C, H, W] and their classes, int64 [C * n].

    Args:
        images: Training images in the transformed space [N, C, H, W], from which the first anchors are taken.
        labels: Their labels, int64 [N].
        num_classes: Number of classes, C.
        network: The network of the probes.
        probes: Trajectories from epoch 0 on.
        name: The base method.
        config: From :func:`early_config`.
        per_class: Anchors per class; n is at most the size of the smallest class.
        augment: Augmentation of the base method.
        seed: Determines the anchors.

    Raises:
        RequestError: A class has no image.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    ipc = min(per_class, int(counts.min()))
    if not ipc:
        raise RequestError(
            f"class {int(counts.argmin())} has no training image with that label, so it can have no anchors; "
            "lower the noise rate or raise data.subset"
        )
    last = config.last_epoch
    arrays = [probe.snapshots[: last + 1].numpy() for probe in probes]
    experts = ArrayExperts(arrays, tuple(range(last + 1)), last)
    problem = Problem(images, labels, num_classes, ipc, network, augment, experts)
    method = METHODS[name].method(config)
    state = method.init(problem, seed)
    for _ in range(config.iterations):
        state, _ = method.step(state, problem, seed)
    # Every trajectory method's first images are taken class by class, and images stay in their places.
    classes = torch.arange(num_classes, device=images.device).repeat_interleave(ipc)
    return method.export(state, problem).images, classes
