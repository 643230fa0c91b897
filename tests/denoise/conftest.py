"""A small set whose classes show in patterns, with some wrong labels: what cleaners are tried on in seconds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddnl_ray.denoise import Problem
from ddnl_ray.models import NetworkSpec


def patterned(num: int, wrong: float, dtype: torch.dtype = torch.float32) -> tuple[Problem, Tensor]:
    """Return three classes of 8 x 8 images with a share of wrong labels, and the truth."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.arange(num) % 3
    images = torch.randn(3, 1, 8, 8, generator=generator)[truth] + 0.5 * torch.randn(num, 1, 8, 8, generator=generator)
    flipped = torch.randperm(num, generator=generator)[: int(wrong * num)]
    labels = truth.clone()
    labels[flipped] = (truth[flipped] + torch.randint(1, 3, (len(flipped),), generator=generator)) % 3
    problem = Problem(images.to(dtype), labels, 3, NetworkSpec("convnet1", 4), flip=False, features=images.flatten(1))
    return problem, truth


@pytest.fixture(scope="session")
def noisy() -> tuple[Problem, Tensor]:
    return patterned(150, 0.3)
