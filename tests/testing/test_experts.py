"""The sources of experts that need no Ray keep the contract."""

from __future__ import annotations

import torch

from ddnl_ray.experts import ArrayExperts, Experts
from ddnl_ray.testing import ExpertsContract, toy_experts


class TestToyExperts(ExpertsContract):
    def experts(self) -> Experts:
        return toy_experts()


class TestHalfPrecision(ExpertsContract):
    def experts(self) -> Experts:
        toy = toy_experts()
        halves = [torch.from_numpy(array).half().numpy() for array in toy.arrays]
        return ArrayExperts(halves, toy.epochs, toy.final_epoch, "float16")


class TestBrainFloats(ExpertsContract):
    def experts(self) -> Experts:
        toy = toy_experts()
        bits = [torch.from_numpy(array).bfloat16().view(torch.uint16).numpy() for array in toy.arrays]
        return ArrayExperts(bits, toy.epochs, toy.final_epoch, "bfloat16")


class TestReadOnlyWindow(ExpertsContract):
    """The first epochs and the final one, in arrays that must not be written."""

    def experts(self) -> Experts:
        toy = toy_experts()
        epochs = (0, 1, 2, toy.final_epoch)
        arrays = [array[list(epochs)] for array in toy.arrays]
        for array in arrays:
            array.flags.writeable = False
        return ArrayExperts(arrays, epochs, toy.final_epoch)
