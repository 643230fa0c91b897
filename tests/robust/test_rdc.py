"""RDC on IDM: its contract, its schedule, where its gradients go, and what it mines."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import View, observed_pools
from ddnl_ray.distill.idm import Idm, IdmConfig
from ddnl_ray.robust.contrast import contrast_within
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc import Mined, contrast_gradient, lesson, real_pools
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.rdc_idm import RdcIdm, RdcIdmConfig, RdcIdmState
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import CLASSES, toy_problem

FAST: dict[str, Any] = {"warm_up": 1, "steps_per_epoch": 2, "labelled_batch": 6, "unlabelled_batch": 6, "views": 2}
SEED = SeedTree.root(0)


def config(iterations: int = 4, **rdc: Any) -> RdcIdmConfig:
    return RdcIdmConfig(iterations=iterations, batch_real=4, batch_train=6, rdc=RdcConfig(**(FAST | rdc)))


class TestRdcIdm(MethodContract):
    method = RdcIdm
    config = config()


class TestRdcIdmAsReleased(MethodContract):
    method = RdcIdm
    config = config(gmc="released", ssl="released", cond_real="golden")


def run(settings: RdcIdmConfig, problem: Problem | None = None) -> list[RdcIdmState]:
    problem, method = problem or toy_problem(2, network=True), RdcIdm(settings)
    states = [method.init(problem, SEED)]
    for _ in range(settings.iterations):
        states.append(method.step(states[-1], problem, SEED)[0])
    return states


def golden_of(problem: Problem) -> Golden:
    """Return a golden set of the first 20 of 24 images, of which the two wrong ones are labelled anew."""
    member = torch.arange(len(problem.labels)) < 20
    labels, relabelled = problem.labels.clone(), torch.zeros_like(member)
    labels[0], labels[4], relabelled[0], relabelled[4] = 0, 1, True, True
    return Golden(labels, member, relabelled, member.float())


def test_the_golden_set_is_made_at_the_end_of_every_epoch_from_the_last_of_the_warm_up_on() -> None:
    states = run(config(iterations=12, warm_up=2, steps_per_epoch=3))
    assert [state.refresh for state in states] == [0] * 6 + [1] * 3 + [2] * 3 + [3]
    choices = [RdcIdm(config()).choice(state) for state in (states[5], states[6])]
    assert [each.refresh for each in choices] == [0, 1]
    assert not choices[0].member.any()
    assert 0 < int(choices[1].member.sum()) <= 24


def test_losses_are_summed_over_epochs_without_decay() -> None:
    problem = toy_problem(2, network=True)
    states = run(config(iterations=6, warm_up=2), problem)
    assert problem.network is not None
    total = torch.zeros(24, dtype=torch.float64)
    for index in (4, 6):
        logits = problem.network(states[index].networks[0], problem.images)
        total += F.cross_entropy(logits, problem.labels, reduction="none").double()
        torch.testing.assert_close(states[index].accumulated, total)
    assert not states[3].accumulated.any()


def test_one_network_serves_the_whole_run() -> None:
    states = run(config(iterations=6))
    assert all(len(state.networks) == 1 for state in states)
    assert states[6].seen.tolist() == [6 * 6]


def test_until_the_warm_up_ends_it_is_idm_with_one_network() -> None:
    settings = config(iterations=3, warm_up=2)
    plain = {field.name: getattr(settings, field.name) for field in dataclasses.fields(IdmConfig)}
    problem = toy_problem(2, network=True)
    method = Idm(IdmConfig(**(plain | {"net_generate_interval": 100, "first_networks": 0, "train_net_num": 1})))
    state = method.init(problem, SEED)
    given = run(settings, problem)
    state = dataclasses.replace(
        state,
        networks=given[0].networks,
        velocities=given[0].velocities,
        correct=given[0].correct,
        seen=given[0].seen,
        iteration=1,  # 0 would push a network
    )
    after, _ = method.step(state, problem, SEED)
    mine, _ = RdcIdm(settings).step(dataclasses.replace(given[0], iteration=1), problem, SEED)
    assert torch.equal(after.images, mine.images)


def test_the_rate_falls_to_a_tenth_half_way() -> None:
    """Without momentum and weight decay, the step of the network is the rate times a gradient of known size."""
    problem = toy_problem(2, network=True)
    settings = dataclasses.replace(
        config(iterations=8, warm_up=9), net_momentum=0.0, net_weight_decay=0.0, batch_train=99, lr_net=1e-6
    )
    states = run(settings, problem)
    steps = [float((b.networks - a.networks).norm()) for a, b in itertools.pairwise(states)]
    assert steps[4] == pytest.approx(steps[3] / 10, rel=0.05)
    assert steps[3] == pytest.approx(steps[0], rel=0.05)


@pytest.mark.parametrize("gmc", ["paper", "released", "supcon", "supcon_plain"])
def test_contrast_moves_the_images_of_every_class(gmc: str) -> None:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    theta, stored = problem.network.flatten(), problem.images[:6].clone()
    rdc = RdcConfig(**(FAST | {"gmc": gmc}))
    loss, gradient = contrast_gradient(stored, problem, theta, View(2), golden_of(problem), rdc, SEED)
    assert math.isfinite(float(loss))
    assert all(bool(own.abs().sum() > 0) for own in gradient.chunk(CLASSES))
    halved = dataclasses.replace(rdc, gmc_weight=0.5)
    again, turn = contrast_gradient(stored, problem, theta, View(2), golden_of(problem), halved, SEED)
    torch.testing.assert_close((again, turn), (loss / 2, gradient / 2))


def test_plain_contrast_is_that_of_the_decoded_images() -> None:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    theta, stored = problem.network.flatten(), problem.images[:6].clone().requires_grad_()
    rdc = RdcConfig(**(FAST | {"gmc": "supcon_plain", "temperature": 0.2}))
    features = problem.network.outputs(theta, View(2).decoded(stored)).features
    expected = contrast_within(features, torch.arange(3).repeat_interleave(8), 0.2)
    (slope,) = torch.autograd.grad(expected, stored)
    found = contrast_gradient(stored.detach(), problem, theta, View(2), golden_of(problem), rdc, SEED)
    torch.testing.assert_close(found, (expected.detach(), slope))


def test_contrast_in_parts_that_forget_their_graphs_is_the_same() -> None:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    theta, rdc = problem.network.flatten(), RdcConfig(**FAST)
    stored, golden = problem.images[:6].clone(), golden_of(problem)
    found = contrast_gradient(stored, problem, theta, View(2), golden, rdc, SEED)
    small = dataclasses.replace(problem, smaller=9)
    torch.testing.assert_close(contrast_gradient(stored, small, theta, View(2), golden, rdc, SEED), found)


@pytest.mark.parametrize("ssl", ["dividemix1", "released"])
def test_the_network_learns_from_golden_labels(ssl: str) -> None:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    theta, golden = problem.network.flatten(), golden_of(problem)
    rdc = RdcConfig(**(FAST | {"ssl": ssl, "labelled_batch": 20, "unlabelled_batch": 20}))
    found, labels = lesson(problem, theta, golden, 3.0, 6, rdc, SEED)
    assert sorted(labels.tolist()) == sorted(golden.labels[:20].tolist())
    assert found.logits.shape == (20, CLASSES)
    assert found.gradient.abs().sum() > 0
    for _ in range(60):
        theta = theta - 0.1 * lesson(problem, theta, golden, 3.0, 6, rdc, SEED)[0].gradient
    after = problem.network(theta, problem.images[:20]).argmax(1)
    assert float((after == golden.labels[:20]).float().mean()) > 0.9


def test_without_ssl_or_golden_set_the_network_learns_from_observed_labels() -> None:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    theta = problem.network.flatten()
    one, labels = lesson(problem, theta, None, 0.0, 24, RdcConfig(**FAST), SEED)
    two, _ = lesson(problem, theta, golden_of(problem), 9.0, 24, RdcConfig(**(FAST | {"ssl": "none"})), SEED)
    assert torch.equal(one.gradient, two.gradient)
    assert sorted(labels.tolist()) == sorted(problem.labels.tolist())


def test_what_is_matched_is_observed_or_golden() -> None:
    problem = toy_problem(2, network=True)
    golden, settings = golden_of(problem), RdcConfig(cond_real="golden", minimum_golden=1)
    observed = [row.tolist() for row in observed_pools(problem)]
    assert [row.tolist() for row in real_pools(golden, problem, RdcConfig())] == observed
    assert [row.tolist() for row in real_pools(None, problem, settings)] == observed
    rows = real_pools(golden, problem, settings)
    assert [row.tolist() for row in rows] != observed
    assert all(bool((golden.labels[row] == label).all()) for label, row in enumerate(rows))


def test_losses_of_one_kind_keep_the_golden_set_and_are_still_summed() -> None:
    problem = toy_problem(2, network=True)
    assert problem.network is not None
    alike = {"images": torch.zeros_like(problem.images), "labels": torch.zeros_like(problem.labels)}
    flat = dataclasses.replace(problem, **alike)
    before = Mined.nothing(flat)
    after = before.refreshed(flat, problem.network.flatten(), RdcConfig())
    assert (after.refresh, after.golden) == (0, None)
    assert after.accumulated.sum() > 0
