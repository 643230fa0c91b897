"""Exact gradient of a trajectory-matching loss through an unrolled student, in the memory of one step.

A student starts at an expert's weights and takes ``n`` plain SGD steps on the synthetic set,
``theta_{i+1} = theta_i - beta * g_i`` with ``g_i = grad_theta loss(theta_i; X_i, Y_i)``. A goal scores the weights of
one step ``k`` (the last, or a chosen one) with a loss ``L``. Reverse-mode differentiation by hand gives, with
``lambda_k = dL/dtheta_k`` and ``s_i = <lambda_{i+1}, g_i>`` for ``i < k``::

    dL/dX_i    = -beta * ds_i/dX_i
    dL/dY_i    = -beta * ds_i/dY_i
    dL/dbeta  += -s_i
    lambda_i   = lambda_{i+1} - beta * ds_i/dtheta_i

so that each step is recomputed, used once and freed. It needs ``n`` parameter vectors and one step's tape. Where memory
allows, the first ``kept`` steps keep their tapes and need not be recomputed: the same numbers, sooner.

Without the last line, ``lambda_i = lambda_k`` for every step, it is the gradient that TESLA publishes (Cui et al., ICML
2023, arXiv 2211.10586), which takes each ``g_i`` to depend on its own batch only: an approximation.

Differs from the originals: the public codes of MTT, FTD, DATM and ATT keep every graph; TESLA's doubles a tuple instead
of its entries, so that its image gradient is half of its formula. Here the factor is the formula's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.distill.student import Augmented, StudentBatch, Tape

MIN_SQUARED_MOVE = 1e-12
MIN_RELATIVE_MOVE = 1e-8
GRAD_MODES = ("adjoint", "tesla")


@dataclass(frozen=True)
class End:
    """Where a goal looks at the student.

    Attributes:
        step: The number of steps taken there (1 to n).
        loss: Scalar.
        adjoint: Derivative of the loss with respect to the weights there [P].
    """

    step: int
    loss: Tensor
    adjoint: Tensor


Goal = Callable[[Sequence[Tensor]], End]
"""Maps the weights after the steps 1 to n to where and how they are scored."""


def reach(start: Tensor, target: Tensor) -> Goal:
    """Return the goal of ending at the target: ``|theta_n - target|^2 / |start - target|^2`` (MTT, Eq. 3).

    Where the expert hardly moved (squared distance below 1e-12) the loss is NaN.

    Args:
        start: Expert weights where the student starts [P].
        target: Expert weights that it should reach [P].
    """

    def goal(visited: Sequence[Tensor]) -> End:
        return score(visited, len(visited), start, target)

    return goal


def score(visited: Sequence[Tensor], step: int, start: Tensor, target: Tensor) -> End:
    """Return the normalised squared distance to the target after ``step`` steps, and its derivative."""
    scale = (start - target).square().sum()
    scale = torch.where(scale < MIN_SQUARED_MOVE, torch.nan, scale)
    difference = visited[step - 1] - target
    return End(step, difference.square().sum() / scale, 2 * difference / scale)


def blend(goal: Goal, start: Tensor, target: Tensor, second: Tensor, weight: float) -> Goal:
    """Return the goal ``(1 - weight) L + weight L'``, where L' scores the same step against a second target.

    A target that hardly differs from the start (squared distance below 1e-8 of the start's squared norm) has no
    meaningful scale: its term is left out, and the other counts whole.

    Args:
        goal: The goal of L.
        start: Expert weights where the student starts [P].
        target: What L is normalised by: the expert's own later weights [P].
        second: The second target [P].
        weight: Its share, in [0, 1].
    """
    least = MIN_RELATIVE_MOVE * start.square().sum()
    moved, moved_second = ((start - end).square().sum() >= least for end in (target, second))
    if weight == 0 or not moved_second:
        return goal

    def blended(visited: Sequence[Tensor]) -> End:
        first = goal(visited)
        other = score(visited, first.step, start, second)
        if weight == 1 or not moved:
            return other
        loss = (1 - weight) * first.loss + weight * other.loss
        return End(first.step, loss, (1 - weight) * first.adjoint + weight * other.adjoint)

    return blended


@dataclass(frozen=True)
class MatchGradient:
    """The matching loss and its gradients.

    Attributes:
        loss: Scalar.
        images: [n, C, H, W].
        labels: [n, classes], or None where labels are hard.
        step_size: Scalar.
        step: How many student steps led to the scored weights.
    """

    loss: Tensor
    images: Tensor
    labels: Tensor | None
    step_size: Tensor
    step: int


def match(
    student: Augmented,
    start: Tensor,
    goal: Goal,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    batches: Sequence[StudentBatch],
    kept: int = 0,
    grad_mode: str = "adjoint",
) -> MatchGradient:
    """Return the loss of an unrolled student and its gradients.

    Args:
        student: The student.
        start: Weights where it starts [P].
        goal: Scores the weights that it visits.
        images: Synthetic images [n, C, H, W].
        labels: Classes, int64 [n], or label logits [n, classes].
        step_size: The student's learning rate, scalar.
        batches: One per step.
        kept: How many of the first steps keep their tapes.
        grad_mode: ``adjoint``, exact, or ``tesla``, the published approximation.

    Returns:
        Loss and gradients; not finite where the student diverged or the goal's loss is not.
    """
    beta = step_size.detach()
    images, labels, theta = images.detach(), labels.detach(), start.detach()
    tapes: list[Tape] = []
    visited = [theta]
    for i, batch in enumerate(batches):
        rows = images[batch.index], labels[batch.index]
        if i < kept:
            tapes.append(student.tape(theta, *rows, batch.draw))
            gradient = tapes[-1].gradient
        else:
            gradient = student.gradient(theta, *rows, batch.draw)
        theta = theta - beta * gradient
        visited.append(theta)
    end = goal(visited[1:])
    del tapes[end.step :]
    adjoint = end.adjoint
    grad_images, grad_beta = torch.zeros_like(images), torch.zeros_like(beta)
    grad_labels = torch.zeros_like(labels) if labels.is_floating_point() else None
    for i in reversed(range(end.step)):
        batch = batches[i]
        if i < len(tapes):
            tape = tapes.pop()
        else:
            tape = student.tape(visited[i], images[batch.index], labels[batch.index], batch.draw)
        pulled = tape.pull(adjoint, through_weights=i > 0 and grad_mode == "adjoint")
        grad_beta = grad_beta - pulled.product
        grad_images.index_add_(0, batch.index, -beta * pulled.images)
        if grad_labels is not None and pulled.labels is not None:
            grad_labels.index_add_(0, batch.index, -beta * pulled.labels)
        if pulled.weights is not None:
            adjoint = adjoint - beta * pulled.weights
    return MatchGradient(end.loss, grad_images, grad_labels, grad_beta, end.step)
