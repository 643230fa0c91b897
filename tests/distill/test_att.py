"""ATT: which step is scored, against the running minimum of the paper's code, and what its gradient reaches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.distill.adjoint import match, score
from ddnl_ray.distill.att import Att, AttConfig, nearest_step
from ddnl_ray.distill.student import Augmented, AutogradStudent, StudentBatch
from ddnl_ray.distill.trajectory import TrajectoryState, draw_batches
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("distill")
EXACT = 1e-10
INF, NAN = math.inf, math.nan


def method(**changes: Any) -> Att:
    values: dict[str, Any] = {
        "syn_steps": 6,
        "expert_epochs": 1,
        "max_start_epoch": 1,
        "batch_syn": 2,
        "lr_img": 1.0,
        "lr_lr": 1e-3,
        "lr_teacher": 0.3,
        "ema_decay": 0.9,
    }
    return Att(AttConfig(**(values | changes)))


def line(*distances: float) -> list[Tensor]:
    """Weights at these distances from the origin, spread over two parameters."""
    return [torch.tensor([0.5 * each, -0.5 * each], dtype=torch.float64) for each in distances]


@pytest.mark.parametrize(
    ("distances", "step"),
    [
        ([7], 1),
        ([3, 1, 2], 2),
        ([5, 4, 1, 2, 3, 2], 3),
        ([1, 2, 3], 1),
        ([3, 2, 1], 3),
        ([2, 1, 1], 3),
        ([1, 2, 1], 3),
        ([1, 1, 2], 2),
        ([4, 4, 4], 3),
        ([30000, 20000, 50000], 2),
        ([1e200, 1e199, 1e201], 2),
        ([NAN, 2, 1, NAN], 3),
        ([1, NAN, NAN], 1),
        ([NAN, 5], 2),
        ([INF, 5, INF], 2),
        ([INF, INF, NAN], 2),
    ],
)
def test_the_last_step_at_the_smallest_distance(distances: list[float], step: int) -> None:
    assert nearest_step(line(*distances), torch.zeros(2, dtype=torch.float64), "l1") == step


def running_minimum(distances: list[float]) -> int | None:
    """The rule as it was published, with a minimum that starts at infinity."""
    smallest, chosen = INF, None
    for step, distance in enumerate(distances, start=1):
        if smallest >= distance:
            smallest, chosen = distance, step
    return chosen


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 12345.0, INF, NAN]), min_size=1, max_size=8))
def test_equals_the_running_minimum(distances: list[float]) -> None:
    step = nearest_step(line(*distances), torch.zeros(2, dtype=torch.float64), "l1")
    assert 1 <= step <= len(distances)
    assert step == (running_minimum(distances) or len(distances))


def test_the_distance_is_a_choice() -> None:
    visited = [torch.tensor([3.0, 0.0]), torch.tensor([2.0, 2.0])]
    assert nearest_step(visited, torch.zeros(2), "l1") == 1
    assert nearest_step(visited, torch.zeros(2), "l2") == 2


def test_a_trajectory_of_nan_has_a_loss_of_nan() -> None:
    visited, start, target = line(NAN, NAN), torch.ones(2), torch.zeros(2)
    step = nearest_step(visited, target, "l1")
    assert score(visited, step, start, target).loss.isnan()


def walk(smooth: Any, images: Tensor, labels: Tensor, beta: Tensor, batches: list[StudentBatch]) -> list[Tensor]:
    """The weights after every step, each with its graph."""
    theta = smooth.start.clone().requires_grad_()
    visited = []
    for batch in batches:
        loss = F.cross_entropy(smooth.network(theta, images[batch.index]), labels[batch.index])
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - beta * gradient
        visited.append(theta)
    return visited


def passing(smooth: Any, state: TrajectoryState, step: int) -> tuple[Any, list[StudentBatch]]:
    """A problem whose target lies close to where the student is after ``step`` steps, and the student's batches."""
    batches = draw_batches(len(state.images), method().config, smooth.problem, SEED.child("step", state.iteration))
    near = walk(smooth, state.images, state.labels, state.step_size, batches)[step - 1].detach()
    generator = torch.Generator().manual_seed(4)
    return smooth.aimed(near + 1e-3 * torch.randn(68, generator=generator, dtype=torch.float64)), batches


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("step", [1, 2, 4, 6])
def test_an_update_equals_backpropagation_through_the_chosen_steps(smooth: Any, step: int, distance: str) -> None:
    chosen = method(distance=distance)
    state = chosen.init(smooth.problem, SEED)
    problem, batches = passing(smooth, state, step)
    target = problem.experts.snapshot(0, 1)

    images, beta = state.images.clone().requires_grad_(), state.step_size.clone().requires_grad_()
    theta = walk(smooth, images, state.labels, beta, batches)[step - 1]
    loss = ((theta - target) ** 2).sum() / ((smooth.start - target) ** 2).sum()
    expected_images, expected_beta = torch.autograd.grad(loss, [images, beta])

    moved, info = chosen.step(state, problem, SEED)
    assert info.accepted
    assert info.loss == pytest.approx(float(loss.detach()), rel=EXACT)
    torch.testing.assert_close(moved.velocity_images, expected_images, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(moved.velocity_step_size, expected_beta, rtol=EXACT, atol=EXACT)
    assert expected_images.norm() > 1e-4

    used = torch.zeros(len(images), dtype=torch.bool)
    used[torch.cat([batch.index for batch in batches[:step]])] = True
    assert int(used.sum()) == min(6, 2 * step)
    assert torch.equal(moved.images[~used], state.images[~used])
    assert moved.images[used].ne(state.images[used]).flatten(1).any(1).all()


@pytest.mark.parametrize("kept", [0, 1, 3, 6])
def test_kept_tapes_beyond_the_chosen_step_are_of_no_consequence(smooth: Any, kept: int) -> None:
    chosen = method()
    state = chosen.init(smooth.problem, SEED)
    problem, _ = passing(smooth, state, 2)
    plain, kept_some = (chosen.step(replace(state, kept=num), problem, SEED)[0] for num in (0, kept))
    torch.testing.assert_close(kept_some.images, plain.images, rtol=EXACT, atol=EXACT)


def test_the_choice_of_one_iteration_does_not_reach_the_next(smooth: Any) -> None:
    """The same state gives the same step, whatever was chosen before."""
    chosen = method()
    state = chosen.init(smooth.problem, SEED)
    early, late = passing(smooth, state, 1)[0], passing(smooth, state, 5)[0]
    alone = chosen.step(state, late, SEED)[0]
    chosen.step(state, early, SEED)
    assert torch.equal(chosen.step(state, late, SEED)[0].images, alone.images)


def test_a_distant_target_is_matched_too(smooth: Any) -> None:
    """Every distance is far above 10000, where the published search ends empty-handed."""
    chosen = method()
    problem = smooth.aimed(smooth.target + 1e4)
    moved, info = chosen.step(chosen.init(problem, SEED), problem, SEED)
    assert info.accepted
    assert moved.velocity_images.ne(0).any()


def test_a_student_of_nan_is_refused_and_the_average_stays(smooth: Any) -> None:
    state = method().init(smooth.problem, SEED)
    broken = replace(state, images=state.images * NAN)
    after, info = method().step(broken, smooth.problem, SEED)
    assert not info.accepted
    assert math.isnan(info.loss)
    assert after.average is broken.average


def test_it_averages_as_ftd_does(smooth: Any) -> None:
    chosen = method(ema_decay=0.75)
    first = chosen.init(smooth.problem, SEED)
    second, _ = chosen.step(first, smooth.problem, SEED)
    assert first.average is not None
    torch.testing.assert_close(second.average, 0.75 * first.images + 0.25 * second.images, rtol=1e-13, atol=0)
    assert torch.equal(chosen.export(second, smooth.problem).images, second.average)
    assert torch.equal(method(export="last").export(second, smooth.problem).images, second.images)


def test_the_goal_looks_at_all_steps_with_the_scale_of_the_segment(smooth: Any) -> None:
    """Through the adjoint alone: the step that it reports, and a loss of its own scale."""
    state = method().init(smooth.problem, SEED)
    problem, batches = passing(smooth, state, 3)
    target = problem.experts.snapshot(0, 1)
    goal = method()._approach(smooth.start, target)
    student = Augmented(AutogradStudent(problem.network), None)
    found = match(student, smooth.start, goal, state.images, state.labels, state.step_size, batches)
    assert found.step == 3
    distances = [
        float((theta - target).detach().abs().sum())
        for theta in walk(smooth, state.images, state.labels, state.step_size, batches)
    ]
    assert running_minimum(distances) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance": "l3"}, "unknown distance 'l3'"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), but got 1.0"),
        ({"export": "best"}, "unknown export 'best'"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        method(**changes)
