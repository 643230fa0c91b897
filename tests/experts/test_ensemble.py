"""Experts that train together against the same experts trained alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, TrainingState, Trajectory, train_expert, train_experts
from ddnl_ray.models import NetworkSpec
from ddnl_ray.seeds import SeedTree

NETWORK = NetworkSpec("convnet2", 4)
SEEDS = [SeedTree.root(0).child("expert", index) for index in range(3)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def images_and_labels(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """22 images: two batches of 8 and one of 6."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(22, 1, 8, 8, generator=generator).to(dtype), torch.randint(0, 3, (22,), generator=generator)


def recipe(**changes: Any) -> ExpertRecipe:
    return replace(ExpertRecipe(network=NETWORK, epochs=3, batch_size=8, lr=0.1, weight_decay=0.01), **changes)


def together(
    settings: ExpertRecipe,
    experts: list[int],
    starts: list[TrainingState] | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Trajectory]:
    return train_experts(*images_and_labels(dtype), 3, settings, [SEEDS[index] for index in experts], starts)


def alone(settings: ExpertRecipe, index: int, dtype: torch.dtype = torch.float32) -> Trajectory:
    return train_expert(*images_and_labels(dtype), 3, settings, SEEDS[index])


def require_close(found: Trajectory, expected: Trajectory, tolerance: float) -> None:
    assert found.first_epoch == expected.first_epoch
    torch.testing.assert_close(found.snapshots, expected.snapshots, rtol=tolerance, atol=tolerance)
    assert found.losses == pytest.approx(expected.losses, rel=tolerance)
    assert (found.velocity is None) == (expected.velocity is None)
    if found.velocity is not None:
        torch.testing.assert_close(found.velocity, expected.velocity, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_an_expert_is_the_one_that_trains_alone(optimizer: str, momentum: float, dtype: torch.dtype) -> None:
    settings = recipe(optimizer=optimizer, momentum=momentum, rho=0.1)
    for index, found in enumerate(together(settings, [0, 1, 2], dtype=dtype)):
        require_close(found, alone(settings, index, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("network", [NetworkSpec("resnet18", 2), NetworkSpec("convnet1", 4)])
def test_other_networks_train_together_too(network: NetworkSpec) -> None:
    """A deep network amplifies rounding."""
    x, y = images_and_labels(torch.float64)
    x = x.repeat(1, 1, 2, 2)
    settings = recipe(network=network, epochs=1, optimizer="gsam", augment=None)
    for found, seed in zip(train_experts(x, y, 3, settings, SEEDS), SEEDS, strict=True):
        require_close(found, train_expert(x, y, 3, settings, seed), 1e-8)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_it_does_not_matter_who_the_others_are(optimizer: str) -> None:
    settings = recipe(optimizer=optimizer, momentum=0.9)
    whole = together(settings, [0, 1, 2], dtype=torch.float64)
    for group in ([2, 0], [1, 2]):
        for index, found in zip(group, together(settings, group, dtype=torch.float64), strict=True):
            require_close(found, whole[index], 1e-12)


def test_the_same_group_gives_the_same_bits(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    runs = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            runs.append(together(recipe(momentum=0.9), [0, 1]))
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first.snapshots, second.snapshots)
        assert first.losses == second.losses
        assert first.velocity is not None
        assert second.velocity is not None
        assert torch.equal(first.velocity, second.velocity)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_a_group_goes_on_bit_for_bit(optimizer: str, momentum: float) -> None:
    settings = recipe(optimizer=optimizer, momentum=momentum)
    whole = together(replace(settings, epochs=4), [0, 1])
    first = together(replace(settings, epochs=1), [0, 1])
    rest = together(replace(settings, epochs=4), [0, 1], [each.end for each in first])
    for one, other, expected in zip(first, rest, whole, strict=True):
        assert other.first_epoch == 2
        assert torch.equal(torch.cat([one.snapshots, other.snapshots]), expected.snapshots)
        assert one.losses + other.losses == expected.losses
        assert torch.equal(other.end.weights, expected.end.weights)


def test_experts_of_a_group_share_no_memory() -> None:
    first, second = together(recipe(momentum=0.9), [0, 1])
    size = 4 * first.snapshots.shape[1]
    for own in (first, second):
        assert own.velocity is not None
        assert own.snapshots.untyped_storage().nbytes() == 4 * size
        assert own.velocity.untyped_storage().nbytes() == size
    assert not torch.equal(first.snapshots[0], second.snapshots[0])


def test_starts_must_fit() -> None:
    states = [alone(recipe(epochs=epochs), 0).end for epochs in (1, 2)]
    with pytest.raises(ValueError, match=r"2 experts need as many starts, all of one epoch, but got epochs 1, 2$"):
        together(recipe(), [0, 1], states)
    with pytest.raises(ValueError, match=r"2 experts need as many starts, all of one epoch, but got epochs 1$"):
        together(recipe(), [0, 1], states[:1])


def test_one_that_diverges_ends_the_group() -> None:
    state = alone(recipe(epochs=1), 0).end
    wild = replace(state, weights=state.weights * float("inf"))
    with pytest.raises(RequestError, match=r"an expert diverged in epoch 2 \(loss nan\); lower experts\.lr"):
        together(recipe(), [0, 1], [state, wild])


# --- precision -----------------------------------------------------------------------------------------------------


@pytest.fixture
def types() -> Any:
    """The types of what convolutions and linear layers return while a test runs."""
    found: set[tuple[str, torch.dtype]] = set()

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            found.add((type(module).__name__, output.dtype))

    hook = nn.modules.module.register_module_forward_hook(note)
    yield found
    hook.remove()


@pytest.mark.parametrize("experts", [[0], [0, 1]])
@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_whole_network_computes_in_the_precision(
    experts: list[int], precision: str, dtype: torch.dtype, types: set[tuple[str, torch.dtype]]
) -> None:
    """Under ``torch.autocast``, the convolutions of a mapped network stay in float32."""
    (found, *_) = together(recipe(precision=precision, momentum=0.9), experts)
    assert types == {("Conv2d", dtype), ("Linear", dtype)}
    assert found.snapshots.dtype == torch.float32
    assert found.velocity is not None
    assert found.velocity.dtype == torch.float32


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_bfloat16_stays_near_float32(optimizer: str) -> None:
    settings = recipe(optimizer=optimizer, lr=0.03)
    half = together(replace(settings, precision="bfloat16"), [0, 1])
    for index, found in enumerate(half):
        exact = alone(settings, index).snapshots
        assert torch.equal(found.snapshots[0], exact[0])
        gap = (found.snapshots[-1] - exact[-1]).norm() / (exact[-1] - exact[0]).norm()
        assert 1e-4 < gap < 0.1
        single = alone(replace(settings, precision="bfloat16"), index).snapshots
        assert (found.snapshots[-1] - single[-1]).norm() / (exact[-1] - exact[0]).norm() < 0.1


def test_small_updates_are_not_lost_in_bfloat16() -> None:
    """Weights stay in float32: steps of a millionth of a weight add up."""
    settings = recipe(lr=1e-6, weight_decay=0.0, precision="bfloat16")
    snapshots = alone(settings, 0).snapshots
    exact = alone(replace(settings, precision="float32"), 0).snapshots
    moved, expected = snapshots[-1] - snapshots[0], exact[-1] - exact[0]
    assert torch.nn.functional.cosine_similarity(moved, expected, dim=0) > 0.9


def test_tf32_is_refused_where_there_is_none() -> None:
    message = r"experts\.precision: tf32 needs an NVIDIA GPU, but experts would train on the cpu; use float32 or"
    with pytest.raises(RequestError, match=message):
        alone(recipe(precision="tf32"), 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("tf32", 0.05), ("bfloat16", 0.2)])
def test_a_gpu_trains_the_experts_of_the_cpu(precision: str, bound: float) -> None:
    settings = recipe(lr=0.03)
    x, y = images_and_labels()
    for starts in (SEEDS, SEEDS[:1]):
        trained = train_experts(x.cuda(), y.cuda(), 3, replace(settings, precision=precision), starts)
        for index, found in enumerate(trained):
            exact = alone(settings, index).snapshots
            assert found.snapshots.device.type == "cpu"
            assert (found.snapshots[-1] - exact[-1]).norm() / (exact[-1] - exact[0]).norm() < bound
