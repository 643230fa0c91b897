"""What a trial of a robust method needs before it distils, and how that is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ddnl_ray.data import PreparedData
from ddnl_ray.experts import BufferId, ExpertRecipe, ExpertStore, Trajectory, build_experts, training_labels
from ddnl_ray.features import SimclrConfig
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.robust.cleaned import CleanedLabels, CleanedSource, CleanerTraining
from ddnl_ray.robust.composition import Composition, compose
from ddnl_ray.robust.derived import Derived, bring
from ddnl_ray.robust.forgetting import ForgettingConfig
from ddnl_ray.robust.rdc_experts import LEARNING, GoldenSets, GoldenSource, build_golden_experts
from ddnl_ray.robust.stages import Curated, Features, Forgotten, Reliable, SgrSource, TadSource, TunedSource, snapshots
from ddnl_ray.robust.tiat import fine_tune

LATE = ("tiat.beta", "tiat.init_from_subset")
"""Settings of TAD, SGR and TIAT that nothing which is prepared depends on."""


def prepared_from(method: str, setting: str) -> bool:
    """Return whether something that is prepared for a composed method depends on one of its settings.

    Args:
        method: Its name.
        setting: By its name in :attr:`Composition.types`.
    """
    composition = compose(method)
    if composition.cleaner is not None:
        return setting.startswith(f"{composition.cleaner}.")
    part, dot, name = setting.partition(".")
    if not dot:
        return setting == "expert_epochs" and "tiat" in composition.parts
    if part == "rdc":
        return composition.on_experts and name in LEARNING
    return setting not in LATE


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What determines a preparation.

    Attributes:
        data: Fingerprint of the prepared data.
        labels: SHA-256 of the observed labels of its training part.
        num_classes: Number of classes.
        method: The name of a method that needs experts, or cleaned labels.
        params: All its hyper-parameters.
        experts: How experts are trained; None: it needs none.
        num_experts: How many.
        seed: Root of the seeds of experts and of what is derived.
        dtype: How snapshots are stored.
        augment: Augmentation of students, as :func:`ddnl_ray.data.augmentation` reads it.
        extractor: How the extractor is trained, for methods that have one.
        anchor_params: Hyper-parameters with which the base method distils TAD's anchors.
        cleaner: What a cleaner trains, for methods that have one.
    """

    data: str
    labels: str
    num_classes: int
    method: str
    params: Mapping[str, Any]
    experts: ExpertRecipe | None
    num_experts: int
    seed: int
    dtype: str
    augment: str | None
    extractor: SimclrConfig | None
    anchor_params: Mapping[str, Any] | None
    cleaner: CleanerTraining | None = None

    @property
    def plain(self) -> BufferId | None:
        """Experts that learn from the observed labels; None: the method needs none."""
        if self.experts is None:
            return None
        return BufferId(self.data, self.labels, self.experts, self.seed, self.dtype)


@dataclass(frozen=True)
class Preparation:
    """What is made for a trial, in this order.

    Attributes:
        first: What the experts depend on, or the method where it has none.
        experts: The buffer that is matched; None: the method needs no experts.
        then: What depends on the experts; the second targets, or the trials, read it.
        targets: The second targets, a buffer of snapshots by the epoch where a segment starts; None: there are none.
        scores: How SGR scores the images; None: it does not.
    """

    first: tuple[Derived, ...]
    experts: BufferId | None
    then: tuple[Derived, ...] = ()
    targets: BufferId | None = None
    scores: SgrSource | None = None

    @property
    def stages(self) -> list[tuple[tuple[Derived, ...], BufferId | None]]:
        """What is derived, and the buffer that comes after it, if any, in order."""
        return [(self.first, self.experts), (self.then, self.targets)]

    @property
    def reads_final(self) -> bool:
        """Whether something is derived from the experts' last epoch."""
        return bool(self.then)


def prepare(setting: Setting) -> Preparation:
    """Return what a setting needs."""
    composition = compose(setting.method)
    settings = composition.settings(setting.params)
    parts, experts = settings.parts, setting.plain
    if composition.cleaner is not None:
        return _two_stage(setting, composition, parts[composition.cleaner])
    assert setting.experts is not None
    assert experts is not None
    if "tad" in parts:
        curated = _curated(setting, composition.base, parts["tad"])
        first = (curated.features, curated) if curated.features is not None else (curated,)
        return Preparation(first, dataclasses.replace(experts, policy=TadSource(curated)))
    if "rdc" in parts and composition.on_experts:
        rdc = parts["rdc"]
        if rdc.ssl != "none":
            experts = dataclasses.replace(experts, policy=GoldenSource(rdc))
        return Preparation((), experts, (GoldenSets(experts, setting.num_experts, rdc),))
    if "sgr" not in parts:
        return Preparation((), experts)
    sgr = parts["sgr"]
    own = {field.name: getattr(sgr, field.name) for field in dataclasses.fields(ForgettingConfig)}
    forgotten = Forgotten(setting.data, setting.labels, setting.experts.network, ForgettingConfig(**own), setting.seed)
    scores = SgrSource(forgotten, sgr, setting.num_experts, setting.experts.epochs)
    if "sgr" in composition.parts:
        experts = dataclasses.replace(experts, policy=scores)
    if "tiat" not in parts:
        return Preparation((forgotten,), experts, scores=scores)
    tiat = parts["tiat"]
    reliable = Reliable(scores, experts, tiat)
    recipe = setting.experts if tiat.lr is None else dataclasses.replace(setting.experts, lr=tiat.lr)
    tuned = TunedSource(reliable, settings.base.expert_epochs)
    targets = dataclasses.replace(experts, recipe=recipe, policy=tuned)
    return Preparation((forgotten,), experts, (reliable,), targets, scores)


def _two_stage(setting: Setting, composition: Composition, config: Any) -> Preparation:
    """Return what a method on cleaned labels needs: the labels, and experts that learn from them, if any."""
    name, training, experts = composition.cleaner, setting.cleaner, setting.plain
    assert name is not None
    assert training is not None
    extractor = setting.extractor
    features = Features(setting.data, extractor, setting.seed) if extractor is not None else None
    cleaned = CleanedLabels(
        setting.data, setting.labels, name, config.identity, training, setting.num_classes, features, setting.seed
    )
    if experts is not None:
        experts = dataclasses.replace(experts, policy=CleanedSource(cleaned))
    return Preparation((features, cleaned) if features is not None else (cleaned,), experts)


def _curated(setting: Setting, base: str, tad: Any) -> Curated:
    """Return TAD's choice; where nothing is relabelled it needs neither extractor nor anchors."""
    features, params = None, {}
    if tad.inner:
        assert setting.anchor_params is not None
        params = dict(setting.anchor_params)
        if tad.features == "simclr":
            assert setting.extractor is not None
            features = Features(setting.data, setting.extractor, setting.seed)
    assert setting.experts is not None
    return Curated(
        setting.data,
        setting.labels,
        base,
        params,
        setting.experts,
        setting.augment,
        tad,
        features,
        setting.seed,
    )


def build_buffer(
    data: PreparedData,
    labels: NoisyLabels,
    buffer: BufferId,
    indices: Sequence[int],
    last_epoch: int,
    store: ExpertStore,
) -> None:
    """Train experts, or tune targets, of a buffer up to an epoch, and store what is new (see :func:`build_experts`)."""
    bring(buffer, store)
    if isinstance(buffer.policy, GoldenSource):
        build_golden_experts(data, labels, buffer, indices, last_epoch, store)
        return
    if not isinstance(buffer.policy, TunedSource):
        build_experts(data, labels, buffer, indices, last_epoch, store)
        return
    observed = training_labels(data, labels)
    rows = buffer.policy.open(store.root, data.train_images, observed).rows
    for index in indices:
        reach = store.reach(buffer.key, index + 1)[index]
        epochs = list(range(reach + 1, last_epoch + 1))
        if not epochs:
            continue
        starts = torch.stack(snapshots(store, buffer.policy.reliable.experts, index, epochs)).to(observed.device)
        seeds = [buffer.seeds(index).child("tune", epoch) for epoch in epochs]
        num_epochs = buffer.policy.num_epochs
        tuned = fine_tune(
            data.train_images, observed, data.num_classes, buffer.recipe, starts, rows, num_epochs, seeds
        ).cpu()
        still = torch.zeros_like(tuned[-1]) if buffer.recipe.momentum else None
        store.save(buffer, index, Trajectory(tuned, [], epochs[0], still))
