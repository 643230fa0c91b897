from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from ddnl_ray.errors import RequestError
from ddnl_ray.models import NETWORKS, ConvNet, NetworkSpec, build
from ddnl_ray.models.spec import _construct


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _conv(inputs: int, outputs: int, kernel: int = 3, *, bias: bool) -> int:
    """Parameters of a convolution and the affine normalisation behind it."""
    return inputs * outputs * kernel**2 + (outputs if bias else 0) + 2 * outputs


@pytest.mark.parametrize(
    ("name", "shape", "classes", "expected"),
    [
        ("convnet3", (3, 32, 32), 10, 320_010),
        ("convnet3", (3, 32, 32), 100, 504_420),
        ("convnet4", (3, 64, 64), 200, 857_160),
        ("resnet18", (3, 32, 32), 10, 11_173_962),
        ("resnet18bn", (3, 32, 32), 10, 11_173_962),
        ("vgg11", (3, 32, 32), 10, 9_231_114),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, int, int], classes: int, expected: int) -> None:
    assert _count(build(NetworkSpec(name), shape, classes, _generator())) == expected


def test_parameter_counts_follow_from_the_layers() -> None:
    resnet = _conv(3, 64, bias=False) + 4 * _conv(64, 64, bias=False)
    for inputs, outputs in [(64, 128), (128, 256), (256, 512)]:
        resnet += _conv(inputs, outputs, bias=False) + 3 * _conv(outputs, outputs, bias=False)
        resnet += _conv(inputs, outputs, 1, bias=False)
    assert resnet + 513 * 10 == 11_173_962
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    vgg = sum(_conv(a, b, bias=True) for a, b in itertools.pairwise(widths))
    assert vgg + 513 * 10 == 9_231_114


@pytest.mark.parametrize("name", ["convnet3", "convnet4", "resnet18", "resnet18bn", "vgg11"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_output_shapes(name: str, size: int, channels: int) -> None:
    width = None if name == "vgg11" else 4
    network = build(NetworkSpec(name, width), (channels, size, size), 7, _generator())
    x = torch.randn(2, channels, size, size, generator=_generator(1))
    assert network(x).shape == (2, 7)
    features = {"convnet3": 4 * (size // 8) ** 2, "convnet4": 4 * (size // 16) ** 2, "vgg11": 512}
    assert network.features(x).shape == (2, features.get(name, 32))
    torch.testing.assert_close(network(x), network.classifier(network.features(x)))


def test_convnet_equals_its_layers_written_out() -> None:
    network = build(NetworkSpec("convnet2", width=3), (2, 9, 9), 4, _generator()).double()
    x = torch.randn(3, 2, 9, 9, dtype=torch.float64, generator=_generator(1))
    weights = dict(network.named_parameters())
    hidden = x
    for block in ("blocks.0", "blocks.1"):
        hidden = nn.functional.conv2d(hidden, weights[f"{block}.conv.weight"], weights[f"{block}.conv.bias"], padding=1)
        hidden = nn.functional.group_norm(
            hidden, 3, weights[f"{block}.norm.weight"], weights[f"{block}.norm.bias"], 1e-5
        )
        hidden = nn.AvgPool2d(2, 2)(hidden.relu())
    logits = hidden.reshape(3, -1) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(network(x), logits, rtol=1e-12, atol=1e-12)


def test_resnet_pools_globally_what_the_fixed_window_pools_at_32() -> None:
    network = build(NetworkSpec("resnet18", width=2), (3, 32, 32), 3, _generator())
    x = torch.randn(2, 3, 32, 32, generator=_generator(1))
    maps = network.stages(network.norm(network.conv(x)).relu())
    assert maps.shape == (2, 16, 4, 4)
    torch.testing.assert_close(network.features(x), nn.functional.avg_pool2d(maps, 4).flatten(1))


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_convnet_norms(norm: str) -> None:
    network = ConvNet(depth=2, width=4, norm=norm, in_channels=1, size=8, num_classes=3)
    per_block = 0 if norm == "none" else 2 * 4
    assert _count(network) == (9 + 1) * 4 + (36 + 1) * 4 + 17 * 3 + 2 * per_block
    assert bool(list(network.buffers())) == (norm == "batch")


@pytest.mark.parametrize("name", ["convnet3", "resnet18", "resnet18bn", "vgg11"])
def test_initialisation_is_bit_for_bit_that_of_pytorch(name: str) -> None:
    spec = NetworkSpec(name, None if name == "vgg11" else 8)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        oracle = _construct(spec, (3, 32, 32), 10).state_dict()
    ours = build(spec, (3, 32, 32), 10, _generator(5)).state_dict()
    assert list(ours) == list(oracle)
    for key, tensor in ours.items():
        assert torch.equal(tensor, oracle[key]), key


def test_initialisation_bounds_and_spread() -> None:
    network = build(NetworkSpec("convnet3"), (3, 32, 32), 10, _generator())
    fans = {"blocks.0.conv": 27, "blocks.1.conv": 1152, "blocks.2.conv": 1152, "classifier": 2048}
    parameters = dict(network.named_parameters())
    for layer, fan_in in fans.items():
        bound = 1 / math.sqrt(fan_in)
        for kind in ("weight", "bias"):
            values = parameters[f"{layer}.{kind}"].detach()
            assert values.abs().max() <= bound
        values = parameters[f"{layer}.weight"].detach()
        assert values.abs().max() > 0.99 * bound
        deviation = bound / math.sqrt(3)
        assert abs(values.mean()) < 5 * deviation / math.sqrt(values.numel())
        assert values.std() == pytest.approx(deviation, rel=0.05)
    assert torch.equal(parameters["blocks.1.norm.weight"], torch.ones(128))
    assert torch.equal(parameters["blocks.1.norm.bias"], torch.zeros(128))


def test_same_seed_same_bits_other_seed_other_bits_and_the_global_generator_is_untouched() -> None:
    spec = NetworkSpec("resnet18bn", 4)
    before = torch.random.get_rng_state()
    first, again, other = (build(spec, (3, 32, 32), 10, _generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    vectors = [nn.utils.parameters_to_vector(network.parameters()) for network in (first, again, other)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


def test_the_generator_advances_from_network_to_network() -> None:
    generator = _generator()
    spec = NetworkSpec("convnet1", 4)
    first, second = (build(spec, (1, 8, 8), 2, generator) for _ in range(2))
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_every_name_builds() -> None:
    for name in NETWORKS:
        assert build(NetworkSpec(name), (3, 64, 64), 2, _generator()).training


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("convnt3", None, "unknown network 'convnt3': did you mean 'convnet3'"),
        ("convnet7", None, "unknown network 'convnet7'"),
        ("convnet3", 0, "the width of convnet3 must be at least 1, but got 0"),
        ("vgg11", 64, "vgg11 has fixed widths, but got width 64"),
    ],
)
def test_wrong_specs_are_refused(name: str, width: int | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        NetworkSpec(name, width)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("convnet4", (1, 8, 8), r"convnet4 is too deep for images of 8 x 8 pixels; .* fits is convnet3"),
        ("convnet6", (3, 63, 63), "the deepest that fits is convnet5"),
        ("convnet1", (3, 1, 1), "no ConvNet fits"),
        ("convnet3", (3, 32, 48), "needs square images, but got 32 x 48"),
        ("vgg11", (3, 31, 31), "vgg11 needs images of at least 32 x 32 pixels, but got 31 x 31"),
        ("resnet18", (1, 8, 8), "resnet18 needs images of at least 9 x 9 pixels, but got 8 x 8"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build(NetworkSpec(name), shape, 10, _generator())


@pytest.mark.parametrize(("name", "size"), [("convnet3", 8), ("resnet18", 9), ("vgg11", 32)])
def test_the_smallest_image_that_fits_still_tells_images_apart(name: str, size: int) -> None:
    network = build(NetworkSpec(name), (1, size, size), 5, _generator())
    logits = network(torch.randn(2, 1, size, size, generator=_generator(1)))
    assert not torch.allclose(logits[0], logits[1])


def test_one_class_is_refused() -> None:
    with pytest.raises(RequestError, match="at least 2 classes, but got 1"):
        build(NetworkSpec("convnet1"), (1, 8, 8), 1, _generator())
