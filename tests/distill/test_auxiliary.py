"""A second target beside the expert's own: limits, mixture, gradient, and segments that hardly move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddnl_ray.distill import METHODS, Problem
from ddnl_ray.distill.adjoint import blend, reach, score
from ddnl_ray.distill.base import Auxiliary, State
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)
MATCHING = ["mtt", "ftd", "datm", "att", "tesla"]


@dataclass(frozen=True)
class Shifted:
    """Second targets: the expert's own weights ``ahead`` epochs later, times a factor."""

    experts: Any
    ahead: int
    factor: float = 1.0

    @property
    def final_epoch(self) -> int:
        return int(self.experts.final_epoch)

    def __len__(self) -> int:
        return len(self.experts)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        weights: Tensor = self.factor * self.experts.snapshot(expert, epoch + self.ahead)
        return weights


OWN: dict[str, dict[str, Any]] = {"datm": {"lr_y": 1.0}, "ftd": {"ema_decay": 0.9}, "att": {"ema_decay": 0.9}}


def stepped(name: str, problem: Problem, steps: int = 3, **changes: Any) -> State:
    settings = {"syn_steps": 3, "expert_epochs": 2, "max_start_epoch": 3, "lr_img": 1.0, "lr_lr": 1e-5}
    kind = METHODS[name]
    method = kind.method(kind.config(**(settings | OWN.get(name, {}) | changes)))
    state = method.init(problem, SEED)
    for _ in range(steps):
        state, _ = method.step(state, problem, SEED)
    return state


def bits(state: State) -> list[Tensor]:
    return [state.tensors()[name] for name in sorted(state.tensors())]


@pytest.mark.parametrize("name", MATCHING)
def test_without_weight_the_second_target_changes_no_bit(convnet_problem: Callable[..., Problem], name: str) -> None:
    plain = convnet_problem()
    second = convnet_problem(auxiliary=Auxiliary(Shifted(plain.experts, 1, 1.3), 0.0))
    for one, other in zip(bits(stepped(name, plain)), bits(stepped(name, second)), strict=True):
        assert torch.equal(one, other)


@dataclass(frozen=True)
class Redirected(Shifted):
    """Experts whose epoch 2 is the second target of a segment that starts at epoch 0."""

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        weights: Tensor = self.experts.snapshot(expert, epoch)
        return super().snapshot(expert, 0) if epoch == 2 else weights


@pytest.mark.parametrize("name", ["mtt", "ftd", "datm", "tesla"])
def test_with_all_the_weight_only_the_second_target_counts(convnet_problem: Callable[..., Problem], name: str) -> None:
    plain = convnet_problem()
    second = replace(plain, auxiliary=Auxiliary(Shifted(plain.experts, 1, 1.3), 1.0))
    redirected = replace(plain, experts=Redirected(plain.experts, 1, 1.3))
    own = bits(stepped(name, second, max_start_epoch=1))
    for one, other in zip(own, bits(stepped(name, redirected, max_start_epoch=1)), strict=True):
        assert torch.equal(one, other)


def vectors() -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    start, target, second, *visited = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    return start, target, second, visited


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_the_mixture_and_its_derivative_are_those_of_the_equation(weight: float) -> None:
    start, target, second, visited = vectors()
    leaf = visited[-1].clone().requires_grad_()
    own = (leaf - target).square().sum() / (target - start).square().sum()
    other = (leaf - second).square().sum() / (second - start).square().sum()
    total = (1 - weight) * own + weight * other
    (gradient,) = torch.autograd.grad(total, leaf)
    end = blend(reach(start, target), start, target, second, weight)(visited)
    torch.testing.assert_close(end.loss, total.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(end.adjoint, gradient, rtol=1e-12, atol=1e-15)
    assert end.step == len(visited)


def test_the_second_target_scores_the_step_that_the_goal_chose() -> None:
    start, target, second, visited = vectors()

    def second_step(weights: Any) -> Any:
        return score(weights, 2, start, target)

    end = blend(second_step, start, target, second, 1.0)(visited)
    assert end.step == 2
    torch.testing.assert_close(end.loss, score(visited, 2, start, second).loss, rtol=0, atol=0)


def test_a_target_that_hardly_moved_is_left_out() -> None:
    start, target, second, visited = vectors()
    near = start * (1 + 0.9e-4)
    plain, other = reach(start, target)(visited), reach(start, second)(visited)
    without_second = blend(reach(start, target), start, target, near, 0.5)(visited)
    without_own = blend(reach(start, near), start, near, second, 0.5)(visited)
    assert without_second.loss == plain.loss
    assert without_own.loss == other.loss
    far = start * (1 + 1.1e-4)
    assert blend(reach(start, target), start, target, far, 0.5)(visited).loss != plain.loss


def test_the_target_is_that_of_the_iterations_expert_and_start(convnet_problem: Callable[..., Problem]) -> None:
    problem = convnet_problem()
    targets = convnet_problem().experts
    stepped("mtt", replace(problem, auxiliary=Auxiliary(targets, 0.3)), steps=4)  # type: ignore[arg-type]
    starts = problem.experts.reads[::2]  # type: ignore[union-attr]
    assert targets.reads == starts  # type: ignore[union-attr]
