"""The student of trajectory matching: the gradient of a step, and what is pulled back through it.

A student step moves the weights against ``g = grad_theta loss(theta; X, Y)``. To differentiate a function of the
weights after it, one needs, for a given direction ``a`` in weight space, the derivatives of ``<a, g>`` with respect to
theta, X and Y. A :class:`Tape` holds what the step's gradient left behind, and returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import Dsa, DsaDraw
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
    draw: DsaDraw | None


@dataclass(frozen=True)
class Pulled:
    """Derivatives of ``<a, g>`` for a step's gradient ``g`` and a direction ``a``.

    Attributes:
        product: The value ``<a, g>``, scalar.
        images: With respect to the un-augmented images [B, C, H, W].
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

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tensor:
        """Return the gradient [P] of the mean cross-entropy of a batch.

        Args:
            theta: Weights [P].
            images: Un-augmented images [B, C, H, W].
            labels: Classes, int64 [B], or label logits, floating [B, classes], whose soft-max is the target.
            draw: The augmentation of this batch.
        """

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tape:
        """Return the step for the same arguments, ready to be differentiated."""

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return how many bytes the tape of an un-augmented batch holds beside its inputs, measured on one."""


@dataclass(frozen=True)
class AutogradStudent:
    """A student of any network, differentiated twice by autograd (implements :class:`Student`).

    Attributes:
        network: Maps flat weights [P] and images [B, C, H, W] to logits [B, classes].
        augment: Applied to the images with each batch's own draw, or None.
    """

    network: Network
    augment: Dsa | None

    def loss(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tensor:
        """Return the mean cross-entropy of a batch (arguments as in :meth:`Student.gradient`)."""
        if self.augment is not None and draw is not None:
            images = self.augment.apply(images, draw)
        logits = self.network(theta, images)
        if labels.is_floating_point():
            return -(labels.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        return F.cross_entropy(logits, labels)

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`)."""
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(leaf, images, labels, draw)
        return torch.autograd.grad(loss, leaf)[0]

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tape:
        """Return the step with its graph (see :meth:`Student.tape`)."""
        leaves = [theta.detach().requires_grad_(), images.detach().requires_grad_()]
        soft = labels.is_floating_point()
        target = labels.detach().requires_grad_() if soft else labels
        with torch.enable_grad():
            loss = self.loss(leaves[0], leaves[1], target, draw)
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
            tape = self.tape(theta, images, labels, None)
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
        augment: Applied to the images with each batch's own draw, or None.
    """

    network: Flat
    augment: Dsa | None

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`)."""
        return self.tape(theta, images, labels, draw).gradient

    @torch.no_grad()
    def tape(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tape:
        """Return the step with both its passes (see :meth:`Student.tape`)."""
        raw = augmented = images.detach()
        if self.augment is not None and draw is not None:
            raw = raw.requires_grad_()
            with torch.enable_grad():
                augmented = self.augment.apply(raw, draw)
        soft = labels.is_floating_point()
        weights = Weights.cut(self.network, theta)
        probabilities = labels.softmax(1) if soft else F.one_hot(labels, len(weights.bias)).to(theta.dtype)
        passes = ConvNetTape(weights, epsilon(self.network), augmented.detach(), probabilities)
        return _ConvNetTape(self.network, passes, raw, augmented, probabilities if soft else None)

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return the bytes of a tape (see :meth:`Student.tape_bytes`)."""
        tape = self.tape(theta, images, labels, None)
        assert isinstance(tape, _ConvNetTape)
        return tape.passes.num_bytes


@dataclass(frozen=True)
class _ConvNetTape:
    """Both passes of a ConvNet, and how its images were augmented."""

    network: Flat
    passes: ConvNetTape
    raw: Tensor
    augmented: Tensor
    probabilities: Tensor | None

    @property
    def gradient(self) -> Tensor:
        with torch.no_grad():
            return self.passes.gradient

    @torch.no_grad()
    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        found = self.passes.pull(Weights.cut(self.network, direction), through_weights)
        images, labels = found.images, None
        if self.augmented is not self.raw:
            (images,) = torch.autograd.grad(self.augmented, self.raw, images)
        if self.probabilities is not None:
            p = self.probabilities
            labels = p * (found.targets - (p * found.targets).sum(1, keepdim=True))
        return Pulled(found.product, images, labels, found.weights)


@dataclass(frozen=True)
class InParts:
    """A student that takes a batch in parts, so that a part's maps stay in the cache and in memory (a Student).

    The gradient of a mean over images is the mean of the parts' gradients, weighted by their sizes. It needs a network
    that treats each image by itself, as those without batch normalisation do.

    Attributes:
        student: Takes one part.
        size: Images in a part.
    """

    student: Student
    size: int

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tensor:
        """Return the gradient of a batch (see :meth:`Student.gradient`)."""
        total = torch.zeros_like(theta)
        for share, part in self._parts(images, labels, draw):
            total.add_(self.student.gradient(theta, *part), alpha=share)
        return total

    def tape(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tape:
        """Return the tapes of all parts (see :meth:`Student.tape`)."""
        parts = self._parts(images, labels, draw)
        return _PartTapes([(share, self.student.tape(theta, *part)) for share, part in parts])

    def tape_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Return the bytes of a batch's tapes (see :meth:`Student.tape_bytes`)."""
        return sum(self.student.tape_bytes(theta, *part[:2]) for _, part in self._parts(images, labels, None))

    def _parts(
        self, images: Tensor, labels: Tensor, draw: DsaDraw | None
    ) -> Iterator[tuple[float, tuple[Tensor, Tensor, DsaDraw | None]]]:
        for first in range(0, len(images), self.size):
            rows = slice(first, first + self.size)
            own = images[rows], labels[rows], draw.of(rows) if draw is not None else None
            yield len(own[0]) / len(images), own


@dataclass(frozen=True)
class _PartTapes:
    """The tapes of a batch's parts, with their shares."""

    parts: list[tuple[float, Tape]]

    @property
    def gradient(self) -> Tensor:
        total = torch.zeros_like(self.parts[0][1].gradient)
        for share, tape in self.parts:
            total.add_(tape.gradient, alpha=share)
        return total

    def pull(self, direction: Tensor, through_weights: bool = True) -> Pulled:
        product = torch.zeros((), dtype=direction.dtype, device=direction.device)
        weights = torch.zeros_like(direction) if through_weights else None
        images, labels = [], []
        for share, tape in self.parts:
            pulled = tape.pull(direction, through_weights)
            product += share * pulled.product
            images.append(share * pulled.images)
            if pulled.labels is not None:
                labels.append(share * pulled.labels)
            if weights is not None and pulled.weights is not None:
                weights.add_(pulled.weights, alpha=share)
        return Pulled(product, torch.cat(images), torch.cat(labels) if labels else None, weights)
