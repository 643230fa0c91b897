"""RDC's contrast beside trajectory matching: where it acts, on what, and where it changes no bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.distill import METHODS
from ddnl_ray.distill.base import Problem, State
from ddnl_ray.distill.classwise import View
from ddnl_ray.distill.trajectory import TrajectoryState, matching_gradient
from ddnl_ray.robust import BASES, compose, golden_term, prepared_from
from ddnl_ray.robust.composition import ON_NETWORKS
from ddnl_ray.robust.contrast import contrast_within, golden_mixup_contrast
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc import contrast_gradient
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.rdc_experts import LEARNING
from ddnl_ray.robust.rdc_trajectory import GoldenTerm
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing.problems import CLASSES, NUM_EXPERTS, toy_problem

SEED = SeedTree.root(0)
MATCHING = {"syn_steps": 2, "expert_epochs": 2, "max_start_epoch": 3, "lr_img": 1.0, "lr_lr": 1e-5}
OWN: dict[str, dict[str, Any]] = {"datm": {"lr_y": 1.0}, "ftd": {"ema_decay": 0.9}, "att": {"ema_decay": 0.9}}
CONTRASTS = ("paper", "released", "supcon", "supcon_plain")
FAST = RdcConfig(views=2)


def golden_of(problem: Problem, expert: int = 0) -> Golden:
    """Return all but some images, which of them depends on the expert."""
    rows = torch.arange(len(problem.labels))
    member = rows % (expert + 3) > 0
    return Golden(problem.labels, member, torch.zeros_like(member), member.float())


def with_term(problem: Problem, config: RdcConfig = FAST) -> Problem:
    term = golden_term(config, [golden_of(problem, expert) for expert in range(NUM_EXPERTS)])
    return replace(problem, extra=term)


def method_of(name: str, **changes: Any) -> Any:
    kind = METHODS[name]
    return kind.method(kind.config(**(MATCHING | OWN.get(name, {}) | changes)))


def stepped(name: str, problem: Problem, steps: int = 3, **changes: Any) -> State:
    method = method_of(name, **changes)
    state = method.init(problem, SEED)
    for _ in range(steps):
        state, info = method.step(state, problem, SEED)
        assert info.accepted
    return state  # type: ignore[no-any-return]


def changed(one: State, two: State) -> set[str]:
    """Return the names of the tensors that differ."""
    first, second = one.tensors(), two.tensors()
    return {name for name in first if not torch.equal(first[name], second[name])}


# --- the term in a method --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_one_step_moves_the_images_otherwise_and_nothing_else(name: str) -> None:
    problem = toy_problem(2, experts=True)
    images = {"images", "velocity_images"} | ({"average"} if "ema_decay" in OWN.get(name, {}) else set())
    assert changed(stepped(name, problem, 1), stepped(name, with_term(problem), 1)) == images


@pytest.mark.parametrize("gmc", CONTRASTS)
@pytest.mark.parametrize("name", ["mtt", "datm"])
def test_the_gradient_is_that_of_matching_and_of_the_contrast(name: str, gmc: str) -> None:
    plain, config = toy_problem(2, experts=True), replace(FAST, gmc=gmc, gmc_weight=0.3)
    problem, method = with_term(plain, config), method_of(name)
    state: TrajectoryState = method.init(problem, SEED)
    state = replace(state, iteration=4)
    alone = matching_gradient(state, method.config, plain, 1, SEED)
    both = matching_gradient(state, method.config, problem, 1, SEED)
    assert torch.equal(both.loss, alone.loss)
    assert torch.equal(both.step_size, alone.step_size)
    assert (both.labels is None) if alone.labels is None else torch.equal(both.labels, alone.labels)  # type: ignore[arg-type]
    assert plain.experts is not None
    # The fifth iteration's expert, at the epoch where the segment starts.
    (expert,) = {
        index
        for index in range(NUM_EXPERTS)
        if torch.allclose(both.images, alone.images + contrast_by_hand(state, problem, index, 1, config))
    }
    assert 0 <= expert < NUM_EXPERTS


def contrast_by_hand(state: TrajectoryState, problem: Problem, expert: int, epoch: int, config: RdcConfig) -> Tensor:
    assert problem.experts is not None
    labels = state.labels.softmax(1) if state.labels.is_floating_point() else state.labels
    theta, seed = problem.experts.snapshot(expert, epoch), SEED.child("extra", state.iteration)
    golden = golden_of(problem, expert)
    return contrast_gradient(state.images, problem, theta, View(), golden, config, seed, labels)[1]


@pytest.mark.parametrize("changes", [{"gmc": "none"}, {"gmc_weight": 0.0}])
def test_without_contrast_there_is_no_term(changes: dict[str, Any]) -> None:
    assert golden_term(replace(FAST, **changes), []) is None


@pytest.mark.parametrize("gmc", CONTRASTS)
@pytest.mark.parametrize("name", ["mtt", "datm"])
def test_without_golden_samples_it_is_the_plain_method_bit_for_bit(name: str, gmc: str) -> None:
    problem = toy_problem(2, experts=True)
    golden = golden_of(problem)
    empty = replace(golden, member=torch.zeros_like(golden.member))
    term = GoldenTerm(replace(FAST, gmc=gmc), [empty] * NUM_EXPERTS)
    assert not changed(stepped(name, problem), stepped(name, replace(problem, extra=term)))


def test_a_guard_judges_matching_alone() -> None:
    """A contrast of thousands moves images; the matching loss, below the threshold, lets it."""
    problem = with_term(toy_problem(2, experts=True), replace(FAST, gmc_weight=1e3))
    method = method_of("datm", lr_img=1e-3, threshold=5.0)
    state = method.init(problem, SEED)
    _, info = method.step(state, problem, SEED)
    assert info.accepted
    assert info.loss < 5.0


def test_a_contrast_that_is_not_finite_is_refused() -> None:
    problem = toy_problem(2, experts=True)
    spoilt = replace(with_term(problem), images=torch.full_like(problem.images, torch.nan))
    method = method_of("mtt")
    state = method.init(problem, SEED)
    after, info = method.step(state, spoilt, SEED)
    assert not info.accepted
    assert torch.equal(after.images, state.images)


def test_every_iteration_has_draws_of_its_own_and_they_are_the_same_again() -> None:
    problem = with_term(toy_problem(2, experts=True))
    method = method_of("mtt")
    state = method.init(problem, SEED)
    turns = [
        problem.extra.gradient(state.images, state.labels, 0, problem.experts.snapshot(0, 1), problem, seed)  # type: ignore[union-attr]
        for seed in (SEED.child("extra", 0), SEED.child("extra", 0), SEED.child("extra", 1))
    ]
    assert torch.equal(turns[0], turns[1])
    assert not torch.equal(turns[0], turns[2])


# --- soft labels -----------------------------------------------------------------------------------------------------


def case() -> tuple[Problem, Tensor, Tensor, Tensor]:
    """Return a problem, weights, images and their classes, which do not lie class by class."""
    problem = toy_problem(2, experts=True)
    assert problem.experts is not None
    return problem, problem.experts.snapshot(0, 2), problem.images[3:10].clone(), torch.tensor([2, 0, 1, 1, 0, 2, 1])


@pytest.mark.parametrize("gmc", CONTRASTS)
def test_one_hot_probabilities_give_what_classes_give(gmc: str) -> None:
    problem, theta, images, labels = case()
    config, golden = replace(FAST, gmc=gmc), golden_of(problem)
    hard = contrast_gradient(images, problem, theta, View(), golden, config, SEED, labels)
    one_hot = F.one_hot(labels, CLASSES).float()
    soft = contrast_gradient(images, problem, theta, View(), golden, config, SEED, one_hot)
    torch.testing.assert_close(soft, hard)
    assert hard[1].abs().sum() > 0


@pytest.mark.parametrize("gmc", CONTRASTS)
def test_labels_class_by_class_are_the_default(gmc: str) -> None:
    problem, theta, _, _ = case()
    config, images = replace(FAST, gmc=gmc), problem.images[:6].clone()
    labels = torch.arange(CLASSES).repeat_interleave(2)
    given = contrast_gradient(images, problem, theta, View(2), golden_of(problem), config, SEED, labels)
    default = contrast_gradient(images, problem, theta, View(2), golden_of(problem), config, SEED)
    assert torch.equal(given[1], default[1])


def test_the_plain_contrast_of_soft_labels_by_hand() -> None:
    """``-mean_i sum_j w_ij log softmax_j / sum_j w_ij`` with w the inner products of the probabilities."""
    problem, theta, images, _ = case()
    assert problem.network is not None
    probabilities = torch.rand(7, CLASSES, generator=torch.Generator().manual_seed(0)).softmax(1)
    leaf = images.clone().requires_grad_()
    z = F.normalize(problem.network.outputs(theta, leaf).features, dim=1)
    logits = (z @ z.T / 0.2).masked_fill(torch.eye(7, dtype=torch.bool), -torch.inf)
    weights = (probabilities @ probabilities.T).fill_diagonal_(0)
    parts = weights * logits.log_softmax(1).masked_fill(torch.eye(7, dtype=torch.bool), 0)
    expected = -(parts.sum(1) / weights.sum(1)).mean()
    (slope,) = torch.autograd.grad(expected, leaf)
    config = RdcConfig(gmc="supcon_plain", temperature=0.2)
    found = contrast_gradient(images, problem, theta, View(), golden_of(problem), config, SEED, probabilities)
    torch.testing.assert_close(found, (expected.detach(), slope), rtol=1e-4, atol=1e-5)


def test_the_mixed_contrast_of_soft_labels_by_hand() -> None:
    """Without augmentation and with one golden image per class, all that is drawn is which class is the partner's."""
    problem, theta, images, _ = case()
    problem, images = replace(problem, augment=None), images[:4]
    assert problem.network is not None
    probabilities = torch.rand(4, CLASSES, generator=torch.Generator().manual_seed(0)).softmax(1)
    rows = torch.tensor([1, 2, 3])
    member = torch.zeros(24, dtype=torch.bool).index_fill(0, rows, True)
    golden = Golden(problem.labels, member, torch.zeros_like(member), member.float())
    found, _ = contrast_gradient(images, problem, theta, View(), golden, FAST, SEED, probabilities)

    def loss(partners: Tensor) -> float:
        real, one_hot = problem.images[rows[partners]], F.one_hot(problem.labels[rows[partners]], CLASSES).float()
        syn, mixed, gold = (
            problem.network.outputs(theta, each).features  # type: ignore[union-attr]
            for each in (images, 0.75 * images + 0.25 * real, real)
        )
        every = torch.arange(4)
        return float(golden_mixup_contrast(syn, mixed, gold, probabilities, one_hot, every, every).loss)

    losses = [loss(partners) for partners in torch.cartesian_prod(*[torch.arange(3)] * 4)]
    assert min(abs(each - float(found)) for each in losses) < 1e-5
    assert max(losses) - min(losses) > 0.1


def test_classes_without_images_are_passed_over() -> None:
    problem, theta, images, _ = case()
    labels = torch.zeros(7, dtype=torch.int64)
    for gmc in CONTRASTS:
        config = replace(FAST, gmc=gmc)
        loss, turn = contrast_gradient(images, problem, theta, View(), golden_of(problem), config, SEED, labels)
        assert bool(loss.isfinite())
        assert bool(turn.isfinite().all())


def test_hard_and_soft_contrast_within_agree() -> None:
    _, _, images, labels = case()
    one_hot = F.one_hot(labels, CLASSES).float()
    torch.testing.assert_close(
        contrast_within(images.flatten(1), one_hot), contrast_within(images.flatten(1), labels), rtol=1e-5, atol=1e-5
    )


# --- names and settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_the_composed_method_is_the_base(base: str) -> None:
    composition = compose(f"{base}+rdc")
    assert (composition.variant, composition.configs, composition.on_experts) == ("rdc", ("rdc",), True)
    own = MATCHING | OWN.get(base, {})
    assert type(composition.method(own | {"rdc.mixup": 0.6})) is METHODS[base].method
    assert composition.settings(own | {"rdc.mixup": 0.6}).value("rdc.mixup") == 0.6


def test_which_settings_experts_are_made_from() -> None:
    settings = [name for name in compose("datm+rdc").types if name.startswith("rdc.")]
    assert {name for name in settings if prepared_from("datm+rdc", name)} == {f"rdc.{name}" for name in LEARNING}
    late = {f"rdc.{name}" for name in ("gmc", "gmc_weight", "mixup", "temperature", "views", "max_anchors")}
    assert not any(prepared_from("mtt+rdc", name) for name in late | {"lr_img", "expert_epochs"})
    assert not any(prepared_from(f"{base}+rdc", name) for base in ON_NETWORKS for name in settings)
    assert prepared_from("datm+tiat", "expert_epochs")
    assert prepared_from("datm+tiat", "sgr.neighbours")
    assert not prepared_from("datm+tiat", "tiat.beta")
    assert prepared_from("datm+tad", "tad.top_k")
