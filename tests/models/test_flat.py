from __future__ import annotations

import pytest
import torch
from torch import nn

from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat, NetworkSpec, build


@pytest.fixture
def network() -> nn.Module:
    return build(NetworkSpec("convnet2", width=4), (1, 8, 8), 3, torch.Generator().manual_seed(0)).double()


def _images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_order_is_that_of_parameters(network: nn.Module) -> None:
    flat = Flat(network)
    oracle = nn.utils.parameters_to_vector(network.parameters())
    assert torch.equal(flat.flatten(), oracle)
    assert list(flat.shapes) == [name for name, _ in network.named_parameters()]
    assert list(flat.shapes)[:4] == [
        "blocks.0.conv.weight",
        "blocks.0.conv.bias",
        "blocks.0.norm.weight",
        "blocks.0.norm.bias",
    ]
    assert list(flat.shapes)[-2:] == ["classifier.weight", "classifier.bias"]
    assert flat.num_params == oracle.numel() == (9 + 1 + 2) * 4 + (36 + 1 + 2) * 4 + (16 + 1) * 3


def test_round_trip(network: nn.Module) -> None:
    flat = Flat(network)
    theta = torch.arange(flat.num_params, dtype=torch.float64)
    parts = flat.unflatten(theta)
    assert {name: part.shape for name, part in parts.items()} == flat.shapes
    assert torch.equal(torch.cat([part.flatten() for part in parts.values()]), theta)


def test_flatten_is_a_snapshot_that_does_not_alias(network: nn.Module) -> None:
    flat = Flat(network)
    before = flat.flatten()
    kept = before.clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(before, kept)
    assert not before.requires_grad


def test_forward_and_gradient_equal_the_modules(network: nn.Module) -> None:
    flat = Flat(network)
    theta = flat.flatten().requires_grad_()
    x = _images()
    logits = flat(theta, x)
    torch.testing.assert_close(logits, network(x), rtol=1e-13, atol=1e-13)
    (gradient,) = torch.autograd.grad(logits.square().sum(), theta)
    oracle = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in oracle]), rtol=1e-10, atol=1e-12)


def test_call_uses_theta_and_not_the_modules_parameters(network: nn.Module) -> None:
    flat = Flat(network)
    theta, x = flat.flatten(), _images()
    before = flat(theta, x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(flat(theta, x), before)


def test_second_derivative_agrees_with_finite_differences(network: nn.Module) -> None:
    flat = Flat(network)
    x, target = _images(3), torch.tensor([0, 1, 2])
    direction = torch.randn(flat.num_params, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda t: nn.functional.cross_entropy(flat(t, x), target))(theta)

    theta = flat.flatten()
    product = torch.func.grad(lambda t: gradient(t) @ direction)(theta)
    step = 1e-6
    numeric = (gradient(theta + step * direction) - gradient(theta - step * direction)) / (2 * step)
    torch.testing.assert_close(product, numeric, rtol=1e-4, atol=1e-6)


def test_batch_norm_is_refused() -> None:
    network = build(NetworkSpec("resnet18bn", width=2), (3, 8, 8), 2, torch.Generator().manual_seed(0))
    with pytest.raises(RequestError, match=r"distillation needs a network without buffers, but ResNet18"):
        Flat(network)


def test_the_linear_layer_of_the_features_gives_the_logits(network: nn.Module) -> None:
    flat = Flat(network)
    theta = flat.flatten() + 0.1
    x = _images(3)
    embedding, features, logits = flat.outputs(theta, x)
    torch.testing.assert_close(logits, flat(theta, x), rtol=0, atol=0)
    last = flat.unflatten(theta)
    torch.testing.assert_close(features @ last["classifier.weight"].T + last["classifier.bias"], logits)
    torch.testing.assert_close(embedding, features, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_pooled_embeddings_are_the_features(name: str) -> None:
    width = 2 if name == "resnet18" else None
    flat = Flat(build(NetworkSpec(name, width), (3, 64, 64), 3, torch.Generator().manual_seed(0)))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    embedding, features, logits = flat.outputs(flat.flatten(), x)
    torch.testing.assert_close(embedding.view(2, features.shape[1], -1).mean(2), features)
    torch.testing.assert_close(logits, flat(flat.flatten(), x))


def test_fresh_weights_are_those_of_a_newly_built_network(network: nn.Module) -> None:
    flat = Flat(network.float())
    before = flat.flatten()
    built = build(NetworkSpec("convnet2", width=4), (1, 8, 8), 3, torch.Generator().manual_seed(3))
    assert torch.equal(flat.fresh(torch.Generator().manual_seed(3)), Flat(built).flatten())
    assert torch.equal(flat.flatten(), before)
