"""What a trial is made of: its configuration, its inputs, and how it runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddnl_ray.data import PreparedData
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.experts import ExpertRecipe, Experts
from ddnl_ray.features import SimclrConfig
from ddnl_ray.files import digest
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels
from ddnl_ray.robust import CleanerTraining, Trusted
from ddnl_ray.robust.golden import Golden
from ddnl_ray.seeds import SeedTree

_OPTIONAL = ("extractor", "anchor_params", "cleaner")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that determines a trial's result."""

    data: str
    """Fingerprint of the prepared data."""
    dataset: str
    """Name of the data set."""
    noise: NoiseConfig
    """What is wrong with the labels."""
    noise_seed: int = 0
    """Seed of the noise draw alone."""
    method: str
    """A name of :data:`ddnl_ray.robust.NAMES`: a method of :data:`ddnl_ray.distill.METHODS`, perhaps with parts; or
    such a method on cleaned labels (``dividemix>datm``)."""
    params: dict[str, Any]
    """Hyper-parameters of the method, and those of its parts or its cleaner with their prefix (``tad.top_k``)."""
    ipc: int | None
    """Images per class; None for ``full``."""
    network: NetworkSpec
    """The backbone of distillation."""
    augment: str | None
    """Augmentation of the student, as :func:`ddnl_ray.data.augmentation` reads it."""
    experts: ExpertRecipe | None = None
    """How experts are trained, where the method needs them."""
    num_experts: int = 0
    """How many of them."""
    expert_seed: int = 0
    """Root seed of the experts."""
    expert_dtype: str = "float32"
    """How their snapshots are stored."""
    extractor: SimclrConfig | None = None
    """How the self-supervised extractor is trained, where the method needs one."""
    anchor_params: dict[str, Any] | None = None
    """Hyper-parameters with which the base method distils TAD's anchors, where it does."""
    cleaner: CleanerTraining | None = None
    """What a cleaner trains, where the method has one."""
    evaluation: EvalRecipe
    """How networks are trained on the set."""
    eval_networks: tuple[NetworkSpec, ...]
    """Which networks."""
    repeats: int = 5
    """How many of each."""
    select_on: str = "val_noisy"
    """The split that chooses iterations, epochs and trials."""
    eval_every: int = 0
    """Iterations between looks at the selection split; 0: only at the end."""
    seed: int = 0
    """Seed of distillation and evaluation."""

    @property
    def identity(self) -> dict[str, Any]:
        """The values that names are made of."""
        experts = self.experts.identity if self.experts is not None else None
        values = dataclasses.asdict(self) | {"experts": experts, "evaluation": self.evaluation.identity}
        # Left out where there is none, so that names from before there was a choice hold.
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value is not None}

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that identify the trial."""
        return digest(self.identity)

    def seeds(self) -> SeedTree:
        """Return the trial's seed tree: shared by all methods and hyper-parameters, own to each noise draw."""
        return SeedTree.root(self.seed).child("noise", self.noise_seed)


@dataclass(frozen=True)
class TrialInputs:
    """The shared things that a trial works on.

    Attributes:
        data: Prepared data, on the device.
        labels: Observed labels of the whole training set, in file order.
        experts: Expert trajectories, for the methods that need them.
        expert_key: The buffer's name in the store.
        trusted: The training images, with labels, from which the set starts, or which a cleaner hands over; None: all,
            as observed.
        targets: Second targets of the student, for the methods that have them.
        golden: The golden set of every expert, for the methods that contrast with them.
        trust: What is known of how right the preparation's decisions are, for the trial's folder.
    """

    data: PreparedData
    labels: NoisyLabels
    experts: Experts | None = None
    expert_key: str | None = None
    trusted: Trusted | None = None
    targets: Experts | None = None
    golden: Sequence[Golden] | None = None
    trust: dict[str, Any] | None = None


@dataclass(frozen=True)
class Options:
    """How a trial runs; none of it changes the result's meaning.

    Attributes:
        run: Name of the run, for the rows.
        cell: Name of the cell, for the rows.
        trial: Name of the trial, for the rows.
        graph_memory: Bytes for kept student graphs.
        checkpoint_s: Seconds between checkpoints.
        limit_s: Wall time after which the trial ends as ``timeout``, interruptions left out.
        deadline: When it ends as ``timeout`` whatever it has had, in seconds since 1970.
        rungs: Iteration to the selection accuracy below which the trial is stopped there.
        on_progress: Called with the iteration at every checkpoint and look at the selection split.
    """

    run: str
    cell: str
    trial: str
    graph_memory: int = 0
    checkpoint_s: float = 30.0
    limit_s: float = math.inf
    deadline: float = math.inf
    rungs: Mapping[int, float] = field(default_factory=dict)
    on_progress: Callable[[int], None] = lambda iteration: None
