"""Mixed batches of experts in lock-step, and training on them against a loop of torch modules, one expert at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddnl_ray.data import CutMix, DiffAug
from ddnl_ray.experts import ExpertRecipe, train_expert, train_experts
from ddnl_ray.experts.batches import batches
from ddnl_ray.experts.policy import Lesson
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.parts import PART_BYTES
from ddnl_ray.seeds import SeedTree

SEEDS = [SeedTree.root(0).child("expert", index) for index in range(3)]
RECIPE = ExpertRecipe(
    network=NetworkSpec("convnet2", 4),
    epochs=6,
    batch_size=8,
    lr=0.1,
    momentum=0.9,
    weight_decay=0.01,
    augment="diffaug:color_crop_flip",
    cutmix=0.5,
    schedule="thirds",
    schedule_epochs=5,
)


class Weighted:
    """Labels that differ from the observed ones, weights and a consistency term (implements ``Policy``)."""

    consistency = 0.3

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        labels = (images_and_labels()[1] + expert) % 3
        return Lesson(labels, weights=torch.linspace(0.2, 1.8, len(labels), dtype=theta.dtype))


def images_and_labels() -> tuple[Tensor, Tensor]:
    """22 images: two batches of 8 and one of 6."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(22, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (22,), generator=generator)


def reference(recipe: ExpertRecipe, seed: SeedTree, lesson: Lesson, consistency: float) -> Tensor:
    """Snapshots of a module trained with torch's SGD and schedule, on targets of which each image has two."""
    x, y = images_and_labels()[0], lesson.labels
    weights = torch.ones(len(x), dtype=x.dtype) if lesson.weights is None else lesson.weights
    model = build(recipe.network, (1, 8, 8), 3, seed.child("init").torch()).double()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    assert recipe.schedule_epochs is not None
    milestones = [2 * recipe.schedule_epochs // 3, 5 * recipe.schedule_epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)
    snapshots = [nn.utils.parameters_to_vector(model.parameters()).detach().clone()]
    for epoch in range(recipe.epochs):
        generator = seed.child("epoch", epoch).torch()
        order = torch.randperm(len(x), generator=generator)
        for first in range(0, len(x), recipe.batch_size):
            rows = order[first : first + recipe.batch_size]
            batch = DiffAug("color_crop_flip")(x[rows], generator)
            draw = CutMix(recipe.cutmix).draw(generator, len(rows), 8, "cpu")
            pairs = [(1.0, rows)]
            if draw is not None:
                pairs, before = [(draw.own, rows), (1 - draw.own, rows[draw.order])], batch.clone()
                for i, r, c in itertools.product(range(len(rows)), range(*draw.rows), range(*draw.columns)):
                    batch[i, :, r, c] = before[draw.order[i], :, r, c]
            p = model(batch).softmax(1)
            loss = torch.zeros((), dtype=x.dtype)
            for i in range(len(rows)):
                for share, source in pairs:
                    right = p[i, y[source[i]]]
                    loss = loss + share * (consistency * (1 - right) - weights[source[i]] * right.log()) / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        snapshots.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    return torch.stack(snapshots)


@pytest.mark.parametrize("cutmix", [0.5, 1.0])
def test_training_equals_a_loop_of_torch(cutmix: float) -> None:
    x, y = images_and_labels()
    recipe = replace(RECIPE, cutmix=cutmix)
    found = train_expert(x, y, 3, recipe, SEEDS[0]).snapshots
    torch.testing.assert_close(found, reference(recipe, SEEDS[0], Lesson(y), 0.0), rtol=1e-9, atol=1e-12)


def test_experts_in_lock_step_with_weights_and_consistency_equal_loops_of_torch() -> None:
    """The experts draw for themselves: in some batches one is mixed and another is not."""
    x, y = images_and_labels()
    found = train_experts(x, y, 3, RECIPE, SEEDS, policy=Weighted())
    for index, own in enumerate(found):
        lesson = Weighted().lesson(index, 0, None, x)  # type: ignore[arg-type]
        expected = reference(RECIPE, SEEDS[index], lesson, Weighted.consistency)
        torch.testing.assert_close(own.snapshots, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_training_goes_on_bit_for_bit(optimizer: str) -> None:
    """It stops before, at and between the decays, after the epochs 3 and 4 of a schedule of 5."""
    x, y = images_and_labels()
    recipe = replace(RECIPE, optimizer=optimizer)
    whole = train_expert(x.float(), y, 3, recipe, SEEDS[0])
    parts = [train_expert(x.float(), y, 3, replace(recipe, epochs=1), SEEDS[0])]
    for last in (3, 4, 6):
        parts.append(train_expert(x.float(), y, 3, replace(recipe, epochs=last), SEEDS[0], parts[-1].end))
    assert torch.equal(torch.cat([part.snapshots for part in parts]), whole.snapshots)
    assert [loss for part in parts for loss in part.losses] == whole.losses
    steady = train_expert(x.float(), y, 3, replace(recipe, schedule="constant"), SEEDS[0]).snapshots
    assert torch.equal(steady[:4], whole.snapshots[:4])
    assert not torch.equal(steady[4], whole.snapshots[4])


def test_parts_of_a_mixed_batch_train_like_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images_and_labels()
    whole = train_experts(x, y, 3, RECIPE, SEEDS, policy=Weighted())
    monkeypatch.setitem(PART_BYTES, "cpu", 4 * 4 * 64 * 3)
    for one, other in zip(whole, train_experts(x, y, 3, RECIPE, SEEDS, policy=Weighted()), strict=True):
        torch.testing.assert_close(one.snapshots, other.snapshots, rtol=1e-9, atol=1e-12)


def test_without_mixing_the_numbers_are_those_from_before() -> None:
    """The generator of an epoch gives the order and the augmentations, and nothing else."""
    x, y = images_and_labels()
    generator, expected = SEEDS[0].torch(), SEEDS[0].torch()
    found = list(batches(x, [Lesson(y)], 8, DiffAug("color"), None, [generator]))
    order = torch.randperm(22, generator=expected)
    for batch, rows in zip(found, order.split(8), strict=True):
        assert torch.equal(batch.images[0], DiffAug("color")(x[rows], expected))
        assert set(batch.part(slice(0, 2))) == {"images", "labels"}
    assert torch.equal(generator.get_state(), expected.get_state())


def test_a_batch_says_whose_label_has_which_share() -> None:
    """Images and weights are numbers that say whose they are."""
    x = torch.arange(22.0, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    labels, weights = torch.arange(22), 100.0 + torch.arange(22, dtype=torch.float64)
    lessons = [Lesson(labels, weights=weights), Lesson(labels, torch.arange(5, 9), weights)]
    seen: set[tuple[Any, ...]] = set()
    for seed in range(4):
        generators = [SeedTree.root(seed).child(index).torch() for index in range(2)]
        for batch in batches(x, lessons, 8, None, CutMix(0.5), generators):
            if batch.own is None:
                assert batch.labels_other is batch.weights_other is None
                seen.add((False, False))
                continue
            assert batch.labels_other is not None
            assert batch.weights is not None
            assert batch.weights_other is not None
            assert torch.equal(batch.weights, 100.0 + batch.labels)
            assert torch.equal(batch.weights_other, 100.0 + batch.labels_other)
            for expert in range(2):
                own, pairs = (
                    float(batch.own[expert]),
                    zip(batch.labels[expert], batch.labels_other[expert], strict=True),
                )
                for image, (label, other) in zip(batch.images[expert], pairs, strict=True):
                    assert set(image.unique().tolist()) <= {float(label), float(other)}
                    if label != other:
                        assert float((image == label).double().mean()) == pytest.approx(own, abs=1e-12)
            assert set(batch.labels[1].tolist()) <= {5, 6, 7, 8}
            seen.add(tuple(bool(own < 1) for own in batch.own))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}
