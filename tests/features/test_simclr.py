"""The loss against its equation, the schedule by hand, one step written out, and what training makes of digits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Normalise
from ddnl_ray.errors import DataError, RequestError
from ddnl_ray.features import Extractor, SimclrConfig, apply_views, draw_views, nt_xent, simclr, train_simclr
from ddnl_ray.features.extractor import trunk
from ddnl_ray.models import NetworkSpec
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def config(name: str = "convnet2", width: int = 2, **changes: Any) -> SimclrConfig:
    values = {"epochs": 2, "batch_size": 100, "lr": 0.05, "flip": False} | changes
    return SimclrConfig(network=NetworkSpec(name, width), **values)


def projections(num: int = 12, seed: int = 0) -> Tensor:
    raw = torch.randn(num, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(raw)


def equation(z: Tensor, temperature: float, base_temperature: float) -> float:
    """The loss as it is printed, anchor by anchor."""
    num, total = len(z), 0.0
    for i in range(num):
        j = (i + num // 2) % num
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(num) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[j]) / temperature) / others)
    return total / num * temperature / base_temperature


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("base_temperature", [0.07, 0.5])
@pytest.mark.parametrize("num", [2, 4, 12])
def test_the_loss_equals_its_equation(num: int, base_temperature: float, temperature: float) -> None:
    z = projections(num)
    found = float(nt_xent(z, temperature, base_temperature))
    assert found == pytest.approx(equation(z, temperature, base_temperature), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("pairs", [1, 2, 50])
def test_equal_projections_cannot_be_told_apart(pairs: int) -> None:
    z = torch.ones(2 * pairs, 4) / 2
    assert float(nt_xent(z, 0.5, 0.07)) == pytest.approx(0.5 / 0.07 * math.log(2 * pairs - 1), rel=1e-5)


def test_perfect_partners_at_right_angles_to_the_others() -> None:
    b, temperature = 6, 0.5
    z = torch.eye(b, dtype=torch.float64).repeat(2, 1)
    expected = math.log(1 + (2 * b - 2) * math.exp(-1 / temperature))
    assert float(nt_xent(z, temperature, temperature)) == pytest.approx(expected, rel=1e-12)


def test_partners_matter() -> None:
    z = torch.eye(6, dtype=torch.float64).repeat(2, 1)
    wrong = torch.cat([z[:6], z[6:].roll(1, 0)])
    assert float(nt_xent(wrong, 0.5, 0.5)) == pytest.approx(float(nt_xent(z, 0.5, 0.5)) + 2, rel=1e-12)


def test_the_gradient_of_the_loss_equals_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.5, 0.07), (projections(6).requires_grad_(),))


@pytest.mark.parametrize("num", [0, 5])
def test_views_come_in_pairs(num: int) -> None:
    with pytest.raises(ValueError, match=f"come in pairs, but there are {num}"):
        nt_xent(projections(num), 0.5, 0.07)


def test_the_rate_rises_step_by_step_and_falls_along_a_cosine_to_a_thousandth() -> None:
    long = SimclrConfig()
    top = 0.00025 + (0.25 - 0.00025) * (1 + math.cos(math.pi / 50)) / 2
    assert long.learning_rate(1, 0.0) == pytest.approx(0.01)
    assert long.learning_rate(1, 0.5) == pytest.approx(0.01 + (top - 0.01) / 20)
    assert long.learning_rate(6, 0.0) == pytest.approx((0.01 + top) / 2)
    assert long.learning_rate(10, 1.0) == pytest.approx(top)
    assert long.learning_rate(11, 0.0) == long.learning_rate(11, 0.9) < top
    assert long.learning_rate(250, 0.0) == pytest.approx((0.25 + 0.00025) / 2)
    assert long.learning_rate(500, 0.0) == pytest.approx(0.25 * 1e-3)


@pytest.mark.parametrize("changes", [{"batch_size": 256}, {"warmup_epochs": 0}])
def test_small_batches_are_not_warmed_up_to(changes: dict[str, int]) -> None:
    cold = SimclrConfig(epochs=4, **({"warmup_epochs": 10} | changes))
    assert not cold.warms_up
    assert cold.learning_rate(1, 0.0) == pytest.approx(0.00025 + 0.24975 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(("name", "buffers"), [("convnet1", False), ("resnet18bn", True)])
def test_one_step_by_hand(digits: tuple[Tensor, Tensor], name: str, buffers: bool) -> None:
    """One batch of one epoch: the rate is the last one's, a thousandth of the highest, and there is no momentum yet."""
    pixels, own = digits[0][:50], config(name, epochs=1, lr=100.0, weight_decay=0.3)
    network, width = trunk(own.network, (1, 8, 8), SEED.child("init").torch())
    network.train()
    generator = SEED.child("projection").torch()
    bound = 1 / math.sqrt(width)
    head = [
        torch.empty(shape).uniform_(-bound, bound, generator=generator)
        for shape in ((width, width), (width,), (128, width), (128,))
    ]
    generator = SEED.child("epoch", 1).torch()
    images = pixels[torch.randperm(50, generator=generator)]
    views = torch.cat([apply_views(images, draw_views(generator, 50, 8, "cpu", flip=False)) for _ in range(2)])
    hidden = network((views - pixels.mean()) / pixels.std(correction=0)) @ head[0].T + head[1]
    hidden = hidden if buffers else (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    z = F.normalize(hidden.relu() @ head[2].T + head[3])
    loss = nt_xent(z, 0.5, 0.07)
    loss.backward()
    found = train_simclr(pixels, own, SEED)
    assert found.history == (pytest.approx(float(loss.detach()), rel=1e-5),)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None
        expected = parameter.detach() - 0.1 * (parameter.grad + 0.3 * parameter.detach())
        assert (expected - parameter).abs().max() > 1e-4
        torch.testing.assert_close(found.state[key], expected, rtol=1e-4, atol=1e-5)


def test_every_step_has_its_rate(digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    own, steps = config("convnet1", batch_size=300, epochs=3, warmup_epochs=2, weight_decay=0.1, momentum=0.7), []
    step = torch.optim.SGD.step

    def recording(self: torch.optim.SGD) -> None:
        steps.append([self.param_groups[0][name] for name in ("lr", "momentum", "weight_decay")])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", recording)
    train_simclr(digits[0].repeat(2, 1, 1, 1), own, SEED)
    assert steps == [[own.learning_rate(epoch, done), 0.7, 0.1] for epoch in (1, 2, 3) for done in (0.0, 0.5)]
    assert len({rate for rate, _, _ in steps}) == 5


def test_partner_rows_are_views_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    shades = torch.linspace(0, 1, 10).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    seen = []
    forward = simclr._Projected.forward

    def recording(self: simclr._Projected, x: Tensor) -> Tensor:
        seen.append(x)
        return forward(self, x)

    monkeypatch.setattr(simclr._Projected, "forward", recording)
    train_simclr(shades, config(batch_size=4, epochs=3), SEED)
    assert [len(x) for x in seen] == [8] * 6  # ten images in batches of 4 leave 2 over
    images = [Normalise.fit(shades).invert(x).mean(dim=(1, 2, 3)).mul(9).round().int().tolist() for x in seen]
    assert all(shown[:4] == shown[4:] for shown in images)
    for first, second in zip(images[::2], images[1::2], strict=True):
        assert len(set(first + second)) == 8
    assert images[0] != images[2] != images[4]


def test_an_only_batch_may_be_incomplete(digits: tuple[Tensor, Tensor]) -> None:
    pixels = digits[0][:7]
    small, large = (train_simclr(pixels, config(batch_size=size), SEED) for size in (7, 100))
    assert small.history == large.history


def test_features_of_digits_get_better(
    digits: tuple[Tensor, Tensor], neighbours_agree: Callable[[Tensor, Tensor], float]
) -> None:
    pixels, labels = digits
    gains = []
    for seed in (SeedTree.root(value) for value in range(2)):
        own = config("convnet3", 16, epochs=20, lr=0.02)
        trained = train_simclr(pixels, own, seed)
        network, _ = trunk(own.network, (1, 8, 8), seed.child("init").torch())
        fresh = Extractor(own.network, (1, 8, 8), Normalise.fit(pixels), network.state_dict(), ())
        gains.append(neighbours_agree(trained.embed(pixels), labels) - neighbours_agree(fresh.embed(pixels), labels))
        assert trained.history[-1] < trained.history[0] - 1
        assert len(trained.history) == 20
    # Ten seeds gained 0.08 to 0.28 on 0.55 to 0.76, and their losses fell by 1.7 to 3.4; these two: 0.14 and 0.25.
    assert min(gains) > 0.05


def test_equal_seeds_give_equal_bits_and_global_generators_are_untouched(
    digits: tuple[Tensor, Tensor], global_random_untouched: Callable[[int], AbstractContextManager[None]]
) -> None:
    pixels = digits[0][:60]
    runs = []
    for global_seed, seed in ((0, 1), (1, 1), (2, 2)):
        with global_random_untouched(global_seed):
            runs.append(train_simclr(pixels, config(batch_size=20), SeedTree.root(seed)))
    first, again, other = runs
    assert first.history == again.history
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in first.state.items())
    assert not torch.equal(first.state["blocks.0.conv.weight"], other.state["blocks.0.conv.weight"])


def test_parts_do_not_change_what_is_learnt(digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = digits[0][:60]
    whole = train_simclr(pixels, config(), SEED)
    monkeypatch.setattr(simclr, "part_size", lambda *_: 17)
    parts = train_simclr(pixels, config(), SEED)
    assert parts.history == pytest.approx(whole.history, rel=1e-5)


def test_an_extractor_keeps_how_pixels_were_standardised_and_its_running_statistics(
    digits: tuple[Tensor, Tensor],
) -> None:
    pixels = digits[0][:60].repeat(1, 3, 1, 1) * torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)
    found = train_simclr(pixels, config("resnet18bn", flip=True), SEED)
    assert found.input_shape == (3, 8, 8)
    torch.testing.assert_close(found.normalise.mean, pixels.mean(dim=(0, 2, 3)))
    assert int(found.state["norm.num_batches_tracked"]) == 2
    assert float(found.state["norm.running_mean"].abs().max()) > 0
    assert not any(tensor.requires_grad for tensor in found.state.values())
    assert found.embed(pixels).shape == (60, 16)


def test_a_divergence_is_an_error(digits: tuple[Tensor, Tensor]) -> None:
    wild = config("convnet1", lr=1e20, weight_decay=1.0, epochs=10, batch_size=20)
    with pytest.raises(RequestError, match=r"training diverged in epoch \d+ \(loss nan\); lower lr \(now 1e\+20\)"):
        train_simclr(digits[0][:60], wild, SEED)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x[:1], RequestError, "at least 2 are needed, but there is 1"),
        (lambda x: x * 16, RequestError, r"must lie in \[0, 1\], but reach from 0 to 16"),
        (lambda x: x.double(), RequestError, "must be float32"),
        (lambda x: x[..., :6], RequestError, "needs square images, but got 8 x 6"),
        (lambda x: x[..., :2, :2], RequestError, "too deep for images of 2 x 2 pixels"),
        (lambda x: x * 0, DataError, "the same value in every pixel"),
    ],
)
def test_images_that_do_not_serve_are_refused(
    digits: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_simclr(change(digits[0]), config(), SEED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, but got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, but got 1"),
        ({"warmup_epochs": -1}, "warmup_epochs must be at least 0, but got -1"),
        ({"projection_dim": 0}, "projection_dim must be at least 1, but got 0"),
        ({"lr": 0.0}, "lr must be above 0, but got 0.0"),
        ({"lr": math.nan}, "lr must be above 0, but got nan"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"base_temperature": -1.0}, "base_temperature must be above 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), but got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or more"),
        ({"epochs": 10}, "warmup_epochs must be below epochs, but got 10 of 10; lower warmup_epochs"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SimclrConfig(**changes)


def test_the_identity_is_json_and_tells_every_setting_apart() -> None:
    base = SimclrConfig()
    assert json.loads(json.dumps(base.identity)) == base.identity
    assert base.identity["network"] == {"name": "resnet18bn", "width": None}
    changes = {
        "network": NetworkSpec("convnet3", 32),
        "epochs": 20,
        "batch_size": 300,
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "temperature": 0.1,
        "base_temperature": 0.5,
        "warmup_epochs": 0,
        "projection_dim": 64,
        "flip": False,
    }
    assert changes.keys() == base.identity.keys()
    assert all(SimclrConfig(**{name: value}).identity != base.identity for name, value in changes.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_starts_where_a_cpu_does(digits: tuple[Tensor, Tensor]) -> None:
    pixels, own = digits[0], config(epochs=1, batch_size=300, lr=1.0, base_temperature=0.5, warmup_epochs=0)
    found = train_simclr(pixels.cuda(), own, SEED)
    assert found.device.type == "cuda"
    assert found.history == pytest.approx(train_simclr(pixels, own, SEED).history, rel=1e-3)
