"""What an extractor gives, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import Normalise
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.features import Extractor, extractor
from ddnl_ray.features.extractor import trunk
from ddnl_ray.files import read_tensors, write_tensors
from ddnl_ray.models import NetworkSpec, build

CONVNET = NetworkSpec("convnet2", 3)
RESNET = NetworkSpec("resnet18bn", 2)
SPECS = (CONVNET, RESNET)


def pixels(num: int = 20, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(num, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def untrained(spec: NetworkSpec, seed: int = 0) -> Extractor:
    """An extractor whose weights and running statistics are none of the initial ones."""
    network, _ = trunk(spec, (3, 8, 8), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
        for _ in range(3):
            network(pixels(seed=5))
    return Extractor(spec, (3, 8, 8), Normalise.fit(pixels(seed=6)), network.state_dict(), (3.0, 0.1 + 0.2))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_features_are_those_before_the_classifier_in_evaluation_mode_at_norm_1(spec: NetworkSpec) -> None:
    own, x = untrained(spec), pixels()
    found = own.embed(x)
    network = build(spec, (3, 8, 8), 10, torch.Generator())
    network.load_state_dict(own.state, strict=False)
    with torch.no_grad():
        features = network.eval().features(own.normalise.apply(x))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.ones(20), rtol=0, atol=1e-6)
    torch.testing.assert_close(found, features / features.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_an_image_does_not_depend_on_the_others_nor_on_the_batches(
    spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, x = untrained(spec), pixels()
    whole = own.embed(x)
    torch.testing.assert_close(own.embed(x[3:4]), whole[3:4], rtol=0, atol=1e-6)
    monkeypatch.setattr(extractor, "EMBED_BATCH", 7)
    torch.testing.assert_close(own.embed(x), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_embedding_changes_nothing(spec: NetworkSpec) -> None:
    own, x = untrained(spec), pixels()
    state, before = {name: tensor.clone() for name, tensor in own.state.items()}, x.clone()
    random = torch.get_rng_state()
    first = own.embed(x)
    assert torch.equal(first, own.embed(x))
    assert torch.equal(x, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state.items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["convnet1", "convnet3", "resnet18", "resnet18bn", "vgg11"])
def test_every_network_has_a_trunk(name: str) -> None:
    spec = NetworkSpec(name, None if name == "vgg11" else 2)
    network, width = trunk(spec, (1, 32, 32), torch.Generator())
    assert network(torch.rand(2, 1, 32, 32, generator=torch.Generator())).shape == (2, width)
    assert not any(key.startswith("classifier") for key in network.state_dict())


def test_a_resnet_has_512_features() -> None:
    assert trunk(NetworkSpec("resnet18bn"), (3, 32, 32), torch.Generator())[1] == 512


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_fresh_network_takes_the_trunk_and_keeps_its_classifier(spec: NetworkSpec) -> None:
    own, network = untrained(spec), build(spec, (3, 8, 8), 10, torch.Generator().manual_seed(9))
    classifier = network.classifier.weight.detach().clone()
    keys = network.load_state_dict(own.state, strict=False)
    assert keys.missing_keys == ["classifier.weight", "classifier.bias"]
    assert keys.unexpected_keys == []
    assert torch.equal(network.classifier.weight, classifier)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in own.state.items())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_file_gives_every_bit_back(spec: NetworkSpec, tmp_path: Path) -> None:
    own = untrained(spec)
    tensors, meta = own.to_tensors()
    write_tensors(tmp_path / "extractor.safetensors", tensors, meta)
    back = Extractor.from_tensors(*read_tensors(tmp_path / "extractor.safetensors"))
    assert (back.spec, back.input_shape, back.history) == (own.spec, own.input_shape, own.history)
    assert list(back.state) == list(own.state)
    for name, tensor in own.state.items():
        assert torch.equal(back.state[name], tensor), name
        assert back.state[name].dtype == tensor.dtype
    assert torch.equal(back.embed(pixels()), own.embed(pixels()))
    assert json.loads(json.dumps(meta)) == meta


def test_a_resnet_keeps_its_running_statistics() -> None:
    tensors, _ = untrained(RESNET).to_tensors()
    assert "state.norm.running_mean" in tensors
    assert int(tensors["state.norm.num_batches_tracked"]) == 3


def test_tensors_that_do_not_fit_are_refused() -> None:
    tensors, meta = untrained(CONVNET).to_tensors()
    fewer = {name: tensor for name, tensor in tensors.items() if name != "state.blocks.1.conv.bias"}
    with pytest.raises(CorruptFileError, match=r"extractor with convnet2: 1 are missing.*state\.blocks\.1\.conv\.bias"):
        Extractor.from_tensors(fewer, meta)
    with pytest.raises(CorruptFileError, match=r"1 are missing, unknown or of another shape \(more"):
        Extractor.from_tensors(tensors | {"more": torch.zeros(1)}, meta)
    with pytest.raises(CorruptFileError, match=r"another shape \(std"):
        Extractor.from_tensors(tensors | {"std": torch.ones(1)}, meta)
    with pytest.raises(CorruptFileError, match="no tensors of an extractor, but of 'buffer'"):
        Extractor.from_tensors(tensors, {"kind": "buffer"})


def test_another_device_has_every_tensor() -> None:
    own = untrained(RESNET)
    moved = own.to("meta")
    assert own.device.type == "cpu"
    assert moved.device.type == "meta"
    assert {tensor.device.type for tensor in moved.to_tensors()[0].values()} == {"meta"}
    assert (moved.spec, moved.input_shape, moved.history) == (own.spec, own.input_shape, own.history)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pixels(channels=1), r"for images of shape \(3, 8, 8\), but got \(1, 8, 8\)"),
        (pixels()[0], r"must be float32 \[N, C, H, H\], one or more, but got torch.float32 \[3, 8, 8\]"),
        (pixels().double(), "but got torch.float64"),
        (pixels()[:0], r"but got torch.float32 \[0, 3, 8, 8\]"),
        (pixels() * 2 - 1, r"must lie in \[0, 1\], but reach from -0.99\d* to 0.99\d*; undo the normalisation"),
        (pixels() * torch.nan, "but reach from nan to nan"),
    ],
)
def test_what_is_not_pixels_is_refused(wrong: Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        untrained(CONVNET).embed(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu() -> None:
    own = untrained(CONVNET)
    found = own.to("cuda").embed(pixels())
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), own.embed(pixels()), rtol=0, atol=5e-3)  # convolutions may round to 10 bits
