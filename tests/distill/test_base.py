"""The method interface: states as tensors, and baselines that choose real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddnl_ray.distill import METHODS, Problem, State
from ddnl_ray.distill.base import pick_per_class, shuffled_rows
from ddnl_ray.distill.coresets import Full, FullConfig, Random, RandomConfig, RowsState
from ddnl_ray.distill.trajectory import TrajectoryState
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


@dataclass(frozen=True)
class Mixed(State):
    """A state of every kind of field."""

    count: int
    needed: Tensor
    optional: Tensor | None


def trajectory(soft: bool) -> TrajectoryState:
    labels = torch.randn(4, 3) if soft else torch.arange(4)
    return replace(TrajectoryState.start(torch.randn(4, 1, 2, 2), labels, 0.01), iteration=17)


@pytest.mark.parametrize(
    "state",
    [
        State(3),
        RowsState(0, torch.tensor([4, 2])),
        trajectory(soft=True),
        trajectory(soft=False),
        Mixed(1, 5, torch.ones(2, dtype=torch.bfloat16), None),
        Mixed(2, -1, torch.ones(2), torch.zeros(())),
    ],
)
def test_a_state_comes_back_from_its_tensors(state: State) -> None:
    again = type(state).from_tensors(state.tensors(), "cpu")
    assert type(again) is type(state)
    for field in fields(state):
        old, new = getattr(state, field.name), getattr(again, field.name)
        assert type(old) is type(new), field.name
        if isinstance(old, Tensor):
            assert old.dtype == new.dtype
            assert torch.equal(old, new)
        else:
            assert old == new


def test_absent_tensors_are_left_out_and_integers_are_scalars() -> None:
    tensors = Mixed(7, 3, torch.ones(2), None).tensors()
    assert sorted(tensors) == ["count", "iteration", "needed"]
    assert tensors["iteration"].dtype == torch.int64
    assert int(tensors["count"]) == 3


@pytest.mark.parametrize("change", [{"needed": None}, {"extra": torch.ones(1)}, {"iteration": None}])
def test_wrong_tensors_are_refused(change: dict[str, Any]) -> None:
    tensors = {
        name: tensor
        for name, tensor in (Mixed(7, 3, torch.ones(2), None).tensors() | change).items()
        if tensor is not None
    }
    message = r"a checkpoint of Mixed holds \[.*\], expected \['count', 'iteration', 'needed', 'optional'\]; delete"
    with pytest.raises(CorruptFileError, match=message):
        Mixed.from_tensors(tensors, "cpu")


TRAJECTORY = {"mtt", "ftd", "att", "tesla", "datm"}


def test_methods_know_their_names() -> None:
    assert {name: kind.method.name for name, kind in METHODS.items()} == {name: name for name in METHODS}
    assert {name for name, kind in METHODS.items() if kind.method.matches_trajectories} == TRAJECTORY


def test_rows_are_shuffled_within_their_class(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    rows = shuffled_rows(problem, SEED)
    assert [sorted(own.tolist()) for own in rows] == [list(range(label, 18, 3)) for label in range(3)]
    assert any(own.tolist() != sorted(own.tolist()) for own in rows)
    other = shuffled_rows(problem, SEED.child("other"))
    assert any(a.tolist() != b.tolist() for a, b in zip(rows, other, strict=True))


def test_larger_sets_contain_smaller_ones(convnet_problem: Callable[..., Problem]) -> None:
    small, large = (pick_per_class(convnet_problem(ipc=ipc), SEED).view(3, ipc) for ipc in (2, 5))
    assert torch.equal(large[:, :2], small)


def test_random_takes_observed_labels(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=3, labels=torch.tensor([0, 0, 1, 1, 2, 2] * 3))
    method = Random(RandomConfig())
    state = method.init(problem, SEED)
    exported = method.export(state, problem)
    assert exported.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert torch.equal(exported.images, problem.images[state.rows])
    assert torch.equal(exported.labels, problem.labels[state.rows])
    assert len(set(state.rows.tolist())) == 9
    assert exported.step_size is None
    after, info = method.step(state, problem, SEED)
    assert after is state
    assert not info.accepted
    assert not torch.equal(method.init(problem, SEED.child("other")).rows, state.rows)


def test_random_of_a_class_that_is_too_small(convnet_problem: Callable[..., Problem]) -> None:
    with pytest.raises(RequestError, match="ipc is 7, but class 0 has only 6 training images"):
        Random(RandomConfig()).init(convnet_problem(ipc=7), SEED)


def test_full_is_the_whole_noisy_set(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem(ipc=None)
    method = Full(FullConfig())
    state = method.init(problem, SEED)
    exported = method.export(method.step(state, problem, SEED)[0], problem)
    assert exported.images is problem.images
    assert exported.labels is problem.labels
    assert exported.step_size is None
