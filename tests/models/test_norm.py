from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.models.norm import InstanceNorm2d, make_norm


def _inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 3 + 2 * torch.randn(4, 5, 6, 7, dtype=torch.float64, generator=generator)
    weight = torch.randn(5, dtype=torch.float64, generator=generator)
    bias = torch.randn(5, dtype=torch.float64, generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def _ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    module = InstanceNorm2d(x.shape[1])
    output: Tensor = torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))
    return output


def _oracle(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, x.shape[1], weight, bias, eps=1e-5)


def _derivatives(function: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    inputs = _inputs(seed)
    output = function(*inputs)
    generator = torch.Generator().manual_seed(seed + 1)
    first = torch.autograd.grad((output**3).sum(), inputs, create_graph=True)
    probes = [torch.randn(g.shape, dtype=g.dtype, generator=generator) for g in first]
    scalar = sum(((g * p).sum() for g, p in zip(first, probes, strict=True)), torch.zeros(()))
    return list(first), list(torch.autograd.grad(scalar, inputs))


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_group_norm_with_as_many_groups_as_channels_up_to_second_derivatives(seed: int) -> None:
    torch.testing.assert_close(_ours(*_inputs(seed)), _oracle(*_inputs(seed)), rtol=1e-12, atol=1e-12)
    for ours, oracle in zip(_derivatives(_ours, seed), _derivatives(_oracle, seed), strict=True):
        for a, b in zip(ours, oracle, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_survives_a_mean_far_above_the_deviation_in_float32() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    shifted = InstanceNorm2d(3)(x + 1000)
    torch.testing.assert_close(shifted, InstanceNorm2d(3)(x), rtol=0, atol=2e-3)


def test_constant_channel_gives_the_bias() -> None:
    module = InstanceNorm2d(2)
    torch.nn.init.constant_(module.bias, 0.25)
    output = module(torch.full((1, 2, 4, 4), 7.0))
    torch.testing.assert_close(output, torch.full((1, 2, 4, 4), 0.25), rtol=0, atol=1e-4)


def test_unknown_norm_is_named() -> None:
    with pytest.raises(RequestError, match="unknown normalisation 'instnce': did you mean 'instance'"):
        make_norm("instnce", 3)
