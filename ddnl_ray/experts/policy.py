"""What experts learn from: the seam at which a robust method chooses, relabels and weighs the real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ddnl_ray.models import Flat


@dataclass(frozen=True)
class Lesson:
    """What an expert learns from in one epoch, of N training images.

    An epoch takes as many steps as one over all N images, whatever the rows: the rows are passed over again and again,
    each time in another order. An epoch then means the same amount of optimisation for all, as trajectory matching
    assumes.

    Attributes:
        labels: The label of every image, int64 [N].
        rows: The images that are trained on, int64 [m], ascending; None: all.
        weights: Weight of every image in the mean loss [N]; None: all 1.
    """

    labels: Tensor
    rows: Tensor | None = None
    weights: Tensor | None = None


class Policy(Protocol):
    """What the experts of a buffer learn from, epoch by epoch; it depends on its arguments alone."""

    @property
    def consistency(self) -> float:
        """Weight of the mean of ``1 - p_y`` beside the cross-entropy, p_y the probability of the label; 0: without."""

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        """Return what an expert learns from next.

        Args:
            expert: Index of the expert.
            epoch: Epochs that are done.
            network: The network.
            theta: The expert's weights now [P].
        """


class PolicySource(Protocol):
    """A policy as it is named and travels: by what determines it."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the policy, as JSON; part of a buffer's name."""

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Policy:
        """Return the policy.

        Args:
            root: The store, which holds what the policy is made of.
            images: Training images in the transformed space [N, C, H, W], on the device.
            labels: Observed labels, int64 [N], on the device.
        """


@dataclass(frozen=True)
class Plain:
    """Every image, with its observed label.

    Attributes:
        labels: Observed labels, int64 [N].
    """

    labels: Tensor
    consistency: float = 0.0

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        """Return all images (see :meth:`Policy.lesson`)."""
        return Lesson(self.labels)


def order_of(lesson: Lesson, num_images: int, generator: torch.Generator) -> Tensor:
    """Return the images of one epoch in the order in which they are used, int64 [num_images], on the CPU."""
    if lesson.rows is None:
        return torch.randperm(num_images, generator=generator)
    rows = lesson.rows.cpu()
    passes = -(-num_images // len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(passes)])[:num_images]
