"""The ConvNet of the kernel methods: sizes, start, activation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ddnl_ray.errors import RequestError
from ddnl_ray.models import DoublingConvNet, NetworkSpec, build


def made(size: int = 32, name: str = "doubling3", width: int | None = None, channels: int = 3) -> DoublingConvNet:
    module = build(NetworkSpec(name, width), (channels, size, size), 10, torch.Generator().manual_seed(0))
    assert isinstance(module, DoublingConvNet)
    return module


@pytest.mark.parametrize(("size", "name", "features"), [(32, "doubling3", 8192), (64, "doubling4", 16384)])
def test_it_has_the_published_sizes(size: int, name: str, features: int) -> None:
    module = made(size, name)
    assert module.features(torch.zeros(1, 3, size, size)).shape == (1, features)
    if size == 32:
        assert sum(p.numel() for p in module.parameters()) == 1_560_842  # the published 1.56 million


def test_images_of_28_pixels_are_padded_to_32() -> None:
    assert made(28, channels=1).features(torch.zeros(1, 1, 28, 28)).shape == (1, 8192)


def test_it_starts_with_the_variance_of_one_over_fan_in_cut_at_two_deviations() -> None:
    module = made()
    for layer in (*module.convs, module.classifier):
        weight, fan_in = layer.weight.detach(), layer.weight[0].numel()
        assert float(weight.var() * fan_in) == pytest.approx(1, rel=0.08)
        assert float(weight.abs().max()) <= 2 / fan_in**0.5 / 0.8796 + 1e-6
        assert not bool(layer.bias.any())


def test_the_smooth_form_shares_its_parameters_and_leaves_the_network_as_it_was() -> None:
    module, x = made(8, "doubling1", 4, 1), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    smooth = module.smoothed(60.0)
    z = module.convs[0](x)
    torch.testing.assert_close(smooth.maps(x), F.avg_pool2d((60 * z).double().exp().log1p().float() / 60, 2))
    torch.testing.assert_close(module.maps(x), F.avg_pool2d(z.relu(), 2))
    assert all(own is other for own, other in zip(module.parameters(), smooth.parameters(), strict=True))


def test_too_deep_a_network_is_refused() -> None:
    with pytest.raises(RequestError, match="the deepest that fits is doubling3"):
        made(8, "doubling4")
