"""The interface of a cleaner: a frozen config, and ``init -> step -> export`` over an explicit state, epoch by epoch.

A cleaner turns the observed labels of a training set into better ones, once, before anything is distilled. TAD (Wu et
al. 2025) calls this two-stage: labels first, then experts and distillation as if they were right.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.distill.base import State
from ddnl_ray.errors import CorruptFileError, RequestError, require_known
from ddnl_ray.experts.precision import products
from ddnl_ray.models import NetworkSpec
from ddnl_ray.seeds import SeedTree

RELABEL = ("all", "noisy_only", "drop")
_KIND = "cleaned"
_ENTRIES = ("hard", "confidence", "kept", "soft", "transition", "rate")


@dataclass(frozen=True)
class Known:
    """Images of the training set whose true labels are known: supervision that other cleaners do not have.

    Attributes:
        rows: int64 [m].
        labels: Their true labels, int64 [m].
    """

    rows: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Problem:
    """All that a cleaner may know.

    Attributes:
        images: Training images as networks see them [N, C, H, H], float32, on the device; N at least 2.
        labels: Observed labels, int64 [N], likewise.
        num_classes: C.
        network: What to train; without buffers.
        flip: Whether augmentation may mirror images; not digits.
        start: Weights of a self-supervised trunk, by parameter name, for ``c2d``: :attr:`Extractor.state
            <ddnl_ray.features.Extractor.state>` of the same network, trained on images that were standardised like
            these.
        features: Vectors of every image [N, d] that were made without labels, for ``knn``.
        known: Rows with true labels, for ``l2b`` with ``meta`` known.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    network: NetworkSpec
    flip: bool = True
    start: Mapping[str, Tensor] | None = None
    features: Tensor | None = None
    known: Known | None = None

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.images.device

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, H) of the images."""
        channels, height, width = self.images.shape[1:]
        return int(channels), int(height), int(width)


@dataclass(frozen=True)
class Cleaned:
    """What a cleaner says of the labels of N images.

    Attributes:
        soft: Class probabilities [N, C], float32; rows sum to 1.
        hard: The label to use, int64 [N].
        confidence: How sure it is that the observed label is right [N], float32 in [0, 1].
        kept: Which images are to be used, bool [N].
        rate: Its own estimate of the share of wrong labels, in [0, 1].
        transition: Its own estimate of P(observed | true) [C, C], float64; rows true class, each sums to 1.
        networks: Weights of its robust networks [E, P], which predict by the sum of their logits; None: it has none.
    """

    soft: Tensor
    hard: Tensor
    confidence: Tensor
    kept: Tensor
    rate: float
    transition: Tensor
    networks: Tensor | None = None

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors, and the rest as JSON: what :func:`ddnl_ray.files.write_tensors` writes."""
        tensors = {name: getattr(self, name) for name in _ENTRIES if name != "rate"}
        tensors["rate"] = torch.tensor(self.rate, dtype=torch.float64)
        if self.networks is not None:
            tensors["networks"] = self.networks
        return tensors, {"kind": _KIND}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Cleaned:
        """Return what :meth:`to_tensors` took apart.

        Raises:
            CorruptFileError: These are not such tensors.
        """
        if meta.get("kind") != _KIND or not set(_ENTRIES) <= set(tensors) <= {*_ENTRIES, "networks"}:
            raise CorruptFileError(
                f"these are no tensors of cleaned labels, but of {meta.get('kind')!r}: {sorted(tensors)}; clean again"
            )
        parts = {name: tensors[name] for name in _ENTRIES if name != "rate"}
        return cls(rate=float(tensors["rate"]), networks=tensors.get("networks"), **parts)


@dataclass(frozen=True, kw_only=True)
class CleanerConfig:
    """What every cleaner is asked: which labels it hands over."""

    relabel: str = "all"
    """``all``: the most probable class, for every image. ``noisy_only``: that only where the observed label is not
    believed. ``drop``: observed labels; images whose label is not believed are not kept."""
    sure: float = 0.0
    """Images that were given another label are kept from this probability on; 0: all."""

    @property
    def identity(self) -> dict[str, Any]:
        """The values that names are made of."""
        return dataclasses.asdict(self)

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("relabel", self.relabel, RELABEL)
        if not 0 <= self.sure <= 1:
            raise RequestError(f"sure must lie in [0, 1], but got {self.sure}")


@dataclass(frozen=True)
class Epoch:
    """How far a cleaner is.

    Attributes:
        done: Epochs that are done.
        total: How many there are.
        loss: The method's mean loss in the last one.
    """

    done: int
    total: int
    loss: float


Progress = Callable[[Epoch], None]
S = TypeVar("S", bound=State)


class Cleaner(ABC, Generic[S]):
    """A method that cleans labels.

    It reads no files, keeps no state of its own and draws every random number from the seed it is given. An epoch
    depends on the state, the problem and the seed alone, so that a run may be stopped after any epoch and continued
    elsewhere, bit for bit.
    """

    name: ClassVar[str]
    state: ClassVar[type[State]]
    needs_features: ClassVar[bool] = False
    """Whether it needs features (or a trunk) that were trained on the images alone."""

    def __init__(self, config: Any) -> None:
        """Keep the settings."""
        self.config = config

    @abstractmethod
    def length(self, problem: Problem) -> int:
        """Return how many steps a run takes."""

    @abstractmethod
    def init(self, problem: Problem, seed: SeedTree) -> S:
        """Return the first state.

        Raises:
            RequestError: The problem lacks what the method needs, or the network does not fit the images.
        """

    @abstractmethod
    def epoch(self, state: S, problem: Problem, seed: SeedTree) -> tuple[S, float]:
        """Take one step: an epoch; return the new state, with ``iteration`` one higher, and the mean loss."""

    @abstractmethod
    def export(self, state: S, problem: Problem) -> Cleaned:
        """Return what the state says of the labels.

        Raises:
            ValueError: The method cannot say anything before its end.
        """

    def step(self, state: S, problem: Problem, seed: SeedTree) -> tuple[S, float]:
        """Take one step in exact float32 products; the given state is left as it was.

        Raises:
            RequestError: Training diverged (the loss is not finite).
        """
        with products("float32", problem.device):
            after, loss = self.epoch(state, problem, seed)
        if not math.isfinite(loss):
            raise RequestError(
                f"{self.name} diverged in epoch {after.iteration} (loss {loss}); lower its lr, or its unlabelled_weight"
            )
        return after, loss


def clean(cleaner: Cleaner[S], problem: Problem, seed: SeedTree, progress: Progress | None = None) -> Cleaned:
    """Run a cleaner from its first to its last epoch.

    Args:
        cleaner: The method.
        problem: Images, observed labels and network.
        seed: Determines everything random.
        progress: Called after every epoch.

    Raises:
        RequestError: Training diverged, or the problem lacks what the method needs.
    """
    state, total = cleaner.init(problem, seed), cleaner.length(problem)
    while state.iteration < total:
        state, loss = cleaner.step(state, problem, seed)
        if progress is not None:
            progress(Epoch(state.iteration, total, loss))
    with products("float32", problem.device):
        return cleaner.export(state, problem)


def settle(
    config: CleanerConfig,
    observed: Tensor,
    soft: Tensor,
    confidence: Tensor,
    believed: Tensor,
    rate: float,
    transition: Tensor,
    networks: Tensor | None = None,
) -> Cleaned:
    """Return the labels that the configuration asks for.

    With ``drop``, a class that would lose all its images keeps the one whose label is the most credible.

    Args:
        config: Which labels.
        observed: Observed labels, int64 [N].
        soft: Class probabilities [N, C].
        confidence: That the observed labels are right [N].
        believed: Which observed labels are taken for right, bool [N].
        rate: Estimated share of wrong labels.
        transition: Estimated P(observed | true) [C, C].
        networks: Weights of robust networks [E, P].
    """
    largest, predicted = soft.max(1)
    hard, kept = predicted, largest >= config.sure
    if config.relabel == "noisy_only":
        hard, kept = torch.where(believed, observed, predicted), believed | kept
    elif config.relabel == "drop":
        hard, kept = observed.clone(), believed.clone()
        counts = torch.bincount(observed[kept], minlength=soft.shape[1])
        for label in (counts == 0).nonzero().flatten().tolist():
            own = (observed == label).nonzero().flatten()
            kept[own[confidence[own].argsort(descending=True, stable=True)[:1]]] = True
    return Cleaned(
        soft=soft.float(),
        hard=hard,
        confidence=confidence.float().clamp(0, 1),
        kept=kept,
        rate=float(rate),
        transition=transition,
        networks=None if networks is None else networks.clone(),
    )


def transition_of(soft: Tensor, observed: Tensor) -> Tensor:
    """Return P(observed | true) as class probabilities stand for the truth [C, C], float64, rows true class.

    Args:
        soft: Class probabilities [N, C].
        observed: Observed labels, int64 [N].

    Returns:
        A class of no mass keeps its labels: its row is one-hot.
    """
    num_classes = soft.shape[1]
    joint = soft.double().T @ F.one_hot(observed, num_classes).double()
    return rows_normalised(joint)


def rows_normalised(joint: Tensor) -> Tensor:
    """Return a joint distribution [C, C] with rows that sum to 1, float64; an empty row becomes one-hot."""
    joint = joint.double()
    sums = joint.sum(1, keepdim=True)
    same = torch.eye(len(joint), dtype=torch.float64, device=joint.device)
    return torch.where(sums > 0, joint / sums.clamp_min(torch.finfo(torch.float64).tiny), same)
