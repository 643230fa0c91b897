"""TAD's rounds: train probes, distil anchors, split and relabel, train probes on the outcome, and so on.

Wu et al. 2025, arXiv 2502.05027; see :mod:`ddnl_ray.robust.tad`. The seed decides everything: probe p of round r draws
from the child ``("probe", r, p)``, the anchors of round r from ``("anchors", r)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.data import Augment
from ddnl_ray.experts import ExpertRecipe, Trajectory
from ddnl_ray.models import Flat, build
from ddnl_ray.robust.probes import distil_anchors, early_config, probe_losses, train_probes
from ddnl_ray.robust.reliability import Reference, anchor_statistics
from ddnl_ray.robust.rounds import Curation, Round
from ddnl_ray.robust.tad import TadConfig, TadPolicy, split_and_relabel
from ddnl_ray.seeds import SeedTree

Embed = Callable[[Tensor], Tensor]
"""Maps images in the transformed space [n, C, H, W] to features [n, d], each of length 1."""
EMBED_ROWS = 1024


def curate(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    embed: Embed | None,
    base: tuple[str, Mapping[str, Any]],
    augment: Augment | None,
    config: TadConfig,
    seed: SeedTree,
) -> Curation:
    """Decide in ``config.rounds`` rounds which images to train on, with which labels (mode ``rounds``).

    Args:
        images: Training images in the transformed space [N, C, H, W], on the device.
        labels: Observed labels, int64 [N].
        num_classes: Number of classes.
        recipe: How experts are trained; the probes' epochs are those of ``config``.
        embed: The feature extractor; None where nothing is relabelled.
        base: The method that distils the anchors, and its hyper-parameters; they are not read where nothing is
            relabelled.
        augment: Augmentation of the anchors' students.
        config: Hyper-parameters.
        seed: Determines probes and anchors.

    Raises:
        RequestError: The base method matches no trajectories, a class has no image with its label, or a probe diverged.
    """
    if not config.outer:
        return Curation.of(labels, ())
    method = _early(base, config) if config.inner else base
    work = _Work(images, labels, num_classes, recipe, method, augment, config, seed)
    features = _embedded(images, embed) if config.inner else None
    reference: Reference | None = None
    found: list[Round] = []
    for number in range(1, config.rounds + 1):
        so_far = Curation.of(labels, tuple(found))
        probes = work.train(so_far, number, config.probe_epochs)
        if features is not None and (reference is None or config.refresh_anchors):
            reference = work.reference(features, embed, so_far, probes, number)
        losses = probe_losses(probes, work.network, images, labels, config.loss_epochs)
        found.append(split_and_relabel(losses, labels, num_classes, reference, config, number))
    return Curation.of(labels, tuple(found))


def make_reference(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ExpertRecipe,
    embed: Embed,
    base: tuple[str, Mapping[str, Any]],
    augment: Augment | None,
    config: TadConfig,
    seed: SeedTree,
) -> Reference:
    """Return what experts that split in training judge labels by (mode ``in_training``).

    The anchors are those of the first round of :func:`curate`; their probes stop at the last epoch that they match.
    The arguments are those of :func:`curate`.
    """
    work = _Work(images, labels, num_classes, recipe, _early(base, config), augment, config, seed)
    features = _embedded(images, embed)
    whole = Curation.of(labels, ())
    return work.reference(features, embed, whole, work.train(whole, 1, config.anchor_epochs), 1)


@dataclass(frozen=True, eq=False)
class _Work:
    """The arguments of :func:`curate`, and the steps that are made of them; ``base`` has the anchors' configuration."""

    images: Tensor
    labels: Tensor
    num_classes: int
    recipe: ExpertRecipe
    base: tuple[str, Any]
    augment: Augment | None
    config: TadConfig
    seed: SeedTree

    @property
    def network(self) -> Flat:
        """The network; its own weights are never used."""
        shape = (int(self.images.shape[1]), int(self.images.shape[2]), int(self.images.shape[3]))
        return Flat(build(self.recipe.network, shape, self.num_classes, self.seed.child("network").torch()))

    def train(self, chosen: Curation, number: int, epochs: int) -> list[Trajectory]:
        """Train the probes of a round on what was chosen before it."""
        recipe = dataclasses.replace(self.recipe, epochs=epochs)
        seeds = [self.seed.child("probe", number, index) for index in range(self.config.probes)]
        policy = TadPolicy.of(chosen, self.config)
        return train_probes(self.images, self.labels, self.num_classes, recipe, seeds, policy)

    def reference(
        self, features: Tensor, embed: Embed | None, chosen: Curation, probes: Sequence[Trajectory], number: int
    ) -> Reference:
        """Distil the anchors of a round, from what was chosen before it, and measure where they lie."""
        config, (name, method) = self.config, self.base
        anchors, classes = distil_anchors(
            self.images[chosen.rows],
            chosen.labels[chosen.rows],
            self.num_classes,
            self.network,
            probes,
            name,
            method,
            config.anchors_per_class,
            self.augment,
            self.seed.child("anchors", number),
        )
        statistics = anchor_statistics(
            _embedded(anchors, embed),
            classes,
            features,
            self.num_classes,
            config.pca_dim,
            config.shrink_variance,
            config.shrink_covariance,
        )
        return Reference(features, statistics)


def _early(base: tuple[str, Mapping[str, Any]], config: TadConfig) -> tuple[str, Any]:
    """Return the base method and its configuration for the anchors."""
    name, params = base
    return name, early_config(name, params, config.anchor_iterations, config.anchor_epochs)


@torch.no_grad()
def _embedded(images: Tensor, embed: Embed | None) -> Tensor:
    """Return the features of images [n, d]."""
    assert embed is not None
    return torch.cat([embed(part) for part in images.split(EMBED_ROWS)])
