"""Samples in clusters with labels of which some are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.robust.reliability import Reference, anchor_statistics

CLASSES = 4


@dataclass(frozen=True)
class Clusters:
    """400 samples around 4 directions, with 40 % wrong labels and losses that tell most of those from the others.

    Attributes:
        features: [400, 8], of length 1.
        clean: True labels, int64 [400].
        observed: int64 [400].
        losses: [400].
        reference: The features, and anchors near the directions.
    """

    features: Tensor
    clean: Tensor
    observed: Tensor
    losses: Tensor
    reference: Reference


@pytest.fixture
def clusters() -> Clusters:
    generator = torch.Generator().manual_seed(0)

    def around(labels: Tensor) -> Tensor:
        points = 2 * torch.eye(8)[labels] + 0.3 * torch.randn(len(labels), 8, generator=generator)
        return F.normalize(points, dim=1)

    clean = torch.arange(400) % CLASSES
    flipped = torch.rand(400, generator=generator) < 0.4
    shift = torch.randint(1, CLASSES, (400,), generator=generator)
    observed = torch.where(flipped, (clean + shift) % CLASSES, clean)
    losses = torch.where(flipped, 2.5, 0.6) + 0.6 * torch.randn(400, generator=generator)
    features, kinds = around(clean), torch.arange(CLASSES).repeat_interleave(10)
    statistics = anchor_statistics(around(kinds), kinds, features, CLASSES, 6)
    return Clusters(features, clean, observed, losses.clamp_min(0), Reference(features, statistics))


@pytest.fixture
def images() -> Callable[..., tuple[Tensor, Tensor]]:
    """Make random images of 4x4 pixels with labels of three classes in turn."""

    def make(number: int = 30) -> tuple[Tensor, Tensor]:
        return torch.randn(number, 1, 4, 4, generator=torch.Generator().manual_seed(1)), torch.arange(number) % 3

    return make
