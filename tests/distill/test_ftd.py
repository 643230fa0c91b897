"""FTD: MTT's path, and an average of the images that accepted updates alone move."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddnl_ray.distill import Problem
from ddnl_ray.distill.ftd import Ftd, FtdConfig
from ddnl_ray.distill.mtt import Mtt, MttConfig
from ddnl_ray.distill.trajectory import TrajectoryState
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("distill")
DECAY = 0.8
SHARED: dict[str, Any] = {
    "syn_steps": 3,
    "expert_epochs": 1,
    "max_start_epoch": 3,
    "batch_syn": 4,
    "lr_img": 2.0,
    "lr_lr": 1e-3,
    "lr_teacher": 0.02,
}


def method(**changes: Any) -> Ftd:
    return Ftd(FtdConfig(**(SHARED | {"ema_decay": DECAY} | changes)))


def closed_form(path: list[Tensor], decay: float) -> Tensor:
    """The average after k updates, as one sum: d^k S_0 + (1 - d) sum_j d^(k - j) S_j."""
    k = len(path) - 1
    weights = [decay**k] + [(1 - decay) * decay ** (k - j) for j in range(1, k + 1)]
    assert sum(weights) == pytest.approx(1.0)
    return sum((weight * images for weight, images in zip(weights, path, strict=True)), torch.zeros_like(path[0]))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_the_closed_form_of_the_accepted_updates(smooth: Any, decay: float) -> None:
    """A bound on the loss refuses updates in between, which move nothing."""
    losses = [info.loss for _, info in steps(method(), smooth.problem, 12)]
    chosen = method(ema_decay=decay, max_loss=sorted(losses)[6])
    state = chosen.init(smooth.problem, SEED)
    assert state.average is not None
    assert torch.equal(state.average, state.images)
    path, accepted = [state.images], []
    for after, info in steps(chosen, smooth.problem, 12):
        accepted.append(info.accepted)
        if info.accepted:
            path.append(after.images)
        assert after.images is path[-1]
        torch.testing.assert_close(after.average, closed_form(path, decay), rtol=1e-12, atol=1e-14)
    turns = set(itertools.pairwise(accepted))
    assert {(True, False), (False, True), (True, True)} <= turns


def steps(chosen: Ftd, problem: Problem, num: int) -> list[tuple[TrajectoryState, Any]]:
    """The states and reports of the first iterations."""
    state, out = chosen.init(problem, SEED), []
    for _ in range(num):
        state, info = chosen.step(state, problem, SEED)
        out.append((state, info))
    return out


def test_a_refused_update_leaves_the_average_itself(smooth: Any) -> None:
    state = steps(method(), smooth.problem, 2)[-1][0]
    after, info = method(max_loss=1e-9).step(state, smooth.problem, SEED)
    assert not info.accepted
    assert after.average is state.average


def test_the_images_go_the_way_of_mtt(convnet_problem: Callable[..., Problem]) -> None:
    """The average is looked at, not acted on."""
    problem = convnet_problem(ipc=3)
    plain = Mtt(MttConfig(**SHARED))
    other = plain.init(problem, SEED)
    for state, _ in steps(method(), problem, 4):
        other, _ = plain.step(other, problem, SEED)
        assert torch.equal(state.images, other.images)
        assert torch.equal(state.step_size, other.step_size)
        assert state.average is not None
        assert not torch.equal(state.average, state.images)


def test_either_set_is_handed_over(smooth: Any) -> None:
    (state, _) = steps(method(), smooth.problem, 3)[-1]
    assert state.average is not None
    average, last = (method(export=which).export(state, smooth.problem) for which in ("average", "last"))
    assert torch.equal(average.images, state.average)
    assert torch.equal(last.images, state.images)
    for each in (average, last):
        assert torch.equal(each.labels, state.labels)
        assert each.step_size == float(state.step_size)
    assert float(state.step_size) != SHARED["lr_teacher"]


def test_which_set_is_handed_over_changes_no_state(smooth: Any) -> None:
    runs = [steps(method(export=which), smooth.problem, 3)[-1][0].tensors() for which in ("average", "last")]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_step_leaves_the_given_state_alone(smooth: Any) -> None:
    state = steps(method(), smooth.problem, 1)[-1][0]
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    method().step(state, smooth.problem, SEED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), but got 1.0"),
        ({"ema_decay": -0.1}, r"ema_decay must lie in \[0, 1\), but got -0.1"),
        ({"ema_decay": float("nan")}, r"ema_decay must lie in \[0, 1\), but got nan"),
        ({"export": "avrage"}, "unknown export 'avrage': did you mean 'average'"),
        ({"pix_init": "reel"}, "unknown pix_init 'reel'"),
        ({"syn_steps": 0}, "syn_steps must be at least 1"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        method(**changes)
