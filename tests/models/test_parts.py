"""How many images go through a network at once."""

from __future__ import annotations

import torch

from ddnl_ray.models import NetworkSpec, build
from ddnl_ray.models.parts import part_size

CPU = torch.device("cpu")


def test_the_widest_map_fits_the_budget() -> None:
    wide, narrow = (build(NetworkSpec("convnet3", w), (3, 32, 32), 10, torch.Generator()) for w in (128, 16))
    assert part_size(wide, 32, CPU) == 8 * 2**20 // (128 * 32 * 32 * 4) == 16
    assert part_size(narrow, 32, CPU) == 128
    assert [part_size(wide, 32, CPU, smaller) for smaller in (1, 2, 3)] == [4, 1, 1]
    assert part_size(wide, 32, torch.device("cuda")) == 2048


def test_a_network_with_batch_normalisation_takes_whole_batches() -> None:
    assert part_size(build(NetworkSpec("resnet18bn", 4), (3, 32, 32), 10, torch.Generator()), 32, CPU) is None
