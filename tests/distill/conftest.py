"""Small problems on which the methods run in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddnl_ray.distill import Problem
from ddnl_ray.experts import Experts
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree


@dataclass
class WalkingExperts:
    """Experts that take random steps, and that remember which snapshots were read."""

    num_params: int
    num_experts: int = 3
    final_epoch: int = 12
    reads: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.num_experts

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        self.reads.append((expert, epoch))
        generator = torch.Generator().manual_seed(100 + expert)
        start, step = 0.2 * torch.randn(2, self.num_params, generator=generator)
        snapshot: Tensor = start + 0.1 * epoch * step
        return snapshot


@dataclass(frozen=True)
class TwoSnapshots:
    """One expert with the same weights at every even epoch, and the same others at every odd one."""

    even: Tensor
    odd: Tensor
    final_epoch: int = 9

    def __len__(self) -> int:
        return 1

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return (self.odd if epoch % 2 else self.even).clone()


def tanh_network(theta: Tensor, x: Tensor) -> Tensor:
    """Two layers with a tanh between them, 9 -> 5 -> 3, of 68 flat weights: smooth, for oracles in float64."""
    hidden = torch.tanh(x.flatten(1) @ theta[:45].view(5, 9).T + theta[45:50])
    logits: Tensor = hidden @ theta[50:65].view(3, 5).T + theta[65:]
    return logits


@dataclass(frozen=True)
class Smooth:
    """A problem in float64 whose student walks from ``start`` to ``target``, and its network written out."""

    problem: Problem
    network: Callable[[Tensor, Tensor], Tensor]
    start: Tensor
    target: Tensor

    def aimed(self, target: Tensor) -> Problem:
        """The problem with another target."""
        return replace(self.problem, experts=TwoSnapshots(self.start, target))


@pytest.fixture
def smooth() -> Smooth:
    """3 classes of 4 images of 3x3, two per class to distil; segments of an odd length go from start to target."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 1, 3, 3, generator=generator, dtype=torch.float64)
    network = Flat(nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)).double())
    start = 0.4 * torch.randn(68, generator=generator, dtype=torch.float64)
    target = start + 0.1 * torch.randn(68, generator=generator, dtype=torch.float64)
    problem = Problem(images, torch.arange(12) % 3, 3, 2, network, None, TwoSnapshots(start, target))
    return Smooth(problem, tanh_network, start, target)


@pytest.fixture
def convnet_problem() -> Callable[..., Problem]:
    """Make a problem of random images, 3 classes of 6, a ConvNet-1 of width 4, and random-walk experts."""

    def make(ipc: int | None = 2, **changes: Any) -> Problem:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(18, 1, 4, 4, generator=generator)
        network = Flat(build(NetworkSpec("convnet1", 4), (1, 4, 4), 3, SeedTree.root(0).torch()))
        values: dict[str, Any] = {
            "images": images,
            "labels": torch.arange(18) % 3,
            "num_classes": 3,
            "ipc": ipc,
            "network": network,
            "augment": None,
            "experts": WalkingExperts(network.num_params),
        }
        return Problem(**(values | changes))

    return make


@pytest.fixture
def linear_problem() -> Callable[..., Problem]:
    """Make a problem on which a person can see what an expert predicts.

    Image ``i`` has one feature per class (``features[i]``), and an expert is a matrix [classes, classes] that maps
    features to logits.
    """

    def make(features: Tensor, labels: Sequence[int], experts: Experts, ipc: int) -> Problem:
        classes = features.shape[1]
        side = 1
        network = Flat(nn.Sequential(nn.Flatten(), nn.Linear(classes, classes, bias=False)))
        images = features.float().view(len(features), classes, side, side)
        return Problem(images, torch.tensor(labels), classes, ipc, network, None, experts)

    return make
