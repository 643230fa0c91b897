"""RDC on Acc-DD: its contract, its cycle, and what it learns from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ddnl_ray.distill.accdd import Accdd, AccddConfig
from ddnl_ray.distill.base import Method, Problem
from ddnl_ray.robust import compose
from ddnl_ray.robust.rdc_accdd import RdcAccdd, RdcAccddConfig, RdcAccddState
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.rdc_idm import RdcIdm
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import toy_problem

BASE: dict[str, Any] = {"inner_loop": 2, "batch_real": 4, "n_data": 12, "batch_train": 6, "lr_img": 0.5}
FAST: dict[str, Any] = {"warm_up": 1, "cycle": 3, "labelled_batch": 6, "unlabelled_batch": 6, "views": 2}
SEED = SeedTree.root(0)


def config(iterations: int = 5, base: dict[str, Any] | None = None, **rdc: Any) -> RdcAccddConfig:
    return RdcAccddConfig(iterations=iterations, **(BASE | (base or {})), rdc=RdcConfig(**(FAST | rdc)))


class TestRdcAccdd(MethodContract):
    method = RdcAccdd
    config = config()


def run(method: Method[Any], steps: int, problem: Problem | None = None) -> list[Any]:
    problem = problem or toy_problem(2, experts=True)
    states = [method.init(problem, SEED)]
    for _ in range(steps):
        states.append(method.step(states[-1], problem, SEED)[0])
    return states


def test_a_cycle_begins_with_another_network_and_nothing_golden() -> None:
    states: list[RdcAccddState] = run(RdcAccdd(config(iterations=9, cycle=3, warm_up=2)), 9)
    # An outer iteration is two updates: golden after the second and the third of three, gone with the next cycle.
    assert [state.refresh for state in states] == [0, 0, 0, 0, 1, 1, 2, 0, 0, 0]
    assert not states[7].accumulated.any()
    assert states[6].accumulated.all()


def test_within_a_cycle_the_network_learns_on() -> None:
    """Without learning and perturbation, weights change only where another expert is loaded."""
    method = RdcAccdd(config(9, {"n_data": 0, "perturbation_low": 0.0, "perturbation_high": 0.0}, gmc="none"))
    states = run(method, 9)
    changes = [i for i in range(1, 10) if not torch.equal(states[i].theta, states[i - 1].theta)]
    assert set(changes) <= {7}  # the first network of the second cycle, unless the same expert is drawn
    plain = run(Accdd(AccddConfig(iterations=9, **(BASE | {"n_data": 0}))), 9)
    moved = [i for i in range(1, 10) if not torch.equal(plain[i].theta, plain[i - 1].theta)]
    assert moved == [3, 5, 7, 9]


def test_in_the_warm_up_it_is_accdd_with_networks_that_live_a_cycle() -> None:
    settings = config(iterations=2, warm_up=3)
    plain = {each.name: getattr(settings, each.name) for each in dataclasses.fields(AccddConfig)}
    problem = toy_problem(2, experts=True)
    mine, other = run(RdcAccdd(settings), 2, problem), run(Accdd(AccddConfig(**plain)), 2, problem)
    assert torch.equal(mine[2].images, other[2].images)
    assert torch.equal(mine[2].theta, other[2].theta)


@pytest.mark.parametrize("change", [{"gmc": "none"}, {"ssl": "none"}, {"cond_real": "golden", "minimum_golden": 1}])
def test_each_part_matters_after_the_warm_up_only(change: dict[str, Any]) -> None:
    first, second = run(RdcAccdd(config()), 4), run(RdcAccdd(config(**change)), 4)
    assert torch.equal(first[2].images, second[2].images)
    assert first[2].golden is not None
    same = torch.equal(first[4].images, second[4].images) and torch.equal(first[4].theta, second[4].theta)
    assert not same


@pytest.mark.parametrize(
    ("name", "kind", "param"), [("idm+rdc", RdcIdm, "lr_net"), ("accdd+rdc", RdcAccdd, "inner_loop")]
)
def test_names_and_settings_of_the_composed_methods(name: str, kind: type[Any], param: str) -> None:
    composition = compose(name)
    base = name.partition("+")[0]
    assert (composition.variant, composition.base) == ("rdc", base)
    assert {f"{base}.lr_img", f"{base}.{param}", "rdc.mixup", "rdc.gmc"} <= set(composition.parameters)
    method: Any = composition.method({"lr_img": 0.4, "rdc.mixup": 0.6})
    assert isinstance(method, kind)
    assert (method.config.lr_img, method.config.rdc.mixup) == (0.4, 0.6)
