"""The student of trajectory matching: the gradient of a step, and what is pulled back through it.

A student step moves the weights against ``g = grad_theta loss(theta; X, Y)``. To differentiate a function of the
weights after it, one needs, for a given direction ``a`` in weight space, the derivatives of ``<a, g>`` with respect to
theta, X and Y. A :class:`Tape` holds what the step's gradient left behind, and returns them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import Dsa, DsaDraw

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


def tape_bytes(student: Student, theta: Tensor, images: Tensor, labels: Tensor) -> int:
    """Return how many bytes one kept tape of an un-augmented batch holds, measured on one step.

    Storage that several saved tensors share is counted once; the inputs are not counted.
    """
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        tape = student.tape(theta, images, labels, None)
    for leaf in (theta, images, labels):
        storages.pop(leaf.untyped_storage().data_ptr(), None)
    del tape
    return sum(storages.values())
