"""What experts learn from: rows, labels, weights and the consistency term, against loops written from the equations."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from ddnl_ray.experts import ExpertRecipe, train_expert, train_experts
from ddnl_ray.experts.policy import Lesson, Plain, order_of
from ddnl_ray.experts.train import sample_loss
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

RECIPE = ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=2, batch_size=8, lr=0.1, augment=None)
SEED = SeedTree.root(0).child("expert", 0)


def images_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(22, 1, 8, 8, generator=generator), torch.randint(0, 3, (22,), generator=generator)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """One lesson per expert, the same in every epoch."""

    lessons: tuple[Lesson, ...]
    consistency: float = 0.0

    def lesson(self, expert: int, epoch: int, network: Flat, theta: Tensor) -> Lesson:
        return self.lessons[expert]


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_zero: float) -> Tensor:
    """Return ``-sum_k p_k log y_k`` with ``log 0 := log_zero``, averaged over the batch."""
    total = logits.new_zeros(())
    for row, label in zip(logits.softmax(1), labels.tolist(), strict=True):
        for k, p in enumerate(row):
            total = total - p * (0.0 if k == label else log_zero)
    return total / len(logits)


@pytest.mark.parametrize("weight", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("log_zero", [-4.0, math.log(1e-4)])
def test_the_consistency_term_is_the_reverse_cross_entropy(weight: float, log_zero: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 5, (7,), generator=generator)
    expected = nn.functional.cross_entropy(logits, labels) + weight * reverse_cross_entropy(logits, labels, log_zero)
    own = sample_loss(logits, labels, None, weight * abs(log_zero))
    torch.testing.assert_close(own, expected, rtol=1e-12, atol=0)
    (gradient,), (wanted,) = torch.autograd.grad(own, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-14)


def test_weights_multiply_the_cross_entropy_of_their_image_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels, weights = torch.tensor([0, 1, 2, 3, 0, 1]), torch.rand(6, generator=generator, dtype=torch.float64)
    log_p = logits.log_softmax(1)
    by_hand = sum(-float(w) * float(row[y]) for w, row, y in zip(weights, log_p, labels.tolist(), strict=True)) / 6
    assert float(sample_loss(logits, labels, weights, 0.0)) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_every_image_in_the_rows_and_no_consistency_is_plain_training_bit_for_bit(optimizer: str) -> None:
    x, y = images_and_labels()
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    plain = train_expert(x, y, 3, recipe, SEED)
    all_rows = Fixed((Lesson(y, torch.arange(len(x))),))
    for policy in (all_rows, Plain(y)):
        (own,) = train_experts(x, y, 3, recipe, [SEED], policy=policy)
        assert torch.equal(own.snapshots, plain.snapshots)
        assert own.losses == plain.losses


def test_a_lesson_trains_like_a_loop_over_its_rows_labels_and_weights() -> None:
    x, y = images_and_labels()
    rows = torch.tensor([1, 4, 5, 9, 13, 20])
    relabelled = (y + 1) % 3
    weights = torch.rand(len(x), generator=torch.Generator().manual_seed(2)) + 0.5
    (own,) = train_experts(x, y, 3, RECIPE, [SEED], policy=Fixed((Lesson(relabelled, rows, weights),), 0.4))
    model = build(RECIPE.network, (1, 8, 8), 3, SEED.child("init").torch())
    optimizer = torch.optim.SGD(model.parameters(), lr=RECIPE.lr)
    for epoch in range(RECIPE.epochs):
        generator = SEED.child("epoch", epoch).torch()
        passes = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(4)]
        order = torch.cat(passes)[:22]
        for index in order.split(RECIPE.batch_size):
            logits = model(x[index])
            chosen = logits.softmax(1)[range(len(index)), relabelled[index]]
            each = nn.functional.cross_entropy(logits, relabelled[index], reduction="none")
            loss = (weights[index] * each).mean() + 0.4 * (1 - chosen).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
        torch.testing.assert_close(own.snapshots[epoch + 1], flat, rtol=1e-5, atol=1e-6)


def test_experts_in_lock_step_have_lessons_of_their_own() -> None:
    x, y = images_and_labels()
    weights = torch.linspace(0.5, 1.5, len(x))
    lessons = Fixed((Lesson(y, torch.arange(5), weights), Lesson((y + 2) % 3, torch.arange(8, 20), weights.flip(0))))
    seeds = [SeedTree.root(0).child("expert", index) for index in range(2)]
    together = train_experts(x, y, 3, RECIPE, seeds, policy=lessons)
    for index in range(2):
        (alone,) = train_experts(x, y, 3, RECIPE, [seeds[index]], policy=lessons, experts=[index])
        torch.testing.assert_close(together[index].snapshots, alone.snapshots, rtol=1e-4, atol=1e-5)


def test_an_epoch_passes_over_few_rows_again_and_again() -> None:
    lesson = Lesson(torch.zeros(10, dtype=torch.int64), torch.tensor([2, 3, 7]))
    order = order_of(lesson, 10, torch.Generator().manual_seed(0))
    assert len(order) == 10
    for first in (0, 3, 6):
        assert sorted(order[first : first + 3].tolist()) == [2, 3, 7]
