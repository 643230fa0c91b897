"""TIAT: confidence, the reliable subset by each rule, and fine-tuned targets against a loop of torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, train_experts
from ddnl_ray.models import NetworkSpec, build
from ddnl_ray.robust.tiat import MIN_PER_CLASS, TiatConfig, confidence, fine_tune, reliable_subset
from ddnl_ray.seeds import SeedTree

CLASSES = 3
RECIPE = ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=3, batch_size=8, lr=0.1, augment=None)


def scores(num: int = 600, experts: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Prior [N], last weights [experts, N] and labels [N], without ties; the classes differ in size."""
    generator = torch.Generator().manual_seed(seed)
    prior = torch.rand(num, generator=generator, dtype=torch.float64)
    weights = torch.rand(experts, num, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (num,), generator=generator).clamp(max=CLASSES - 1)
    return prior, weights, labels


def chosen(prior: Tensor, weights: Tensor, labels: Tensor, **changes: Any) -> Tensor:
    rows = reliable_subset(prior, weights, labels, CLASSES, TiatConfig(**changes))
    assert rows.dtype == torch.int64
    assert rows.tolist() == sorted(set(rows.tolist()))
    return rows


# --- confidence ------------------------------------------------------------------------------------------------------


def test_confidence_by_hand() -> None:
    mean, variance = confidence(torch.tensor([[0.0, 0.2, 0.5], [1.0, 0.2, 0.7], [0.5, 0.2, 0.6]]))
    torch.testing.assert_close(mean, torch.tensor([0.5, 0.2, 0.6]))
    torch.testing.assert_close(variance, torch.tensor([1 / 6, 0.0, 0.02 / 3]))


def test_experts_on_the_ladder_vary_with_the_disagreement_of_the_scores() -> None:
    """W_p = (1 - a_p) prior + a_p agreement with one agreement for all: Var = var(a) (agreement - prior)^2."""
    prior, weights, _ = scores()
    agreement, ladder = weights[0], torch.arange(10, dtype=torch.float64) / 10
    mixed = (1 - ladder.unsqueeze(1)) * prior + ladder.unsqueeze(1) * agreement
    mean, variance = confidence(mixed)
    torch.testing.assert_close(variance, (100 - 1) / 12 / 100 * (agreement - prior).square())
    torch.testing.assert_close(mean, 0.55 * prior + 0.45 * agreement)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=9))
def test_confidence_is_bounded(weights: list[list[float]]) -> None:
    mean, variance = confidence(torch.tensor(weights, dtype=torch.float64))
    assert bool(((mean >= 0) & (mean <= 1 + 1e-12)).all())
    assert bool(((variance >= 0) & (variance <= 0.25 + 1e-12)).all())
    if len(weights) == 1:
        assert not variance.any()


# --- the rule quantile -----------------------------------------------------------------------------------------------


def bisected(prior: np.ndarray[Any, Any], variance: np.ndarray[Any, Any], share: float) -> set[int]:
    """The rule as it is written: one quantile q of both scores, halved until the two sets meet in the share."""

    def members(q: float) -> set[int]:
        trusted = prior >= np.quantile(prior, 1 - q, method="higher")
        stable = variance <= np.quantile(variance, q, method="lower")
        return set(np.flatnonzero(trusted & stable).tolist())

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if len(members(middle)) < share * len(prior) else (low, middle)
    return members(high)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.9])
def test_the_rule_quantile_is_a_bisection_over_one_quantile_of_both(share: float, seed: int) -> None:
    prior, weights, labels = scores(seed=seed)
    own = set(chosen(prior, weights, labels, subset=share, per_class=False).tolist())
    assert len(own) == round(share * 600)
    assert len(own ^ bisected(prior.numpy(), confidence(weights)[1].numpy(), share)) <= 1


@pytest.mark.parametrize("rule", ["quantile", "confidence"])
@pytest.mark.parametrize("share", [0.45, 0.5, 0.6, 0.7, 1.0])
def test_every_class_gives_its_share(rule: str, share: float) -> None:
    prior, weights, labels = scores()
    rows = chosen(prior * (1 + labels), weights, labels, subset=share, rule=rule)
    for label in range(CLASSES):
        size = int((labels == label).sum())
        assert abs(int((labels[rows] == label).sum()) - share * size) <= 1


@pytest.mark.parametrize("rule", ["quantile", "confidence"])
def test_all_images_at_once_follow_a_skew_of_the_scores(rule: str) -> None:
    prior, weights, labels = scores()
    rows = chosen(prior + 0.05 * labels, weights + 0.05 * labels, labels, subset=0.5, rule=rule, per_class=False)
    assert len(rows) == 300
    counts = labels[rows].bincount() / labels.bincount()
    assert float(counts[2] - counts[0]) > 0.03


def test_a_larger_subset_contains_a_smaller_one() -> None:
    inner: set[int] = set()
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        outer = set(chosen(*scores(), subset=share).tolist())
        assert inner < outer
        inner = outer
    assert len(inner) == 600


def test_an_image_that_is_worse_in_both_scores_comes_later() -> None:
    prior, weights, labels = scores()
    variance = confidence(weights)[1]
    rows = chosen(prior, weights, labels, subset=0.6)
    inside = torch.zeros(600, dtype=torch.bool)
    inside[rows] = True
    dominated = (prior.unsqueeze(1) > prior) & (variance.unsqueeze(1) < variance) & (labels.unsqueeze(1) == labels)
    assert int(dominated.sum()) > 1000
    assert not bool((dominated & ~inside.unsqueeze(1) & inside).any())


def test_one_expert_leaves_the_choice_to_the_prior() -> None:
    prior, weights, labels = scores()
    rows = chosen(prior, weights[:1], labels, subset=0.5, per_class=False)
    assert set(rows.tolist()) == set(prior.argsort(descending=True)[:300].tolist())


def test_images_of_one_prior_are_ranked_by_their_variance() -> None:
    _, weights, labels = scores()
    rows = chosen(torch.full((600,), 0.7), weights, labels, subset=0.5, per_class=False)
    assert set(rows.tolist()) == set(confidence(weights)[1].argsort()[:300].tolist())


# --- the other rules, and small classes ------------------------------------------------------------------------------


def test_the_rule_confidence_takes_the_highest_means() -> None:
    prior, weights, labels = scores()
    rows = chosen(prior, weights, labels, subset=0.5, rule="confidence", per_class=False)
    assert set(rows.tolist()) == set(weights.mean(0).argsort(descending=True)[:300].tolist())


def test_the_rule_thresholds_is_literal() -> None:
    prior, weights, labels = scores()
    variance = confidence(weights)[1]
    rows = chosen(prior, weights, labels, rule="thresholds", min_prior=0.4, max_variance=float(variance.median()))
    expected = (prior >= 0.4) & (variance <= variance.median())
    assert set(rows.tolist()) == set(expected.nonzero().squeeze(1).tolist())
    border = chosen(prior, weights, labels, rule="thresholds", min_prior=float(prior[7]), max_variance=1.0)
    assert 7 in border.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"subset": 0.01},
        {"subset": 0.01, "rule": "confidence", "per_class": False},
        {"rule": "thresholds", "min_prior": 2.0, "max_variance": 0.0},
    ],
)
def test_no_class_dies_out(changes: dict[str, Any]) -> None:
    prior, weights, _ = scores(130)
    labels = torch.where(torch.arange(130) < 4, 0, 1 + torch.arange(130) % 2)
    rows = chosen(prior, weights, labels, **changes)
    assert labels[rows].bincount().tolist() == [4, MIN_PER_CLASS, MIN_PER_CLASS]
    if "min_prior" in changes:
        for label in (1, 2):
            best = prior.where(labels == label, -1).argsort(descending=True)[:MIN_PER_CLASS]
            assert set(best.tolist()) == set(rows[labels[rows] == label].tolist())


@settings(max_examples=30)
@given(st.integers(1, 60), st.floats(0.01, 1), st.integers(0, 100))
def test_any_data_have_a_subset(num: int, share: float, seed: int) -> None:
    prior, weights, labels = scores(num, 2, seed)
    rows = chosen(prior, weights, labels, subset=share)
    for label in labels.unique().tolist():
        size = int((labels == label).sum())
        assert int((labels[rows] == label).sum()) == max(round(share * size), min(MIN_PER_CLASS, size))


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def images_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(22, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 3, (22,), generator=generator)


ROWS = torch.tensor([0, 3, 4, 8, 11, 15, 19])
SEEDS = [SeedTree.root(0).child("fine-tune", epoch) for epoch in range(3)]


def snapshots() -> Tensor:
    x, y = images_and_labels()
    return train_experts(x, y, 3, replace(RECIPE, epochs=2), [SeedTree.root(0).child("expert")])[0].snapshots


def reference(recipe: ExpertRecipe, start: Tensor, num_epochs: int, seed: SeedTree) -> Tensor:
    """SGD on passes over the subset, each in an order of its own, cut where an epoch over all images would end."""
    x, y = images_and_labels()
    model = build(recipe.network, (1, 8, 8), 3, torch.Generator()).double()
    nn.utils.vector_to_parameters(start.clone(), model.parameters())
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    for epoch in range(num_epochs):
        generator = seed.child("epoch", epoch).torch()
        passes = [ROWS[torch.randperm(len(ROWS), generator=generator)] for _ in range(4)]
        for batch in torch.cat(passes)[: len(x)].split(recipe.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("num_epochs", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "weight_decay": 0.01}])
def test_a_target_equals_a_loop_of_torch_over_the_subset(changes: dict[str, Any], num_epochs: int) -> None:
    starts, recipe = snapshots(), replace(RECIPE, **changes)
    before = starts.clone()
    found = fine_tune(*images_and_labels(), 3, recipe, starts, ROWS, num_epochs, SEEDS)
    assert torch.equal(starts, before)
    assert found.untyped_storage().data_ptr() != starts.untyped_storage().data_ptr()
    for own, start, seed in zip(found, starts, SEEDS, strict=True):
        expected = reference(recipe, start, num_epochs, seed)
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-10)
        assert float((own - start).norm()) > 0.01


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_targets_in_lock_step_are_those_that_are_tuned_alone(optimizer: str) -> None:
    x, y = images_and_labels()
    recipe = replace(RECIPE, optimizer=optimizer, augment="flip_crop_color")
    starts = snapshots()
    alone = fine_tune(x, y, 3, recipe, starts, ROWS, 2, SEEDS)
    for at_once in (2, 8):
        together = fine_tune(x, y, 3, recipe, starts, ROWS, 2, SEEDS, at_once)
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-10)


def test_gsam_is_the_optimizer_of_a_gsam_recipe() -> None:
    x, y = images_and_labels()
    starts = snapshots()
    flat = fine_tune(x, y, 3, replace(RECIPE, optimizer="gsam", rho=0.5), starts, ROWS, 1, SEEDS)
    plain = fine_tune(x, y, 3, RECIPE, starts, ROWS, 1, SEEDS)
    assert float((flat - plain).abs().max()) > 1e-4


def test_targets_depend_on_their_seeds_alone(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    x, y = images_and_labels()
    starts, recipe = snapshots(), replace(RECIPE, augment="color_crop_cutout_flip_scale_rotate")
    runs = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            runs.append(fine_tune(x, y, 3, recipe, starts, ROWS, 1, SEEDS))
    assert torch.equal(*runs)
    (last,) = fine_tune(x, y, 3, recipe, starts[2:], ROWS, 1, SEEDS[2:])
    assert torch.equal(last, runs[0][2])
    (other,) = fine_tune(x, y, 3, recipe, starts[2:], ROWS, 1, SEEDS[:1])
    assert not torch.equal(last, other)


def test_there_is_one_seed_per_snapshot() -> None:
    with pytest.raises(ValueError, match="3 snapshots need as many seeds, but got 2"):
        fine_tune(*images_and_labels(), 3, RECIPE, snapshots(), ROWS, 1, SEEDS[:2])


def test_images_outside_the_subset_are_not_read() -> None:
    x, y = images_and_labels()
    starts = snapshots()
    expected = fine_tune(x, y, 3, RECIPE, starts, ROWS, 1, SEEDS)
    spoilt, wrong = torch.full_like(x, math.nan), (y + 1) % 3
    spoilt[ROWS], wrong[ROWS] = x[ROWS], y[ROWS]
    assert torch.equal(fine_tune(spoilt, wrong, 3, RECIPE, starts, ROWS, 1, SEEDS), expected)


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 1.5}, r"beta must lie in \[0, 1\], but got 1.5"),
        ({"subset": 0.0}, r"subset must lie in \(0, 1\], but got 0.0"),
        ({"subset": math.nan}, r"subset must lie in \(0, 1\], but got nan"),
        ({"rule": "quantiles"}, "unknown rule 'quantiles': did you mean 'quantile'"),
        ({"lr": 0.0}, "lr must be above 0 or null, but got 0.0"),
        ({"rule": "thresholds", "min_prior": 0.5}, "rule thresholds needs a max_variance of 0 or more, but got None"),
        (
            {"rule": "thresholds", "min_prior": -1.0, "max_variance": 0.1},
            "rule thresholds needs a min_prior of 0 or more, but got -1.0; set it",
        ),
        ({"max_variance": 0.1}, "max_variance is for rule thresholds, but got 0.1 with rule quantile; drop it"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TiatConfig(**changes)
