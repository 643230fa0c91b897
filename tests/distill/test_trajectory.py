"""Segments, student batches and guarded steps, against their definitions and ``torch.optim``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import Problem
from ddnl_ray.distill.adjoint import MatchGradient
from ddnl_ray.distill.mtt import Mtt, MttConfig
from ddnl_ray.distill.trajectory import (
    MIN_STEP_SIZE,
    TrajectoryConfig,
    TrajectoryState,
    affordable_steps,
    apply_update,
    draw_batches,
    draw_expert,
    matching_gradient,
    student_of,
)
from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("distill")


def config(**changes: Any) -> TrajectoryConfig:
    values: dict[str, Any] = {"syn_steps": 7, "max_start_epoch": 3, "lr_img": 10.0, "lr_lr": 1e-4, "lr_teacher": 0.02}
    return TrajectoryConfig(**(values | changes))


@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 100))
def test_every_expert_once_per_pass(num_experts: int, turn: int, seed: int) -> None:
    tree = SeedTree.root(seed)
    drawn = [draw_expert(num_experts, turn * num_experts + place, tree) for place in range(num_experts)]
    assert sorted(drawn) == list(range(num_experts))


def test_every_pass_has_its_own_order() -> None:
    passes = {tuple(draw_expert(10, 10 * turn + place, SEED) for place in range(10)) for turn in range(5)}
    assert len(passes) == 5


def indices(num: int, problem: Problem, **changes: Any) -> list[list[int]]:
    return [batch.index.tolist() for batch in draw_batches(num, config(**changes), problem, SEED)]


def test_chunks_are_popped_from_the_end_of_a_permutation(convnet_problem: Callable[..., Problem]) -> None:
    """7 images in chunks of 3: the short chunk first, then whole ones, then a new permutation."""
    drawn = indices(7, convnet_problem(), batch_syn=3)
    generator = SEED.torch()
    expected: list[list[int]] = []
    for _ in range(3):
        order = torch.randperm(7, generator=generator).tolist()
        expected += [order[6:], order[3:6], order[:3]]
    assert drawn == expected[:7]
    assert [len(index) for index in drawn] == [1, 3, 3, 1, 3, 3, 1]


@pytest.mark.parametrize("batch_syn", [1, 2, 3, 5, 6])
def test_no_image_comes_twice_in_a_pass(convnet_problem: Callable[..., Problem], batch_syn: int) -> None:
    drawn = indices(6, convnet_problem(), batch_syn=batch_syn, syn_steps=30)
    per_pass = math.ceil(6 / batch_syn)
    starts = range(0, 30, per_pass)
    passes = [list(itertools.chain(*drawn[first : first + per_pass])) for first in starts]
    assert all(sorted(each) == list(range(6)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1


@pytest.mark.parametrize("batch_syn", [None, 6, 100])
def test_the_whole_set_where_the_batch_is_as_large(
    convnet_problem: Callable[..., Problem], batch_syn: int | None
) -> None:
    drawn = indices(6, convnet_problem(), batch_syn=batch_syn)
    assert all(sorted(index) == list(range(6)) for index in drawn)
    assert len(drawn) == 7


def test_every_batch_has_its_own_augmentation(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(augment=Dsa())
    batches = draw_batches(6, config(batch_syn=4, syn_steps=40), problem, SEED)
    draws = [batch.draw for batch in batches if batch.draw is not None]
    assert len(draws) == 40
    assert [draw.values.shape[1] for draw in draws] == [len(batch.index) for batch in batches]
    assert len({draw.op for draw in draws}) == 6
    again = draw_batches(6, config(batch_syn=4, syn_steps=40), problem, SEED)
    assert all(torch.equal(a.index, b.index) for a, b in zip(batches, again, strict=True))
    other = draw_batches(6, config(batch_syn=4, syn_steps=40), problem, SEED.child("other"))
    assert any(not torch.equal(a.index, b.index) for a, b in zip(batches, other, strict=True))


def state(soft: bool = True, step_size: float = 0.02, num: int = 4) -> TrajectoryState:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(num, 1, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.randn(num, 3, generator=generator, dtype=torch.float64) if soft else torch.arange(num) % 3
    return TrajectoryState.start(images, labels, step_size)


def gradients(soft: bool, num: int = 6) -> list[MatchGradient]:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return [
        MatchGradient(torch.tensor(0.5), normal(4, 1, 2, 2), normal(4, 3) if soft else None, normal(), 1)
        for _ in range(num)
    ]


@pytest.mark.parametrize("soft", [True, False])
def test_updates_equal_torch_sgd_with_momentum(soft: bool) -> None:
    current, settings = state(soft), config(lr_img=3.0, lr_lr=1e-4)
    images, beta = current.images.clone().requires_grad_(), current.step_size.clone().requires_grad_()
    labels = current.labels.clone().requires_grad_(soft)
    groups = [torch.optim.SGD([images], lr=3.0, momentum=0.5), torch.optim.SGD([beta], lr=1e-4, momentum=0.5)]
    if soft:
        groups.append(torch.optim.SGD([labels], lr=2.0, momentum=0.9))
    for step, gradient in enumerate(gradients(soft), start=1):
        current, info = apply_update(current, gradient, settings, math.inf, lr_y=2.0, momentum_y=0.9)
        images.grad, beta.grad, labels.grad = gradient.images, gradient.step_size, gradient.labels
        for optimizer in groups:
            optimizer.step()
        assert info.accepted
        assert info.loss == 0.5
        assert current.iteration == step
        torch.testing.assert_close(current.images, images.detach(), rtol=1e-13, atol=0)
        torch.testing.assert_close(current.step_size, beta.detach(), rtol=1e-13, atol=0)
        torch.testing.assert_close(current.labels, labels.detach(), rtol=1e-13, atol=0)
    assert current.step_size != 0.02


def test_an_accepted_update_leaves_the_given_state_alone() -> None:
    first = state()
    before = {name: tensor.clone() for name, tensor in first.tensors().items()}
    apply_update(first, gradients(True)[0], config(), math.inf, 1.0, 0.9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.tensors().items())


@pytest.mark.parametrize(("slope", "bound"), [(1e9, MIN_STEP_SIZE), (-1e9, 0.2)])
def test_the_step_size_is_clamped(slope: float, bound: float) -> None:
    gradient = replace(gradients(True)[0], step_size=torch.tensor(slope, dtype=torch.float64))
    moved, info = apply_update(state(), gradient, config(), math.inf)
    assert info.accepted
    assert float(moved.step_size) == pytest.approx(bound, rel=1e-12)
    assert float(moved.velocity_step_size) == slope


def test_the_clamp_leaves_room_to_a_small_first_step_size() -> None:
    """MTT's CIFAR-10 setting at ipc 10 starts at 0.001 and learns a step size above ten times that."""
    gradient = replace(gradients(True)[0], step_size=torch.tensor(-1e4, dtype=torch.float64))
    moved, _ = apply_update(state(step_size=0.001), gradient, config(lr_teacher=0.001), math.inf)
    assert float(moved.step_size) == pytest.approx(0.1, rel=1e-12)


def test_a_learning_rate_of_zero_keeps_the_step_size() -> None:
    moved, _ = apply_update(state(), gradients(True)[0], config(lr_lr=0.0), math.inf)
    assert torch.equal(moved.step_size, state().step_size)


def refused(kind: str) -> MatchGradient:
    gradient = gradients(True)[1]
    bad = torch.tensor(math.nan if kind.startswith("nan") else math.inf, dtype=torch.float64)
    if kind == "above":
        return replace(gradient, loss=torch.tensor(1.0001))
    name = kind.split()[1]
    if name in ("loss", "step_size"):
        return replace(gradient, **{name: bad})
    part = getattr(gradient, name).clone()
    part.view(-1)[3] = bad
    return replace(gradient, **{name: part})


@pytest.mark.parametrize(
    "kind",
    ["above", *(f"{bad} {name}" for bad in ("nan", "inf") for name in ("loss", "images", "labels", "step_size"))],
)
def test_a_refused_update_changes_the_iteration_alone(kind: str) -> None:
    before, _ = apply_update(state(), gradients(True)[0], config(), math.inf, 2.0, 0.9)
    before = replace(before, average=before.images + 1)
    bits = {name: tensor.clone() for name, tensor in before.tensors().items()}
    after, info = apply_update(before, refused(kind), config(), 1.0, 2.0, 0.9)
    assert not info.accepted
    assert math.isfinite(info.loss) == (kind == "above")
    assert after.iteration == before.iteration + 1
    for field in fields(before):
        if field.name != "iteration":
            assert getattr(after, field.name) is getattr(before, field.name)
            assert torch.equal(torch.as_tensor(getattr(after, field.name)), bits[field.name])


def test_an_infinite_loss_is_refused_without_a_threshold() -> None:
    gradient = replace(gradients(True)[0], loss=torch.tensor(math.inf))
    assert not apply_update(state(), gradient, config(), math.inf)[1].accepted


def test_a_loss_at_the_threshold_is_accepted() -> None:
    gradient = replace(gradients(True)[0], loss=torch.tensor(1.0))
    assert apply_update(state(), gradient, config(), 1.0)[1].accepted


def test_the_segment_starts_and_ends_where_it_should(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    first = Mtt(mtt_config()).init(problem, SEED)
    matching_gradient(first, config(expert_epochs=4), problem, 5, SEED)
    expert = draw_expert(3, 0, SEED)
    assert problem.experts.reads == [(expert, 5), (expert, 9)]  # type: ignore[union-attr]


@pytest.mark.parametrize("kept", [1, 2, 100])
def test_kept_graphs_leave_the_numbers_as_they_are(convnet_problem: Callable[..., Problem], kept: int) -> None:
    start = Mtt(mtt_config()).init(convnet_problem(), SEED)
    settings = config(batch_syn=4)
    plain = matching_gradient(start, settings, convnet_problem(), 0, SEED)
    limited = matching_gradient(replace(start, kept=kept), settings, convnet_problem(), 0, SEED)
    torch.testing.assert_close(limited.images, plain.images, rtol=1e-4, atol=1e-7)


def mtt_config(**changes: Any) -> MttConfig:
    values: dict[str, Any] = {"syn_steps": 3, "max_start_epoch": 3, "lr_img": 1.0, "lr_lr": 1e-5, "lr_teacher": 0.02}
    return MttConfig(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, but got 0"),
        ({"syn_steps": 0}, "syn_steps must be at least 1, but got 0"),
        ({"expert_epochs": -2}, "expert_epochs must be at least 1, but got -2"),
        ({"max_start_epoch": 0}, "max_start_epoch must be at least 1, but got 0"),
        ({"batch_syn": 0}, "batch_syn must be at least 1 or null, but got 0"),
        ({"lr_img": -1.0}, "lr_img must be 0 or more, but got -1.0"),
        ({"lr_img": math.nan}, "lr_img must be 0 or more, but got nan"),
        ({"lr_lr": -1e-5}, "lr_lr must be 0 or more, but got -1e-05"),
        ({"lr_teacher": 0.0}, "lr_teacher must be at least 1e-05, but got 0.0"),
        ({"momentum_img": 1.0}, r"momentum_img must lie in \[0, 1\), but got 1.0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        config(**changes)


def test_the_last_epoch_that_matching_reads() -> None:
    assert config(max_start_epoch=20, expert_epochs=3).last_epoch == 22


def test_the_kept_steps_fit_the_memory() -> None:
    """Half of what two steps hold affords one step; none is kept without memory, never more than there are steps."""
    network = Flat(build(NetworkSpec("convnet1", 4), (1, 8, 8), 3, torch.Generator().manual_seed(0)))
    images, labels = torch.randn(6, 1, 8, 8), torch.randn(6, 3)
    problem = Problem(images, torch.arange(6) % 3, 3, 2, network, None)
    each = student_of(problem).student.tape_bytes(network.flatten(), images, labels)
    settings = config(batch_syn=None)
    counts = [
        affordable_steps(replace(problem, graph_memory=memory), settings, images, labels)
        for memory in (0, each - 1, each, 2 * each, 1000 * each)
    ]
    assert counts == [0, 0, 1, 2, settings.syn_steps]
