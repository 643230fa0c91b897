"""The hand-written second derivatives of the ConvNet, against autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.second_order import ConvNetTape, Weights, epsilon, is_supported

CLASSES = 4
EXACT = 1e-10


def network(depth: int, channels: int, size: int, width: int = 5) -> Flat:
    generator = torch.Generator().manual_seed(0)
    return Flat(build(NetworkSpec(f"convnet{depth}", width), (channels, size, size), CLASSES, generator).double())


def plain(flat: Flat, theta: Tensor, x: Tensor) -> Tensor:
    """The ConvNet by torch's functions, from a flat vector cut by hand."""
    sizes = [shape.numel() for shape in flat.shapes.values()]
    *blocks, matrix, bias = (
        part.view(shape) for part, shape in zip(theta.split(sizes), flat.shapes.values(), strict=True)
    )
    for kernel, shift, scale, offset in zip(*[iter(blocks)] * 4, strict=True):
        x = F.avg_pool2d(F.relu(F.group_norm(F.conv2d(x, kernel, shift, padding=1), len(scale), scale, offset)), 2)
    return x.flatten(1) @ matrix.T + bias


class Case:
    """A batch, weights away from their initialisation, a direction, and what autograd says of them."""

    def __init__(self, depth: int, channels: int, size: int, num: int = 6) -> None:
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.flat = network(depth, channels, size)
        self.theta = self.flat.flatten() + 0.05 * normal(self.flat.num_params)
        self.direction = normal(self.flat.num_params)
        self.images, self.targets = normal(num, channels, size, size), normal(num, CLASSES).softmax(1)

    def tape(self) -> ConvNetTape:
        return ConvNetTape(Weights.cut(self.flat, self.theta), epsilon(self.flat), self.images, self.targets)

    def autograd(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return g, <a, g>, and the derivatives of <a, g> with respect to theta, images and targets."""
        leaves = [value.clone().requires_grad_() for value in (self.theta, self.images, self.targets)]
        loss = -(leaves[2] * plain(self.flat, leaves[0], leaves[1]).log_softmax(1)).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
        product = gradient @ self.direction
        return gradient.detach(), product.detach(), list(torch.autograd.grad(product, leaves))


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert theirs.norm() > 0
    return float((ours - theirs).norm() / theirs.norm())


def on_simplex(targets: Tensor, derivative: Tensor) -> Tensor:
    """Return the part of a derivative along probabilities that sum to 1 (soft-max backward)."""
    return targets * (derivative - (targets * derivative).sum(1, keepdim=True))


SHAPES = [(1, 1, 4), (2, 3, 8), (3, 3, 16), (2, 1, 9), (3, 2, 13), (2, 3, 4)]
"""Depth, channels, size: grey and coloured images, odd maps whose border the pooling drops, maps of one pixel."""


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_autograd(shape: tuple[int, int, int]) -> None:
    case = Case(*shape)
    gradient, product, (weights, images, targets) = case.autograd()
    tape = case.tape()
    pulled = tape.pull(Weights.cut(case.flat, case.direction))
    assert relative(tape.gradient, gradient) < EXACT
    assert relative(pulled.product, product) < EXACT
    assert relative(pulled.images, images) < EXACT
    assert relative(on_simplex(case.targets, pulled.targets), on_simplex(case.targets, targets)) < EXACT
    assert pulled.weights is not None
    assert relative(pulled.weights, weights) < EXACT


def test_a_tape_can_be_pulled_again_and_without_the_weights() -> None:
    case = Case(2, 3, 8)
    tape, direction = case.tape(), Weights.cut(case.flat, case.direction)
    first, second = tape.pull(direction), tape.pull(direction, through_weights=False)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.product, second.product)
    assert second.weights is None
    again = tape.pull(direction).weights
    assert first.weights is not None
    assert again is not None
    assert torch.equal(first.weights, again)


def test_inputs_are_left_alone() -> None:
    case = Case(3, 3, 8)
    before = [value.clone() for value in (case.theta, case.direction, case.images, case.targets)]
    tape = case.tape()
    gradient = tape.gradient
    tape.pull(Weights.cut(case.flat, case.direction))
    after = (case.theta, case.direction, case.images, case.targets)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert gradient is tape.gradient


def test_the_biases_before_a_normalisation_have_no_derivatives() -> None:
    case = Case(2, 3, 8)
    names = list(case.flat.shapes)
    tape = case.tape()
    pulled = tape.pull(Weights.cut(case.flat, case.direction)).weights
    assert pulled is not None
    for vector in (tape.gradient, pulled):
        parts = dict(zip(names, vector.split([shape.numel() for shape in case.flat.shapes.values()]), strict=True))
        assert not parts["blocks.0.conv.bias"].any()
        assert not parts["blocks.1.conv.bias"].any()
        assert parts["classifier.bias"].any()


def test_num_bytes_counts_two_full_and_three_pooled_maps_per_block() -> None:
    case = Case(2, 3, 16, num=10)
    maps = 8 * 10 * 5 * (16 * 16 + 8 * 8)
    inputs = 8 * 10 * (3 * 16 * 16 + 5 * 8 * 8)
    pooled = 3 * 8 * 10 * 5 * (8 * 8 + 4 * 4)
    assert 2 * maps + inputs + pooled <= case.tape().num_bytes <= 1.1 * (2 * maps + inputs + pooled)


@pytest.mark.parametrize(("name", "supported"), [("convnet2", True), ("resnet18", False), ("vgg11", False)])
def test_which_networks_are_supported(name: str, supported: bool) -> None:
    module = build(NetworkSpec(name), (3, 32, 32), CLASSES, torch.Generator())
    assert is_supported(Flat(module)) is supported


def test_float32_is_as_close_as_autograd_is() -> None:
    """Both are compared with float64: ours may not round worse than twice as much as autograd does."""
    case = Case(3, 3, 16)
    _, _, (exact, _, _) = case.autograd()
    single = Case(3, 3, 16)
    single.flat.module.float()
    for name in ("theta", "direction", "images", "targets"):
        setattr(single, name, getattr(case, name).float())
    ours = single.tape().pull(Weights.cut(single.flat, single.direction)).weights
    theirs = single.autograd()[2][0]
    assert ours is not None
    assert relative(ours.double(), exact) < 2 * relative(theirs.double(), exact)
