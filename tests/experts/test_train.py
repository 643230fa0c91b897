"""Expert training against a loop of torch modules and optimizers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, TrainingState, train_expert, train_experts
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.parts import PART_BYTES
from ddnl_ray.seeds import SeedTree

NETWORK = NetworkSpec("convnet2", 4)
SEED = SeedTree.root(0).child("expert", 0)


def images_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(22, 1, 8, 8, generator=generator), torch.randint(0, 3, (22,), generator=generator)


def recipe(**changes: object) -> ExpertRecipe:
    plain = ExpertRecipe(network=NETWORK, epochs=3, batch_size=8, lr=0.1, augment=None)
    return replace(plain, **changes)  # type: ignore[arg-type]


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()]).clone()


def reference(recipe: ExpertRecipe, seed: SeedTree) -> tuple[list[Tensor], list[float]]:
    """Train a module with ``torch.optim.SGD``, in the order and with the augmentation of the seed."""
    x, y = images_and_labels()
    model = build(recipe.network, (1, 8, 8), 3, seed.child("init").torch())
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    snapshots, losses = [flat(model)], []
    for epoch in range(recipe.epochs):
        generator, total = seed.child("epoch", epoch).torch(), 0.0
        order = torch.randperm(len(x), generator=generator)
        for first in range(0, len(x), recipe.batch_size):
            rows = order[first : first + recipe.batch_size]
            batch = x[rows]
            if recipe.augment is not None:
                batch = Dsa(recipe.augment)(batch, generator)
            loss = nn.functional.cross_entropy(model(batch), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        snapshots.append(flat(model))
        losses.append(total / len(x))
    return snapshots, losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"augment": "flip_crop_color"},
        {"augment": "scale_rotate_cutout", "batch_size": 100},
    ],
)
def test_equals_a_loop_of_torch(changes: dict[str, object]) -> None:
    trajectory = train_expert(*images_and_labels(), 3, recipe(**changes), SEED)
    snapshots, losses = reference(recipe(**changes), SEED)
    assert trajectory.snapshots.shape == (4, len(snapshots[0]))
    torch.testing.assert_close(trajectory.snapshots, torch.stack(snapshots), rtol=1e-5, atol=1e-5)
    assert trajectory.losses == pytest.approx(losses, rel=1e-5)


def test_snapshot_zero_is_the_initialisation_and_none_aliases_another() -> None:
    snapshots = train_expert(*images_and_labels(), 3, recipe(), SEED).snapshots
    torch.testing.assert_close(snapshots[0], reference(recipe(epochs=1), SEED)[0][0], rtol=0, atol=0)
    for epoch in range(3):
        assert not torch.equal(snapshots[epoch], snapshots[epoch + 1])
    assert snapshots.untyped_storage().nbytes() == 4 * snapshots.shape[1] * 4
    assert snapshots.dtype == torch.float32
    assert snapshots.device.type == "cpu"


def test_a_longer_training_starts_like_a_shorter_one() -> None:
    long, short = (train_expert(*images_and_labels(), 3, recipe(epochs=n), SEED) for n in (3, 2))
    assert torch.equal(long.snapshots[:3], short.snapshots)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
@pytest.mark.parametrize("together", [1, 2])
def test_a_batch_in_parts_trains_like_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, together: int
) -> None:
    images, labels = images_and_labels()
    settings, seeds = recipe(optimizer=optimizer), [SeedTree.root(k).child("expert") for k in range(together)]
    whole = train_experts(images.double(), labels, 3, settings, seeds)
    sizes: list[int] = []
    real = Flat.__call__

    def spy(self: Flat, theta: Tensor, x: Tensor) -> Tensor:
        sizes.append(len(x))
        return real(self, theta, x)

    monkeypatch.setattr(Flat, "__call__", spy)
    monkeypatch.setitem(PART_BYTES, "cpu", 1)
    parts = train_experts(images.double(), labels, 3, settings, seeds)
    assert set(sizes) == {1}
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.snapshots, other.snapshots, rtol=1e-9, atol=1e-12)
        assert one.losses == pytest.approx(other.losses, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_goes_on_bit_for_bit(optimizer: str, momentum: float) -> None:
    settings = {"optimizer": optimizer, "momentum": momentum, "weight_decay": 0.01, "augment": "flip_crop_color"}
    whole = train_expert(*images_and_labels(), 3, recipe(epochs=5, **settings), SEED)
    parts = [train_expert(*images_and_labels(), 3, recipe(epochs=1, **settings), SEED)]
    for last in (2, 5):
        parts.append(train_expert(*images_and_labels(), 3, recipe(epochs=last, **settings), SEED, parts[-1].end))
    assert [part.first_epoch for part in parts] == [0, 2, 3]
    assert torch.equal(torch.cat([part.snapshots for part in parts]), whole.snapshots)
    assert [loss for part in parts for loss in part.losses] == whole.losses
    for part in (parts[-1], whole):
        assert part.end.epoch == 5
        assert torch.equal(part.end.weights, whole.snapshots[5])
        assert (part.velocity is None) == (momentum == 0)
    if momentum:
        assert parts[-1].velocity is not None
        assert whole.velocity is not None
        assert torch.equal(parts[-1].velocity, whole.velocity)
        state = parts[1].end
        forgot = TrainingState(state.epoch, state.weights, None)
        other = train_expert(*images_and_labels(), 3, recipe(epochs=5, **settings), SEED, forgot)
        assert not torch.equal(other.snapshots, whole.snapshots[3:])


def test_the_state_to_go_on_from_is_left_alone() -> None:
    state = train_expert(*images_and_labels(), 3, recipe(epochs=1, momentum=0.9), SEED).end
    assert state.velocity is not None
    before = state.weights.clone(), state.velocity.clone()
    train_expert(*images_and_labels(), 3, recipe(momentum=0.9), SEED, state)
    assert torch.equal(state.weights, before[0])
    assert torch.equal(state.velocity, before[1])


def test_gsam_is_plain_descent_at_radius_zero_and_not_else() -> None:
    plain, zero, wide = (
        train_expert(*images_and_labels(), 3, recipe(**changes), SEED).snapshots
        for changes in ({}, {"optimizer": "gsam", "rho": 0.0}, {"optimizer": "gsam", "rho": 1.0})
    )
    torch.testing.assert_close(zero, plain, rtol=1e-5, atol=1e-5)
    assert (wide - plain).abs().max() > 1e-3


def test_seeds(global_random_untouched: Callable[[int], AbstractContextManager[None]]) -> None:
    settings = recipe(augment="color_crop_cutout_flip_scale_rotate")
    runs = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            runs.append(train_expert(*images_and_labels(), 3, settings, SEED))
    assert torch.equal(runs[0].snapshots, runs[1].snapshots)
    assert runs[0].losses == runs[1].losses
    other = train_expert(*images_and_labels(), 3, settings, SeedTree.root(0).child("expert", 1))
    assert not torch.equal(runs[0].snapshots[0], other.snapshots[0])


def test_the_training_data_are_left_alone() -> None:
    x, y = images_and_labels()
    x_before, y_before = x.clone(), y.clone()
    train_expert(x, y, 3, recipe(augment="color"), SEED)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


def test_divergence_is_said() -> None:
    with pytest.raises(
        RequestError, match=r"an expert diverged in epoch 1 \(loss nan\); lower experts\.lr \(it is 1e\+30\)"
    ):
        train_expert(*images_and_labels(), 3, recipe(lr=1e30), SEED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "experts: epochs must be at least 1, but got 0"),
        ({"batch_size": -1}, "experts: batch_size must be at least 1, but got -1"),
        ({"lr": 0.0}, "experts: lr must be above 0, but got 0.0"),
        ({"lr": float("nan")}, "experts: lr must be above 0, but got nan"),
        ({"momentum": 1.0}, r"experts: momentum must lie in \[0, 1\), but got 1.0"),
        ({"weight_decay": -0.1}, "experts: weight_decay must be 0 or more, but got -0.1"),
        ({"rho": -1.0}, "experts: rho must be 0 or more, but got -1.0"),
        ({"alpha": -1.0}, "experts: alpha must be 0 or more, but got -1.0"),
        ({"optimizer": "gsm"}, "unknown expert optimizer 'gsm': did you mean 'gsam'"),
    ],
)
def test_bad_recipes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        recipe(**changes)
