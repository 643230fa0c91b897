"""RDC: Robust Dataset Condensation using Supervised Contrastive Learning (Kim and Song, ICCV 2025).

Authors' code: DISL-Lab/RDC-ICCV2025. A distiller that trains networks of its own is made robust in three places: a
golden set is mined from the losses of its network (:mod:`ddnl_ray.robust.golden`), the network learns from it
semi-supervised (:mod:`ddnl_ray.robust.semi`), and the synthetic images are held apart by contrast with it
(:mod:`ddnl_ray.robust.contrast`). Here is what the methods that take it share.

Differs from the original: see those modules, and
    - before the first mixture that tells samples apart nothing is golden, and the warm-up goes on;
    - a mixture that finds one kind of losses keeps the golden set before it (:func:`ddnl_ray.robust.golden.split`);
    - synthetic images are augmented for the contrast with parameters of their own each, one operation per view; mixed
      images have draws of their own; golden partners are not augmented;
    - embeddings are what the linear layer sees (of a ResNet or VGG: pooled). The authors' code takes the maps before
      the last stage of a ResNet, and of a VGG a single number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.distill.base import Choice, Problem
from ddnl_ray.distill.classwise import View, observed_pools
from ddnl_ray.distill.networks import Slope, slope
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.robust.contrast import (
    contrast_within,
    draw_partners,
    golden_mixup_contrast,
    plan_views,
    released_contrast,
)
from ddnl_ray.robust.golden import Golden, golden_set, pools, split
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.semi import draw_batch, semi_supervised_loss
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class Mined:
    """What has been learnt of N training images, as tensors of a method's state.

    Attributes:
        refresh: How often the golden set was made; 0: not yet.
        accumulated: Sum of the losses of every image against its observed label [N], float64.
        golden_labels: Golden labels, int64 [N]; elsewhere the observed ones.
        golden_member: Which images are golden, bool [N].
        golden_relabelled: Which of them have a label of the network, bool [N].
        golden_weight: Confidence in the label, float32 [N].
    """

    refresh: int
    accumulated: Tensor
    golden_labels: Tensor
    golden_member: Tensor
    golden_relabelled: Tensor
    golden_weight: Tensor

    @classmethod
    def nothing(cls, problem: Problem) -> Mined:
        """Return what is known before the end of the warm-up."""
        num, device = len(problem.labels), problem.device
        nobody = torch.zeros(num, dtype=torch.bool, device=device)
        losses = torch.zeros(num, dtype=torch.float64, device=device)
        return cls(0, losses, problem.labels.clone(), nobody, nobody.clone(), torch.zeros(num, device=device))

    @property
    def golden(self) -> Golden | None:
        """The golden set; None: not yet."""
        if not self.refresh:
            return None
        return Golden(self.golden_labels, self.golden_member, self.golden_relabelled, self.golden_weight)

    @property
    def choice(self) -> Choice:
        """The golden set as methods tell it."""
        return Choice(self.refresh, self.golden_member, self.golden_labels, self.golden_relabelled)

    @torch.no_grad()
    def refreshed(self, problem: Problem, theta: Tensor, config: RdcConfig) -> Mined:
        """Return the sums with the losses of a network added, and the golden set that follows from them.

        Args:
            problem: Training images, observed labels and network.
            theta: The network's weights [P].
            config: Settings.
        """
        logits, losses = judged(problem, theta)
        sums = self.accumulated + losses
        posterior = split(sums, config.restarts) if bool(sums.isfinite().all()) else None
        if posterior is None:
            return Mined(**_mined_values(self) | {"accumulated": sums})
        found = golden_set(posterior, problem.labels, logits.softmax(1), config.confidence)
        return Mined(self.refresh + 1, sums, found.labels, found.member, found.relabelled, found.weight)


S = TypeVar("S")


def with_mined(kind: type[S], plain: Any, mined: Mined) -> S:
    """Return a state that is a base method's, with what has been mined.

    Args:
        kind: The class of the state.
        plain: A state of the base method, or of ``kind``.
        mined: What has been mined, or a state that holds it.
    """
    values = {each.name: getattr(plain, each.name) for each in dataclasses.fields(plain)}
    return kind(**values | _mined_values(mined))


def _mined_values(record: Mined) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in dataclasses.fields(Mined)}


@torch.no_grad()
def judged(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return a network's logits of all training images [N, K], and their losses against the observed labels.

    The losses are float64 [N].
    """
    assert problem.network is not None
    logits = outputs_of(problem.network, theta, problem.images, problem.smaller).logits
    return logits, F.cross_entropy(logits, problem.labels, reduction="none").double()


def real_pools(golden: Golden | None, problem: Problem, config: RdcConfig) -> list[Tensor]:
    """Return the rows of the real images that are matched, by observed or by golden class."""
    if golden is None or config.cond_real == "noisy":
        return observed_pools(problem)
    return pools(golden, problem.labels, problem.num_classes, config.minimum_golden)


def lesson(
    problem: Problem, theta: Tensor, golden: Golden | None, epoch: float, batch: int, config: RdcConfig, seed: SeedTree
) -> tuple[Slope, Tensor]:
    """Return the gradient of one training step of the network, and the labels of its logits.

    Args:
        problem: Training images, observed labels and network.
        theta: The network's weights [P].
        golden: The golden set; None: plain cross-entropy on all images, with their observed labels.
        epoch: Epochs since the start, with the fraction of this one.
        batch: Images of a plain step.
        config: Settings.
        seed: Determines batch, augmentation and mixing.

    Returns:
        After the warm-up, the logits are those of the golden images without augmentation, and the labels golden.
    """
    network, generator = problem.network, seed.child("batch").torch()
    assert network is not None
    if golden is None or config.ssl == "none":
        rows = torch.randperm(len(problem.images), generator=generator)[:batch].to(problem.device)
        labels = problem.labels[rows]
        return slope(network, theta, problem.images[rows], labels, problem.smaller), labels
    drawn = draw_batch(golden, config.labelled_batch, config.unlabelled_batch, generator)
    leaf = theta.detach().requires_grad_()
    loss = semi_supervised_loss(network, leaf, problem.images, golden, drawn, epoch, config, seed.child("loss"))
    (gradient,) = torch.autograd.grad(loss, leaf)
    with torch.no_grad():
        logits = outputs_of(network, theta, problem.images[drawn.labelled], problem.smaller).logits
    return Slope(loss.detach(), gradient, logits), golden.labels[drawn.labelled]


def contrast_gradient(
    stored: Tensor,
    problem: Problem,
    theta: Tensor,
    view: View,
    golden: Golden,
    config: RdcConfig,
    seed: SeedTree,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the weighted contrast of the synthetic images, and its gradient with respect to the stored ones.

    Args:
        stored: [n, C, H, W].
        problem: Network, training images and augmentation.
        theta: The network's weights [P]; no gradient is computed for them.
        view: What is stored.
        golden: The golden set.
        config: Settings; ``gmc`` is not ``none``.
        seed: Determines augmentation, partners and choice.
        labels: Classes of the stored images, int64 [n], or their class probabilities [n, K], of which ``released``
            reads the likeliest class; None: they lie class by class, equally many of each.
    """
    leaf = stored.detach().clone().requires_grad_()
    images = view.decoded(leaf)
    if labels is None:
        labels = torch.arange(problem.num_classes, device=stored.device)
    labels = labels.repeat_interleave(len(images) // len(labels), dim=0)
    if config.gmc == "released":
        loss = _released(images, _classes(labels), problem, theta, golden, config, seed)
    else:
        loss = _paper(images, labels, problem, theta, golden, config, seed)
    (gradient,) = torch.autograd.grad(config.gmc_weight * loss, leaf)
    return config.gmc_weight * loss.detach(), gradient


def _paper(
    images: Tensor,
    labels: Tensor,
    problem: Problem,
    theta: Tensor,
    golden: Golden,
    config: RdcConfig,
    seed: SeedTree,
) -> Tensor:
    """Return the contrast over all classes, or that of the synthetic images among themselves."""
    generator = seed.child("plan").torch()
    plain = config.gmc == "supcon_plain"
    views = 1 if plain or problem.augment is None else config.views
    plan = plan_views(_classes(labels), problem.num_classes, generator, config.max_images, config.max_anchors, views)
    own, known = images[plan.rows], torch.cat([labels[plan.rows]] * plan.num_views)
    augmented = own if plain else _views(own, plan.num_views, problem, seed.child("synthetic"))
    syn = _features(problem, theta, augmented)
    if config.gmc in ("supcon", "supcon_plain"):
        return contrast_within(syn, known, config.temperature)
    partners, golden_classes = draw_partners(
        pools(golden, problem.labels, problem.num_classes, minimum=0), len(known), seed.child("partners").torch()
    )
    if known.ndim > 1:
        golden_classes = F.one_hot(golden_classes, problem.num_classes).to(known)
    mixed = _mixed(_views(own, plan.num_views, problem, seed.child("mixed")), problem.images[partners], config)
    with torch.no_grad():
        real = _features(problem, theta, problem.images[partners])
    every = torch.arange(len(known), device=labels.device)
    found = golden_mixup_contrast(
        syn,
        _features(problem, theta, mixed),
        real,
        known,
        golden_classes,
        every,
        every,
        config.mixup,
        config.temperature,
    )
    return found.loss


def _released(
    images: Tensor,
    labels: Tensor,
    problem: Problem,
    theta: Tensor,
    golden: Golden,
    config: RdcConfig,
    seed: SeedTree,
) -> Tensor:
    """Return the contrast of the authors' code, class by class, with one draw of the augmentation for a whole view."""
    members = golden.member.nonzero().flatten()
    loss = images.new_zeros(())
    for label in range(problem.num_classes):
        own, branch = images[labels == label], seed.child("class", label)
        if not len(own):
            continue
        base = _views(own, 1, problem, branch.child("batch"), siamese=True)
        syn = _views(base, config.views, problem, branch.child("synthetic"), siamese=True)
        mixed = _views(base, config.views, problem, branch.child("mixed"), siamese=True)
        place = torch.randint(len(members), (len(mixed),), generator=branch.child("partners").torch())
        partners = members[place.to(members.device)]
        found = released_contrast(
            _features(problem, theta, syn),
            _features(problem, theta, _mixed(mixed, problem.images[partners], config)),
            golden.labels[partners],
            config.mixup,
            config.temperature,
        )
        loss = loss + found.loss
    return loss


def _classes(labels: Tensor) -> Tensor:
    """Return classes, int64 [n]: those given, or the likeliest ones."""
    return labels if labels.ndim == 1 else labels.argmax(1)


def _views(images: Tensor, num: int, problem: Problem, seed: SeedTree, siamese: bool = False) -> Tensor:
    """Return ``num`` augmentations of every image [num * n, C, H, H], view by view."""
    augment = problem.augment
    if augment is None:
        return images if num == 1 else images.repeat(num, 1, 1, 1)
    found: Sequence[Tensor] = [
        augment.apply(
            images,
            augment.draw(seed.child(view).torch(), len(images), images.shape[-1], images.device, siamese),
        )
        for view in range(num)
    ]
    return torch.cat(list(found))


def _mixed(synthetic: Tensor, golden: Tensor, config: RdcConfig) -> Tensor:
    """Return MixUp of synthetic and golden images (Eq. 11)."""
    return config.mixup * synthetic + (1 - config.mixup) * golden


def _features(problem: Problem, theta: Tensor, images: Tensor) -> Tensor:
    assert problem.network is not None
    return outputs_of(problem.network, theta, images, problem.smaller).features
