"""The student of trajectory matching: the gradient of a step, and what is pulled back through it.

A student step moves the weights against ``g = grad_theta loss(theta; X, Y)``. To differentiate a function of the
weights after it, one needs, for a given direction ``a`` in weight space, the derivatives of ``<a, g>`` with respect to
theta, X and Y. A :class:`Tape` holds what the step's gradient left behind, and returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.augment import Augment, Draw
from ddnl_ray.models import Flat
from ddnl_ray.models.second_order import ConvNetTape, Weights, epsilon

Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StudentBatch:
    """What one student step trains on.

    Attributes:
        index: Rows of the synthetic set, int64 [B].
        draw: The augmentation drawn for this step, or None.
    """

    index: Tensor
    draw: Draw | None


@dataclass(frozen=True)
class Pulled:
    """Derivatives of ``<a, g>`` for a step's gradient ``g`` and a direction ``a``.

    Attributes:
        product: The value ``<a, g>``, scalar.
        images: With respect to the images [B, C, H, W].
        labels: With respect to the label logits [B, classes]; None where labels are hard.
        weights: With respect to the weights [P] (the Hessian times ``a``); None where not asked for.
    """

    product: Tensor
    images: Tensor
    labels: Tensor | None
    weights: Tensor | None


class Tape(Protocol):
    """One student step, ready to be differentiated once."""

    @property
    def gradient(self) -> Tensor:
        """The gradient of the loss with respect to the weights [P], detached."""

    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        """Return ``<direction, gradient>`` and its derivatives; the tape is spent afterwards.

        Args:
            direction: [P].
            through_weights: Whether the derivative with respect to the weights is wanted.
        """


class Student(Protocol):
    """How a student turns weights and a batch into a gradient."""

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient [P] of the mean cross-entropy of a batch.

        Args:
            theta: Weights [P].
            images: What the network sees [B, C, H, W].
            labels: Classes, int64 [B], or label logits, floating [B, classes], whose soft-max is the target.
        """

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tape:
        """Return the step for the same arguments, ready to be differentiated."""

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return how many bytes the tape of a batch holds beside its inputs, measured on one."""


@dataclass(frozen=True)
class Augmented:
    """A student of augmented images, differentiated with respect to the images before.

    Attributes:
        student: Sees the augmented images.
        augment: Applied with each batch's own draw, or None.
    """

    student: Student
    augment: Augment | None

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor, draw: Draw | None) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`) with its augmentation."""
        if self.augment is not None and draw is not None:
            images = self.augment.apply(images, draw)
        return self.student.gradient(theta, images, labels)

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor, draw: Draw | None) -> Tape:
        """Return the step (see :meth:`Student.tape`) with its augmentation."""
        if self.augment is None or draw is None:
            return self.student.tape(theta, images, labels)
        before = images.detach().requires_grad_()
        with torch.enable_grad():
            after = self.augment.apply(before, draw)
        return _AugmentedTape(self.student.tape(theta, after.detach(), labels), before, after)


@dataclass(frozen=True)
class _AugmentedTape:
    """A step on augmented images, and the graph of their augmentation."""

    tape: Tape
    before: Tensor
    after: Tensor

    @property
    def gradient(self) -> Tensor:
        return self.tape.gradient

    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        pulled = self.tape.pull(direction, through_weights)
        (images,) = torch.autograd.grad(self.after, self.before, pulled.images)
        return replace(pulled, images=images)


@dataclass(frozen=True)
class AutogradStudent:
    """A student of any network, differentiated twice by autograd (implements :class:`Student`).

    Attributes:
        network: Maps flat weights [P] and images [B, C, H, W] to logits [B, classes].
    """

    network: Network

    def loss(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch (arguments as in :meth:`Student.gradient`)."""
        logits = self.network(theta, images)
        if labels.is_floating_point():
            return -(labels.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        return F.cross_entropy(logits, labels)

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`)."""
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(leaf, images, labels)
        return torch.autograd.grad(loss, leaf)[0]

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tape:
        """Return the step with its graph (see :meth:`Student.tape`)."""
        leaves = [theta.detach().requires_grad_(), images.detach().requires_grad_()]
        soft = labels.is_floating_point()
        target = labels.detach().requires_grad_() if soft else labels
        with torch.enable_grad():
            loss = self.loss(leaves[0], leaves[1], target)
            (gradient,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
        return _GraphTape(gradient, leaves[0], leaves[1], target if soft else None)

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return the bytes of a tape (see :meth:`Student.tape_bytes`); storage that tensors share counts once."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            tape = self.tape(theta, images, labels)
        for given in (theta, images, labels):
            storages.pop(given.untyped_storage().data_ptr(), None)
        del tape
        return sum(storages.values())


@dataclass(frozen=True)
class _GraphTape:
    """A gradient with the graph of its computation."""

    graph: Tensor
    theta: Tensor
    images: Tensor
    labels: Tensor | None

    @property
    def gradient(self) -> Tensor:
        return self.graph.detach()

    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        wanted = [self.images, *([self.labels] if self.labels is not None else [])]
        pulled = torch.autograd.grad(
            self.graph, [*wanted, *([self.theta] if through_weights else [])], grad_outputs=direction
        )
        return Pulled(
            direction @ self.gradient,
            pulled[0],
            pulled[1] if self.labels is not None else None,
            pulled[-1] if through_weights else None,
        )


@dataclass(frozen=True)
class ConvNetStudent:
    """A student of a ConvNet with instance normalisation, differentiated by hand (implements :class:`Student`).

    Attributes:
        network: The ConvNet (see :func:`ddnl_ray.models.second_order.is_supported`).
    """

    network: Flat

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`)."""
        return self.tape(theta, images, labels).gradient

    @torch.no_grad()
    def tape(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tape:
        """Return the step with both its passes (see :meth:`Student.tape`)."""
        soft = labels.is_floating_point()
        weights = Weights.cut(self.network, theta)
        probabilities = labels.softmax(1) if soft else F.one_hot(labels, len(weights.bias)).to(theta.dtype)
        passes = ConvNetTape(weights, epsilon(self.network), images, probabilities)
        return _ConvNetTape(self.network, passes, probabilities if soft else None)

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return the bytes of a tape (see :meth:`Student.tape_bytes`)."""
        tape = self.tape(theta, images, labels)
        assert isinstance(tape, _ConvNetTape)
        return tape.passes.num_bytes


@dataclass(frozen=True)
class _ConvNetTape:
    """Both passes of a ConvNet."""

    network: Flat
    passes: ConvNetTape
    probabilities: Tensor | None

    @property
    def gradient(self) -> Tensor:
        with torch.no_grad():
            return self.passes.gradient

    @torch.no_grad()
    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        found = self.passes.pull(Weights.cut(self.network, direction), through_weights)
        labels = None
        if self.probabilities is not None:
            p = self.probabilities
            labels = p * (found.targets - (p * found.targets).sum(1, keepdim=True))
        return Pulled(found.product, found.images, labels, found.weights)


@dataclass(frozen=True)
class InParts:
    """A student that takes a batch in parts, so that a part's maps stay in the cache and in memory (a Student).

    The gradient of a mean over images is the mean of the parts' gradients, weighted by their sizes. It needs a network
    that treats each image by itself, as those without batch normalisation do.

    Attributes:
        student: Takes one part.
        size: Images in a part, at most; parts are as equal as can be.
    """

    student: Student
    size: int

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`)."""
        total = torch.zeros_like(theta)
        for share, part in self._parts(images, labels):
            total.add_(self.student.gradient(theta, *part), alpha=share)
        return total

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tape:
        """Return the tapes of all parts (see :meth:`Student.tape`), each made when it is needed."""
        parts = self._parts(images, labels)
        return _PartTapes((share, self.student.tape(theta, *part)) for share, part in parts)

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return the bytes of a batch's tapes (see :meth:`Student.tape_bytes`)."""
        return sum(self.student.tape_bytes(theta, *part) for _, part in self._parts(images, labels))

    def _parts(self, images: Tensor, labels: Tensor) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
        count = -(-len(images) // self.size)
        for rows, own in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
            yield len(rows) / len(images), (rows, own)


class _PartTapes:
    """The tapes of a batch's parts, with their shares; where none is to be kept, there is one at a time."""

    def __init__(self, parts: Iterable[tuple[float, Tape]]) -> None:
        self._parts = parts

    @property
    def gradient(self) -> Tensor:
        self._parts = list(self._parts)
        total = torch.zeros_like(self._parts[0][1].gradient)
        for share, tape in self._parts:
            total.add_(tape.gradient, alpha=share)
        return total

    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        product = torch.zeros((), dtype=direction.dtype, device=direction.device)
        weights = torch.zeros_like(direction) if through_weights else None
        images, labels = [], []
        for share, tape in self._parts:
            pulled = tape.pull(direction, through_weights)
            product += share * pulled.product
            images.append(share * pulled.images)
            if pulled.labels is not None:
                labels.append(share * pulled.labels)
            if weights is not None and pulled.weights is not None:
                weights.add_(pulled.weights, alpha=share)
        return Pulled(product, torch.cat(images), torch.cat(labels) if labels else None, weights)
