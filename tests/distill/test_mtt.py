"""MTT: hard, balanced labels; start epochs below the bound; nothing but images and step size moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ddnl_ray.distill import Problem
from ddnl_ray.distill.mtt import Mtt, MttConfig
from ddnl_ray.distill.trajectory import TrajectoryState
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("distill")


def method(**changes: Any) -> Mtt:
    values: dict[str, Any] = {"syn_steps": 2, "max_start_epoch": 3, "lr_img": 1.0, "lr_lr": 1e-5, "lr_teacher": 0.02}
    return Mtt(MttConfig(**(values | changes)))


def test_first_images_are_different_real_ones_of_the_observed_class(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=4, labels=torch.tensor([2, 0, 1] * 6))
    first = method().init(problem, SEED)
    assert first.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    distances = (first.images[:, None] - problem.images[None]).flatten(2).abs().sum(2)
    rows = [int((row == 0).nonzero()) for row in distances]
    assert len(set(rows)) == 12
    assert problem.labels[rows].tolist() == first.labels.tolist()
    assert (first.iteration, first.velocity_labels) == (0, None)
    assert float(first.step_size) == pytest.approx(0.02)
    assert not first.velocity_images.any()


def test_first_images_may_be_noise(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=6)
    first = method(pix_init="noise").init(problem, SEED)
    distances = (first.images[:, None] - problem.images[None]).flatten(2).abs().sum(2)
    assert distances.min() > 0.1
    assert first.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert abs(float(first.images.mean())) < 0.2
    assert abs(float(first.images.std()) - 1) < 0.2


def test_labels_stay_and_the_rest_moves(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=3)
    first = method().init(problem, SEED)
    second, info = method().step(first, problem, SEED)
    assert info.accepted
    assert torch.equal(second.labels, first.labels)
    assert not torch.equal(second.images, first.images)
    assert second.step_size != first.step_size
    assert second.velocity_labels is None
    exported = method().export(second, problem)
    assert torch.equal(exported.images, second.images)
    assert exported.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert exported.step_size == float(second.step_size)


def test_the_problem_is_left_alone(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    images, labels = problem.images.clone(), problem.labels.clone()
    state = method().init(problem, SEED)
    for _ in range(3):
        state, _ = method(lr_img=100.0).step(state, problem, SEED)
    assert torch.equal(problem.images, images)
    assert torch.equal(problem.labels, labels)


def test_start_epochs_fill_the_window(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    chosen = method(max_start_epoch=4, expert_epochs=3, syn_steps=1, lr_img=0.0)
    state: TrajectoryState = chosen.init(problem, SEED)
    for _ in range(60):
        state, _ = chosen.step(state, problem, SEED)
    reads = problem.experts.reads  # type: ignore[union-attr]
    starts, ends = reads[::2], reads[1::2]
    assert {epoch for _, epoch in starts} == {0, 1, 2, 3}
    assert all(end == (expert, epoch + 3) for (expert, epoch), end in zip(starts, ends, strict=True))
    assert max(epoch for _, epoch in reads) == chosen.config.last_epoch
    experts = [expert for expert, _ in starts]
    assert all(sorted(experts[i : i + 3]) == [0, 1, 2] for i in range(0, 60, 3))


def test_a_loss_above_the_bound_is_refused(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    state = method().init(problem, SEED)
    _, info = method().step(state, problem, SEED)
    assert not method(max_loss=info.loss * 0.99).step(state, problem, SEED)[1].accepted
    assert method(max_loss=info.loss * 1.01).step(state, problem, SEED)[1].accepted


def test_too_few_images_of_a_class(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=7, labels=torch.tensor([0] * 8 + [1] * 3 + [2] * 7))
    with pytest.raises(RequestError, match="ipc is 7, but class 1 has only 3 training images with that label; choose"):
        method().init(problem, SEED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pix_init": "reel"}, "unknown pix_init 'reel': did you mean 'real'"),
        ({"max_loss": 0.0}, "max_loss must be above 0, but got 0.0"),
        ({"syn_steps": 0}, "syn_steps must be at least 1"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        method(**changes)
