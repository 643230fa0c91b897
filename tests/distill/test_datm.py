"""DATM: its widening window, and its first images and labels on networks whose predictions one can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddnl_ray.distill import Problem, datm
from ddnl_ray.distill.datm import Datm, DatmConfig, correct_mean_logits, pick_predicted_correctly
from ddnl_ray.distill.trajectory import TrajectoryState
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ArrayExperts
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("distill")
EYE, SWAP01, NEVER2 = torch.eye(3), torch.eye(3)[[1, 0, 2]], torch.diag(torch.tensor([1.0, 1.0, -1.0]))


def config(**changes: Any) -> DatmConfig:
    values: dict[str, Any] = {"syn_steps": 2, "max_start_epoch": 5, "lr_img": 1.0, "lr_lr": 1e-5, "lr_y": 2.0}
    return DatmConfig(**(values | changes))


def experts(*finals: Tensor) -> ArrayExperts:
    """Experts of two snapshots: useless before training, the given matrices after."""
    arrays = [np.stack([-matrix.numpy().reshape(-1), matrix.numpy().reshape(-1)]) for matrix in finals]
    return ArrayExperts(arrays, (0, 7), 7)


def one_hot(*classes: int) -> Tensor:
    """Images that show a class each, at strengths that tell them apart."""
    strengths = 1 + torch.arange(len(classes)).float() / 10
    return torch.nn.functional.one_hot(torch.tensor(classes), 3) * strengths[:, None]


def test_the_window_widens_until_the_end_of_the_expansion() -> None:
    settings = config(max_start_epoch=20, current_max_start_epoch=10, expansion_end_epoch=1000)
    bounds = [settings.upper_bound(iteration) for iteration in (0, 99, 100, 500, 999, 1000, 1001, 10**6)]
    assert bounds == [10, 10, 11, 15, 19, 20, 20, 20]


@pytest.mark.parametrize("iteration", [0, 5, 10**6])
def test_the_whole_window_where_it_is_not_sequential(iteration: int) -> None:
    assert config(max_start_epoch=20).upper_bound(iteration) == 20


def test_start_epochs_lie_in_the_window(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=1)
    chosen = Datm(
        config(
            syn_steps=1,
            min_start_epoch=2,
            current_max_start_epoch=4,
            max_start_epoch=8,
            expansion_end_epoch=40,
            expert_epochs=3,
            lr_img=0.0,
            lr_y=0.0,
        )
    )
    state: TrajectoryState = chosen.init(problem, SEED)
    reads = problem.experts.reads  # type: ignore[union-attr]
    reads.clear()
    starts = []
    for iteration in range(120):
        state, _ = chosen.step(state, problem, SEED)
        (first_expert, start), (last_expert, end) = reads[-2:]
        assert (last_expert, end) == (first_expert, start + 3)
        assert 2 <= start < chosen.config.upper_bound(iteration)
        starts.append(start)
    assert set(starts[40:]) == {2, 3, 4, 5, 6, 7}
    assert set(starts[:10]) == {2, 3}
    assert max(epoch for _, epoch in reads) == chosen.config.last_epoch


def test_images_that_the_first_expert_gets_right_are_taken(linear_problem: Callable[..., Problem]) -> None:
    """Observed labels say 0, 1, 2 in blocks of 4; two images of each block show it, the rest show another class."""
    shown = one_hot(0, 1, 2, 0, 1, 0, 0, 1, 2, 2, 1, 0)
    observed = [0] * 4 + [1] * 4 + [2] * 4
    problem = linear_problem(shown, observed, experts(EYE), ipc=2)
    rows = pick_predicted_correctly(problem, SEED)
    assert sorted(rows[:2].tolist()) == [0, 3]
    assert sorted(rows[2:4].tolist()) == [4, 7]
    assert sorted(rows[4:].tolist()) == [8, 9]


@pytest.mark.parametrize("scan_batch", [1, 2, 256])
def test_the_next_experts_fill_what_the_first_leaves(
    linear_problem: Callable[..., Problem], monkeypatch: pytest.MonkeyPatch, scan_batch: int
) -> None:
    """Expert 0 sees one image of class 0; expert 1, which swaps classes 0 and 1, sees the two that show class 1."""
    monkeypatch.setattr(datm, "SCAN_BATCH", scan_batch)
    shown = one_hot(0, 1, 1, 2, 2, 1, 1, 1, 2, 2, 2, 2)
    observed = [0] * 5 + [1] * 3 + [2] * 4
    problem = linear_problem(shown, observed, experts(EYE, SWAP01), ipc=3)
    rows = pick_predicted_correctly(problem, SEED).tolist()
    assert rows[0] == 0
    assert sorted(rows[1:3]) == [1, 2]
    assert sorted(rows[3:6]) == [5, 6, 7]


def test_random_images_fill_what_no_expert_predicts(linear_problem: Callable[..., Problem]) -> None:
    shown = one_hot(0, 0, 1, 1, 2, 2, 2, 0)
    observed = [0, 0, 1, 1, 2, 2, 2, 2]
    problem = linear_problem(shown, observed, experts(NEVER2, NEVER2), ipc=2)
    chosen = set()
    for seed in range(20):
        rows = pick_predicted_correctly(problem, SeedTree.root(seed)).tolist()
        assert len(set(rows)) == 6
        assert [observed[row] for row in rows] == [0, 0, 1, 1, 2, 2]
        chosen |= set(rows[4:])
    assert chosen == {4, 5, 6, 7}


def test_the_fill_takes_no_image_twice(linear_problem: Callable[..., Problem]) -> None:
    """Of the two images of class 2, the expert gets the first right; the other fills."""
    problem = linear_problem(one_hot(0, 0, 1, 1, 2, 0), [0, 0, 1, 1, 2, 2], experts(EYE), ipc=2)
    for seed in range(20):
        assert pick_predicted_correctly(problem, SeedTree.root(seed))[4:].tolist() == [4, 5]


def test_the_choice_among_right_images_is_random(linear_problem: Callable[..., Problem]) -> None:
    shown, observed = one_hot(*[0] * 8, 1, 2), [0] * 8 + [1, 2]
    problem = linear_problem(shown, observed, experts(EYE), ipc=1)
    assert len({int(pick_predicted_correctly(problem, SeedTree.root(seed))[0]) for seed in range(30)}) > 3


def test_first_labels_are_the_mean_over_the_experts_that_are_right(linear_problem: Callable[..., Problem]) -> None:
    """By hand: experts EYE, 3 EYE and SWAP01 on an image of class 0 and strength 1, observed 0, 1 or 2."""
    shown = torch.tensor([[1.0, 0, 0]] * 3)
    problem = linear_problem(shown, [0, 1, 2], experts(EYE, 3 * EYE, SWAP01), ipc=1)
    logits = correct_mean_logits(problem, torch.tensor([0, 1, 2]))
    # Observed 0: EYE and 3 EYE are right: mean of (1,0,0), (3,0,0). Observed 1: SWAP01 gives (0,1,0).
    # Observed 2: no expert is right: the mean of all three, (1,0,0), (3,0,0), (0,1,0).
    expected = torch.tensor([[2.0, 0, 0], [0, 1, 0], [4 / 3, 1 / 3, 0]])
    torch.testing.assert_close(logits, expected)


def test_first_labels_are_finite_where_no_expert_is_right(linear_problem: Callable[..., Problem]) -> None:
    shown = one_hot(0, 0, 1, 1, 2, 2)
    problem = linear_problem(shown, [1, 1, 2, 2, 0, 0], experts(EYE, EYE), ipc=2)
    state = Datm(config()).init(problem, SEED)
    assert state.labels.isfinite().all()
    assert state.labels.argmax(1).tolist() == [2, 2, 0, 0, 1, 1]


def test_init_keeps_images_and_logits_together(linear_problem: Callable[..., Problem]) -> None:
    shown = one_hot(0, 1, 2, 0, 1, 2)
    problem = linear_problem(shown, [0, 1, 2, 0, 1, 2], experts(2 * EYE, 4 * EYE), ipc=2)
    state = Datm(config()).init(problem, SEED)
    torch.testing.assert_close(state.labels, 3 * state.images.flatten(1))
    assert state.velocity_labels is not None
    assert state.velocity_labels.shape == state.labels.shape


def test_real_init_takes_the_first_experts_logits(linear_problem: Callable[..., Problem]) -> None:
    shown = one_hot(0, 1, 2, 0, 1, 2)
    observed = [1, 2, 0, 1, 2, 0]
    problem = linear_problem(shown, observed, experts(2 * EYE, 4 * EYE), ipc=2)
    state = Datm(config(pix_init="real")).init(problem, SEED)
    torch.testing.assert_close(state.labels, 2 * state.images.flatten(1))
    assert state.labels.argmax(1).tolist() == [2, 2, 0, 0, 1, 1]


@pytest.mark.parametrize("pix_init", ["real", "samples_predicted_correctly"])
def test_too_few_images_of_a_class(linear_problem: Callable[..., Problem], pix_init: str) -> None:
    problem = linear_problem(one_hot(0, 1, 2, 2), [0, 0, 2, 1], experts(EYE), ipc=2)
    with pytest.raises(RequestError, match="ipc is 2, but class 1 has only 1 training images with that label; choose"):
        Datm(config(pix_init=pix_init)).init(problem, SEED)


def test_a_step_moves_images_labels_and_step_size(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    method = Datm(config(threshold=100.0))
    first = method.init(problem, SEED)
    second, info = method.step(first, problem, SEED)
    assert info.accepted
    assert not torch.equal(second.images, first.images)
    assert not torch.equal(second.labels, first.labels)
    assert second.step_size != first.step_size
    exported = method.export(second, problem)
    torch.testing.assert_close(exported.labels, second.labels.exp() / second.labels.exp().sum(1, keepdim=True))
    assert exported.step_size == float(second.step_size)


def test_the_gate(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    first = Datm(config()).init(problem, SEED)
    _, info = Datm(config(threshold=100.0)).step(first, problem, SEED)
    state, refused = Datm(config(threshold=info.loss * 0.99)).step(first, problem, SEED)
    assert not refused.accepted
    assert state.images is first.images
    assert state.iteration == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pix_init": "noise"}, "unknown pix_init 'noise'"),
        (
            {"min_start_epoch": 5},
            r"min_start_epoch must lie in \[0, max_start_epoch\), but got 5 with max_start_epoch 5",
        ),
        ({"min_start_epoch": -1}, "min_start_epoch must lie in"),
        (
            {"min_start_epoch": 2, "current_max_start_epoch": 2},
            r"current_max_start_epoch must lie in \(min_start_epoch, max_start_epoch\], but got 2 with 2 and 5",
        ),
        ({"current_max_start_epoch": 6}, "current_max_start_epoch must lie in"),
        ({"expansion_end_epoch": 0}, "expansion_end_epoch must be at least 1, but got 0"),
        ({"threshold": 0.0}, "threshold must be above 0, but got 0.0"),
        ({"lr_y": -1.0}, "lr_y must be 0 or more, but got -1.0"),
        ({"momentum_y": 1.5}, r"momentum_y must lie in \[0, 1\), but got 1.5"),
        ({"lr_img": -1.0}, "lr_img must be 0 or more, but got -1.0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        config(**changes)
