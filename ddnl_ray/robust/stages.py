"""The derived things of robust methods, and the policies that read them.

Each names all that determines it, so that a plan knows every name before anything is computed. Labels and images travel
with the data; the rest is in the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import PreparedData, augmentation
from ddnl_ray.experts import ArrayExperts, BufferId, ExpertRecipe, ExpertStore
from ddnl_ray.experts.policy import Policy
from ddnl_ray.features import Extractor, SimclrConfig, train_simclr
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.robust.curate import Embed, curate, make_reference
from ddnl_ray.robust.derived import Derived, Inputs
from ddnl_ray.robust.forgetting import ForgettingConfig, forgetting_history, forgetting_prior
from ddnl_ray.robust.reliability import Reference
from ddnl_ray.robust.rounds import Curation
from ddnl_ray.robust.sgr import Sgr, SgrConfig
from ddnl_ray.robust.tad import TadConfig, TadInTraining, TadPolicy
from ddnl_ray.robust.tiat import Subset, TiatConfig, confidence, reliable_subset

REFERENCE = "reference."


@dataclass(frozen=True)
class Features(Derived):
    """A self-supervised extractor of the training images, trained without labels."""

    kind: ClassVar[str] = "features"
    data: str
    config: SimclrConfig
    root_seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """The data, the training and the seed."""
        return {"data": self.data, "config": self.config.identity, "seed": self.root_seed}

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train the extractor on pixels."""
        return train_simclr(pixels(inputs.data, inputs.data.train_images), self.config, self.seed).to_tensors()

    def embed(self, root: Path, data: PreparedData) -> Embed:
        """Return what maps images in the transformed space to features."""
        extractor = Extractor.from_tensors(*self.read(root)).to(data.train_images.device)
        return lambda images: extractor.embed(pixels(data, images))


def pixels(data: PreparedData, images: Tensor) -> Tensor:
    """Return images of the transformed space as pixels in [0, 1]; what distillation moved out of the range is cut."""
    return data.transform.invert(images).clamp(0, 1)


@dataclass(frozen=True)
class Curated(Derived):
    """TAD's choice of training images and their labels."""

    kind: ClassVar[str] = "curated"
    data: str
    labels: str
    base: str
    params: Mapping[str, Any]
    recipe: ExpertRecipe
    augment: str | None
    config: TadConfig
    features: Features | None
    root_seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """All arguments; of the extractor its key, of the recipe all but the length."""
        recipe = self.recipe.identity
        del recipe["epochs"]
        return {
            "data": self.data,
            "labels": self.labels,
            "base": [self.base, dict(self.params)],
            "recipe": recipe,
            "augment": self.augment,
            "config": dataclasses.asdict(self.config),
            "features": self.features.key if self.features is not None else None,
            "seed": self.root_seed,
        }

    @property
    def expert_epochs(self) -> float:
        """Those of the probes; the anchors come on top."""
        config = self.config
        rounds = 1 if config.mode == "in_training" else config.rounds
        return float(rounds * config.probes * config.probe_epochs) if config.outer else 0.0

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Run the rounds; experts that split in training get what they judge by, and one round for the first images."""
        data, config = inputs.data, self.config
        embed = self._embed(inputs)
        augment = augmentation(self.augment)
        base = self.base, self.params
        in_training = config.mode == "in_training" and config.outer
        rounds = dataclasses.replace(config, mode="rounds", rounds=1) if in_training else config
        images, classes = data.train_images, data.num_classes
        found = curate(images, inputs.labels, classes, self.recipe, embed, base, augment, rounds, self.seed)
        tensors = found.to_tensors()
        if in_training and embed is not None:
            reference = make_reference(
                images, inputs.labels, classes, self.recipe, embed, base, augment, config, self.seed
            )
            tensors |= {f"{REFERENCE}{name}": tensor for name, tensor in reference.to_tensors().items()}
        return tensors, {"classes": classes}

    def _embed(self, inputs: Inputs) -> Embed | None:
        """Return what images are compared by; None: nothing is relabelled."""
        data = inputs.data
        if not self.config.inner:
            return None
        if self.features is not None:
            return self.features.embed(inputs.store.root, data)
        mean = pixels(data, data.train_images).mean(0)
        return lambda images: F.normalize((pixels(data, images) - mean).flatten(1), dim=1)

    def curation(self, root: Path) -> Curation:
        """Read the choice."""
        tensors, _ = self.read(root)
        return Curation.from_tensors({name: each for name, each in tensors.items() if not name.startswith(REFERENCE)})

    def reference(self, root: Path, device: torch.device) -> tuple[Reference | None, int]:
        """Read what experts that split in training judge by, and the number of classes."""
        tensors, about = self.read(root)
        kept = {name: each.to(device) for name, each in tensors.items() if name.startswith(REFERENCE)}
        own = {name.removeprefix(REFERENCE): each for name, each in kept.items()}
        return Reference.from_tensors(own) if own else None, int(about["classes"])


@dataclass(frozen=True)
class TadSource:
    """TAD's experts (a :class:`ddnl_ray.experts.policy.PolicySource`)."""

    curated: Curated

    @property
    def identity(self) -> dict[str, Any]:
        """The choice's key, which depends on the loss too."""
        return {"tad": self.curated.key}

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Policy:
        """Return the policy (see :class:`PolicySource`)."""
        config = self.curated.config
        if config.mode == "in_training":
            reference, classes = self.curated.reference(root, images.device)
            return TadInTraining(images, labels, classes, reference, config)
        found = self.curated.curation(root)
        return TadPolicy(found.labels.to(labels), found.rows.to(labels), config.consistency)


@dataclass(frozen=True)
class Forgotten(Derived):
    """When every image was learnt, and when forgotten on other images."""

    kind: ClassVar[str] = "forgotten"
    data: str
    labels: str
    network: NetworkSpec
    config: ForgettingConfig
    root_seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "data": self.data,
            "labels": self.labels,
            "network": dataclasses.asdict(self.network),
            "config": dataclasses.asdict(self.config),
            "seed": self.root_seed,
        }

    @property
    def expert_epochs(self) -> float:
        """Each half is trained on in both stages, by every network."""
        config = self.config
        return float(config.forgetting_networks * (config.forgetting_first_epochs + config.forgetting_second_epochs))

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train the networks."""
        data = inputs.data
        found = forgetting_history(
            data.train_images, inputs.labels, data.num_classes, self.network, self.config, self.seed
        )
        return {"t_learn": found.t_learn, "t_forget": found.t_forget}, {}

    def prior(self, root: Path, config: SgrConfig) -> Tensor:
        """Return the static reliability of every image [N], on the CPU."""
        tensors, _ = self.read(root)
        return forgetting_prior(tensors["t_learn"], tensors["t_forget"], config.prior_weight, config.floor)


@dataclass(frozen=True)
class SgrSource:
    """SGR's experts (a :class:`ddnl_ray.experts.policy.PolicySource`)."""

    forgotten: Forgotten
    config: SgrConfig
    num_experts: int
    num_epochs: int

    @property
    def identity(self) -> dict[str, Any]:
        """The ladder of limits and the warm-up depend on how many experts and epochs there are."""
        return {
            "sgr": self.forgotten.key,
            "config": dataclasses.asdict(self.config),
            "num_experts": self.num_experts,
            "num_epochs": self.num_epochs,
        }

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Sgr:
        """Return the policy (see :class:`PolicySource`)."""
        prior = self.forgotten.prior(root, self.config).to(images)
        return Sgr(self.config, images, labels, prior, self.num_experts, self.config.warmup * self.num_epochs)


@dataclass(frozen=True)
class Reliable(Derived):
    """The images on which TIAT tunes: what all experts trust in the end."""

    kind: ClassVar[str] = "reliable"
    scores: SgrSource
    experts: BufferId
    config: TiatConfig

    @property
    def identity(self) -> dict[str, Any]:
        """The experts, their scores and the rule that chooses."""
        names = ("subset", "rule", "per_class", "min_prior", "max_variance")
        return {
            "scores": self.scores.identity,
            "experts": self.experts.key,
            "epoch": self.experts.recipe.epochs,
            "rule": {name: getattr(self.config, name) for name in names},
            "seed": self.experts.seed,
        }

    @property
    def expert_epochs(self) -> float:
        """Every expert looks at all images once."""
        return self.scores.num_experts / 3

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Ask every expert at its end how far it trusts each image, and choose."""
        data, labels, store = inputs.data, inputs.labels, inputs.store
        policy = self.scores.open(store.root, data.train_images, labels)
        recipe, epoch = self.experts.recipe, self.experts.recipe.epochs
        network = Flat(build(recipe.network, data.input_shape, data.num_classes, self.seed.torch(), labels.device))
        weights = []
        for index in range(self.scores.num_experts):
            theta = snapshots(store, self.experts, index, [epoch])[0].to(labels.device)
            weights.append(policy.weights(index, epoch, network, theta))
        rows = reliable_subset(policy.prior, torch.stack(weights), labels, data.num_classes, self.config)
        mean, variance = confidence(torch.stack(weights))
        return {"rows": rows, "prior": policy.prior, "confidence": mean, "variance": variance}, {}


def snapshots(store: ExpertStore, buffer: BufferId, index: int, epochs: list[int]) -> list[Tensor]:
    """Return snapshots of one expert [P], float32, on the CPU."""
    array = store.load(buffer.key, index, epochs)
    own = ArrayExperts([array], tuple(epochs), epochs[-1], buffer.dtype)
    return [own.snapshot(0, epoch) for epoch in epochs]


@dataclass(frozen=True)
class TunedSource:
    """TIAT's targets (a :class:`ddnl_ray.experts.policy.PolicySource`): experts, each snapshot tuned on the subset."""

    reliable: Reliable
    num_epochs: int

    @property
    def identity(self) -> dict[str, Any]:
        """The experts, the subset and how long they are tuned."""
        return {"tuned": self.reliable.experts.key, "subset": self.reliable.key, "num_epochs": self.num_epochs}

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Subset:
        """Return the policy (see :class:`PolicySource`)."""
        tensors, _ = self.reliable.read(root)
        return Subset(labels, tensors["rows"].to(labels.device))
