"""Exact gradient of the trajectory-matching loss through an unrolled student, in the memory of one step.

A student starts at an expert's weights and takes ``n`` plain SGD steps on the synthetic set,
``theta_{i+1} = theta_i - beta * g_i`` with ``g_i = grad_theta loss(theta_i; X_i, Y_i)``. The matching loss (MTT,
Cazenavette et al. 2022, Eq. 3) is ``L = |theta_n - target|^2 / |start - target|^2``. Reverse-mode differentiation
by hand gives, with ``lambda_n = dL/dtheta_n`` and ``s_i = <lambda_{i+1}, g_i>``::

    dL/dX_i    = -beta * ds_i/dX_i
    dL/dY_i    = -beta * ds_i/dY_i
    dL/dbeta  += -s_i
    lambda_i   = lambda_{i+1} - beta * ds_i/dtheta_i

so that each step's graph is rebuilt, used once and freed. It needs ``n`` parameter vectors and one graph, and 12
forward passes a step where back-propagation through the kept graphs needs 9. Where memory allows, the last ``kept``
steps keep their graphs: the same numbers, sooner.

Differs from the original: the public codes keep every graph (MTT, DATM) or drop the second-order chain (TESLA, Cui et
al. 2023, whose gradient is therefore approximate). This one is exact at TESLA's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import Dsa, DsaDraw

MIN_SQUARED_MOVE = 1e-12

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
class Student:
    """How a student turns weights and a batch into a loss.

    Attributes:
        network: Maps flat weights [P] and images [B, C, H, W] to logits [B, classes].
        augment: Applied to the images with each batch's own draw, or None.
    """

    network: Network
    augment: Dsa | None

    def loss(self, theta: Tensor, images: Tensor, labels: Tensor, draw: DsaDraw | None) -> Tensor:
        """Return the mean cross-entropy of a batch.

        Args:
            theta: Weights [P].
            images: Un-augmented images [B, C, H, W].
            labels: Classes, int64 [B], or label logits, floating [B, classes], whose soft-max is the target.
            draw: The augmentation of this batch.
        """
        if self.augment is not None and draw is not None:
            images = self.augment.apply(images, draw)
        logits = self.network(theta, images)
        if labels.is_floating_point():
            return -(labels.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        return F.cross_entropy(logits, labels)


@dataclass(frozen=True)
class MatchGradient:
    """The matching loss and its gradients.

    Attributes:
        loss: Scalar.
        images: [n, C, H, W].
        labels: [n, classes], or None where labels are hard.
        step_size: Scalar.
    """

    loss: Tensor
    images: Tensor
    labels: Tensor | None
    step_size: Tensor


def match(
    student: Student,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    batches: Sequence[StudentBatch],
    kept: int = 0,
) -> MatchGradient:
    """Return the matching loss of an unrolled student and its exact gradients.

    Args:
        student: The student's loss.
        start: Expert weights where the student starts [P].
        target: Expert weights that it should reach [P].
        images: Synthetic images [n, C, H, W].
        labels: Hard labels, int64 [n], or label logits [n, classes].
        step_size: The student's learning rate, scalar.
        batches: One entry per student step.
        kept: How many of the last steps keep their graphs (0: constant memory; ``len(batches)``: plain unrolling).

    Returns:
        Loss and gradients; not finite where the student diverged or the expert did not move (squared distance below
        1e-12).
    """
    images, labels, beta = images.detach(), labels.detach(), step_size.detach()
    scale = (start - target).square().sum()
    scale = torch.where(scale < MIN_SQUARED_MOVE, torch.nan, scale)
    replayed = batches[: max(0, len(batches) - kept)]
    theta, visited = _run(student, start.detach(), images, labels, beta, replayed)

    tail = _match_kept(student, theta, target, scale, images, labels, beta, batches[len(replayed) :])
    adjoint, grad_images, grad_labels, grad_beta = tail.adjoint, tail.images, tail.labels, tail.step_size
    for step in reversed(range(len(replayed))):
        batch = replayed[step]
        x = images[batch.index].requires_grad_()
        y = labels[batch.index]
        inputs = [x]
        if grad_labels is not None:
            inputs.append(y.requires_grad_())
        if step > 0:
            inputs.append(visited[step])
        with torch.enable_grad():
            loss = student.loss(visited[step], x, y, batch.draw)
            (gradient,) = torch.autograd.grad(loss, visited[step], create_graph=True)
            projection = adjoint @ gradient
        pulled = torch.autograd.grad(projection, inputs)
        grad_beta = grad_beta - projection.detach()
        grad_images.index_add_(0, batch.index, -beta * pulled[0])
        if grad_labels is not None:
            grad_labels.index_add_(0, batch.index, -beta * pulled[1])
        if step > 0:
            adjoint = adjoint - beta * pulled[-1]
    return MatchGradient(tail.loss, grad_images, grad_labels, grad_beta)


def _run(
    student: Student,
    theta: Tensor,
    images: Tensor,
    labels: Tensor,
    beta: Tensor,
    batches: Sequence[StudentBatch],
) -> tuple[Tensor, list[Tensor]]:
    """Take the student's steps without keeping graphs; return the end and every start of a step."""
    visited = []
    for batch in batches:
        theta = theta.detach().requires_grad_()
        visited.append(theta)
        with torch.enable_grad():
            loss = student.loss(theta, images[batch.index], labels[batch.index], batch.draw)
        (gradient,) = torch.autograd.grad(loss, theta)
        theta = theta.detach() - beta * gradient
    return theta.detach(), visited


@dataclass(frozen=True)
class _Tail:
    loss: Tensor
    adjoint: Tensor
    images: Tensor
    labels: Tensor | None
    step_size: Tensor


def _match_kept(
    student: Student,
    theta: Tensor,
    target: Tensor,
    scale: Tensor,
    images: Tensor,
    labels: Tensor,
    beta: Tensor,
    batches: Sequence[StudentBatch],
) -> _Tail:
    """Unroll the last steps with their graphs and differentiate through them at once."""
    soft = labels.is_floating_point()
    if not batches:
        difference = theta - target
        return _Tail(
            difference.square().sum() / scale,
            2 * difference / scale,
            torch.zeros_like(images),
            torch.zeros_like(labels) if soft else None,
            torch.zeros_like(beta),
        )
    first = theta.detach().requires_grad_()
    x = images.detach().requires_grad_()
    y = labels.detach().requires_grad_() if soft else labels
    b = beta.detach().requires_grad_()
    with torch.enable_grad():
        theta = first
        for batch in batches:
            loss = student.loss(theta, x[batch.index], y[batch.index], batch.draw)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            theta = theta - b * gradient
        matching = (theta - target).square().sum() / scale
    pulled = torch.autograd.grad(matching, [first, x, b, y] if soft else [first, x, b])
    return _Tail(matching.detach(), pulled[0], pulled[1], pulled[3] if soft else None, pulled[2])


def graph_bytes(student: Student, theta: Tensor, images: Tensor, labels: Tensor, batch: StudentBatch) -> int:
    """Return how many bytes one kept step holds for its backward pass, measured on one step.

    Storage that several saved tensors share is counted once; the inputs are not counted.
    """
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaves = [theta.detach().requires_grad_(), images[batch.index].requires_grad_(), labels[batch.index]]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = student.loss(leaves[0], leaves[1], leaves[2], batch.draw)
        (gradient,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
    del gradient
    for leaf in leaves:
        storages.pop(leaf.untyped_storage().data_ptr(), None)
    return sum(storages.values())
