"""The interface of a distillation method: a frozen config, and ``init -> step -> export`` over an explicit state."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from ddnl_ray.data import Normalise, Zca
from ddnl_ray.data.augment import Augment
from ddnl_ray.distill.formation import decode
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.experts.buffer import Experts
from ddnl_ray.models import Flat
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class Auxiliary:
    """A second target for the student of a trajectory method, beside the expert's own later weights.

    Attributes:
        targets: ``snapshot(expert, t)`` is the second target of a segment that starts at that expert's epoch ``t``.
        weight: Its share of the matching loss, in [0, 1].
    """

    targets: Experts
    weight: float


class ImagesTerm(Protocol):
    """A term beside the matching loss of a trajectory method, which moves the synthetic images alone."""

    def gradient(
        self, images: Tensor, labels: Tensor, expert: int, theta: Tensor, problem: Problem, seed: SeedTree
    ) -> Tensor:
        """Return the gradient of the term with respect to the images [n, C, H, W].

        Args:
            images: Synthetic images [n, C, H, W].
            labels: Their classes, int64 [n], or label logits [n, classes].
            expert: The iteration's expert.
            theta: Its weights at the iteration's start epoch [P].
            problem: Training images, observed labels, network and augmentation.
            seed: Determines what the term draws.
        """


@dataclass(frozen=True)
class Problem:
    """All that a method may know: the noisy training set, the network, and what the recipe shares.

    Attributes:
        images: Training images in the transformed space [N, C, H, W], float32, on the device.
        labels: Observed (noisy) labels, int64 [N].
        num_classes: Number of classes.
        ipc: Synthetic images per class; None for methods that keep the whole set.
        network: The backbone as a function of flat weights, for the methods that need one.
        augment: The differentiable augmentation of training and matching, or None.
        experts: Expert trajectories, for the methods that match them.
        graph_memory: Bytes that may be spent on kept tapes (see :mod:`ddnl_ray.distill.adjoint`).
        smaller: How often the trial ran out of memory and was made smaller: such a student keeps no tapes, and takes
            its batches in ever smaller parts.
        auxiliary: A second target for the student, or None.
        extra: A further term of trajectory methods, or None.
        transform: How pixels in [0, 1] become such images, for methods that keep pixels; None: they are pixels.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    ipc: int | None
    network: Flat | None
    augment: Augment | None
    experts: Experts | None = None
    graph_memory: int = 0
    smaller: int = 0
    auxiliary: Auxiliary | None = None
    extra: ImagesTerm | None = None
    transform: Normalise | Zca | None = None

    @property
    def device(self) -> torch.device:
        """The device on which all tensors live."""
        return self.images.device

    def rows_of(self, label: int) -> Tensor:
        """Return the rows whose observed label is ``label``, int64."""
        return (self.labels == label).nonzero().squeeze(1)


@dataclass(frozen=True)
class Distilled:
    """A labelled training set that a method hands over.

    Attributes:
        images: [n, C, H, W] in the transformed space, float32.
        labels: Hard labels, int64 [n], or class probabilities, float32 [n, classes], or scores of that shape.
        step_size: The learning rate with which to train on the set, where the method learnt one.
        factor: Each stored image holds ``factor`` x ``factor`` training images (:mod:`ddnl_ray.distill.formation`).
        scores: Whether the labels are targets of a regression, any numbers: those of a hard label would be
            1 - 1 / classes at its class and -1 / classes elsewhere.
        mirrored: Whether every training image also counts mirrored from left to right, with the same label.
    """

    images: Tensor
    labels: Tensor
    step_size: float | None = None
    factor: int = 1
    scores: bool = False
    mirrored: bool = False

    def decoded(self) -> Distilled:
        """Return the set of training images that the stored ones hold."""
        if self.factor == 1 and not self.mirrored:
            return self
        images, labels = self.images, self.labels
        if self.factor > 1:
            images, labels = decode(images, self.factor), labels.repeat_interleave(self.factor**2, dim=0)
        if self.mirrored:
            images, labels = torch.cat([images, images.flip(-1)]), torch.cat([labels, labels])
        return Distilled(images, labels, self.step_size, scores=self.scores)


@dataclass(frozen=True)
class State:
    """All that changes while a method runs. Subclasses add tensors and integers, nothing else.

    Attributes:
        iteration: Steps taken.
    """

    iteration: int

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors; integers become int64 scalars, absent tensors are left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value if isinstance(value, Tensor) else torch.tensor(value)
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device | str) -> Self:
        """Rebuild a state from :meth:`tensors`.

        Raises:
            CorruptFileError: A tensor is missing or unknown.
        """
        hints = get_type_hints(cls)
        kinds = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
        required = {name for name, kind in kinds.items() if type(None) not in get_args(kind)}
        if not required <= set(tensors) <= set(kinds):
            raise CorruptFileError(
                f"a checkpoint of {cls.__name__} holds {sorted(tensors)}, expected {sorted(kinds)}; "
                "delete the trial's checkpoint to start it again"
            )
        values: dict[str, Any] = dict.fromkeys(kinds)
        for name, tensor in tensors.items():
            values[name] = int(tensor) if kinds[name] is int else tensor.to(device)
        return cls(**values)


@dataclass(frozen=True)
class StepInfo:
    """What one step reports.

    Attributes:
        loss: The method's objective at this step; NaN also where its gradient is not finite.
        accepted: Whether the update was applied (a gate or a guard may refuse it).
    """

    loss: float
    accepted: bool


@dataclass(frozen=True)
class Choice:
    """Which training images a method trusts while it runs, and with which labels.

    Attributes:
        refresh: How often the choice was made; 0: not yet.
        member: Which images are trusted, bool [N].
        labels: The label of every image, int64 [N]; of an image that is not trusted the observed one.
        relabelled: Which of the trusted ones have a label of the method's own, bool [N].
    """

    refresh: int
    member: Tensor
    labels: Tensor
    relabelled: Tensor


S = TypeVar("S", bound=State)


class Method(ABC, Generic[S]):
    """A distillation method.

    A method reads no files, keeps no state of its own and draws every random number from the seed it is given. Step
    ``i`` depends on the state, the problem and generators that the seed derives from ``i`` alone, so a run may be
    stopped after any step and continued elsewhere, bit for bit.
    """

    name: ClassVar[str]
    state: ClassVar[type[State]]
    needs_network: ClassVar[bool] = False
    """Whether it uses networks; one that needs experts does."""
    needs_experts: ClassVar[bool] = False
    matches_trajectories: ClassVar[bool] = False
    """Whether a student follows the experts' weights: the robust parts that act on experts are for such methods."""
    keeps_pixels: ClassVar[bool] = False
    """Whether its images are pixels, which are cut into several: that does not go with whitening."""
    reads_final: ClassVar[bool] = False
    """Whether it reads the experts' last epoch, beside the window."""

    def __init__(self, config: Any) -> None:
        """Keep the method's configuration."""

    @abstractmethod
    def init(self, problem: Problem, seed: SeedTree) -> S:
        """Return the first state."""

    @abstractmethod
    def step(self, state: S, problem: Problem, seed: SeedTree) -> tuple[S, StepInfo]:
        """Take one step; the given state is left as it was."""

    @abstractmethod
    def export(self, state: S, problem: Problem) -> Distilled:
        """Return the set that the state stands for."""

    def choice(self, state: S) -> Choice | None:
        """Return what the method trusts of the training set at this state; None: it does not choose."""
        return None


def shuffled_rows(problem: Problem, seed: SeedTree) -> list[Tensor]:
    """Return, for every class, the rows with its observed label in shuffled order, int64.

    Raises:
        RequestError: A class has fewer images than ``ipc``.
    """
    assert problem.ipc is not None
    rows = []
    for label in range(problem.num_classes):
        own = problem.rows_of(label)
        if len(own) < problem.ipc:
            raise RequestError(
                f"ipc is {problem.ipc}, but class {label} has only {len(own)} training images with that label; "
                "choose a smaller ipc"
            )
        order = torch.randperm(len(own), generator=seed.child("class", label).torch())
        rows.append(own[order.to(own.device)])
    return rows


def pick_per_class(problem: Problem, seed: SeedTree) -> Tensor:
    """Return rows of ``ipc`` random training images per observed class, class by class, int64 [classes * ipc]."""
    return torch.cat([rows[: problem.ipc] for rows in shuffled_rows(problem, seed)])
