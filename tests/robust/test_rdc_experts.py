"""Experts with golden sets: the limits in which they are plain ones, their steps, their mining, and stop and go."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import PrepareConfig, PreparedData, load, prepare
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import BufferId, ExpertRecipe, ExpertStore, TrainingState, build_experts, training_labels
from ddnl_ray.experts.gsam import gsam_direction
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise
from ddnl_ray.robust import Inputs
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.preparation import build_buffer
from ddnl_ray.robust.rdc import Mined
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.rdc_experts import GoldenSets, GoldenSource, learn_on, mining_problem, replayed
from ddnl_ray.robust.semi import draw_batch, semi_supervised_loss
from ddnl_ray.robust.stages import snapshots
from ddnl_ray.seeds import SeedTree

RECIPE = ExpertRecipe(network=NetworkSpec("convnet1", 4), epochs=5, batch_size=40, lr=0.05, momentum=0.5, augment=None)
FAST: dict[str, Any] = {"warm_up": 2, "labelled_batch": 16, "unlabelled_batch": 16, "flip": False, "restarts": 1}
CONFIG = RdcConfig(**FAST)


@pytest.fixture(scope="module")
def digits() -> PreparedData:
    """160 digits."""
    return prepare(load("digits"), PrepareConfig(subset=200, test_subset=50, val_fraction=0.2))


@pytest.fixture(scope="module")
def labels(digits: PreparedData) -> NoisyLabels:
    """Labels of which two fifths are wrong."""
    noise = NoiseConfig("symmetric", rate=0.4)
    observed = digits.observed_labels
    return apply_noise(noise, observed, dataset="digits", num_classes=10, seed=0, clean=digits.clean_labels)


def buffer_of(config: RdcConfig | None, dtype: str = "float32", **changes: Any) -> BufferId:
    policy = GoldenSource(config) if config is not None else None
    return BufferId("data", "labels", dataclasses.replace(RECIPE, **changes), 0, dtype, policy)


Build = Callable[..., tuple[ExpertStore, BufferId]]


@pytest.fixture
def build(digits: PreparedData, labels: NoisyLabels, tmp_path: Path) -> Build:
    """Make two experts, one after the other, in a store of its own, in stages that end at the given epochs."""

    def make(name: str, *ends: int, config: RdcConfig = CONFIG, **changes: Any) -> tuple[ExpertStore, BufferId]:
        store, buffer = ExpertStore(tmp_path / name), buffer_of(config, **changes)
        for end, index in itertools.product(ends, range(2)):
            build_buffer(digits, labels, buffer, [index], end, store)
        return store, buffer

    return make


@pytest.fixture
def plain(digits: PreparedData, labels: NoisyLabels, tmp_path: Path) -> tuple[ExpertStore, BufferId]:
    """Two plain experts."""
    store, buffer = ExpertStore(tmp_path / "plain"), buffer_of(None)
    for index in range(2):
        build_experts(digits, labels, buffer, [index], 5, store)
    return store, buffer


def all_of(made: tuple[ExpertStore, BufferId], last: int = 5) -> Tensor:
    """Return the snapshots of both experts [2, epochs, P]."""
    return torch.stack([torch.stack(snapshots(*made, index, list(range(last + 1)))) for index in range(2)])


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm_up", [5, 9])
def test_an_expert_that_only_warms_up_is_the_plain_one_bit_for_bit(
    build: Build, plain: tuple[ExpertStore, BufferId], warm_up: int
) -> None:
    warm = build("warm", 5, config=dataclasses.replace(CONFIG, warm_up=warm_up))
    assert torch.equal(all_of(warm), all_of(plain))
    assert warm[1].key != plain[1].key


def test_the_warm_up_is_plain_and_what_follows_is_not(build: Build, plain: tuple[ExpertStore, BufferId]) -> None:
    same = (all_of(build("golden", 5)) == all_of(plain)).all(dim=2)
    assert same.tolist() == [[True, True, True, False, False, False]] * 2


def test_without_a_golden_set_the_warm_up_goes_on(
    build: Build, plain: tuple[ExpertStore, BufferId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnl_ray.robust.rdc.split", lambda *arguments: None)
    assert torch.equal(all_of(build("golden", 5)), all_of(plain))


# --- stop and go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "gsam", "rho": 0.05}, {"dtype": "bfloat16"}, {"momentum": 0.0, "weight_decay": 0.01}],
    ids=str,
)
def test_training_stops_after_any_epoch_and_goes_on_bit_for_bit(build: Build, changes: dict[str, Any]) -> None:
    whole = all_of(build("whole", 5, **changes))
    assert torch.equal(all_of(build("in parts", 1, 3, 4, 5, **changes)), whole)
    assert torch.equal(all_of(build("at the border", 2, 5, **changes)), whole)


def test_what_is_stored_is_not_trained_again(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build("golden", 5)
    before = all_of(made)

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr("ddnl_ray.robust.rdc_experts.learn_on", fail)
    monkeypatch.setattr("ddnl_ray.experts.build.train_experts", fail)
    assert torch.equal(all_of(build("golden", 3, 5)), before)


def test_every_expert_has_draws_of_its_own_whoever_is_warmed_up_beside(
    digits: PreparedData,
    labels: NoisyLabels,
    build: Build,
    tmp_path: Path,
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    with global_random_untouched(1):
        alone = all_of(build("alone", 4), 4)
    assert not torch.equal(alone[0], alone[1])
    store, buffer = ExpertStore(tmp_path / "together"), buffer_of(CONFIG)
    with global_random_untouched(2):
        build_buffer(digits, labels, buffer, [0, 1], 4, store)
    torch.testing.assert_close(all_of((store, buffer), 4), alone, rtol=1e-4, atol=1e-5)


# --- mining ----------------------------------------------------------------------------------------------------------


def mined_by_hand(made: tuple[ExpertStore, BufferId], problem: Any, last: int, config: RdcConfig) -> Mined:
    mined = Mined.nothing(problem)
    for epoch in range(max(config.warm_up, 1), last + 1):
        mined = mined.refreshed(problem, snapshots(*made, 0, [epoch])[0], config)
    return mined


def same_mined(one: Mined, two: Mined) -> bool:
    names = ("accumulated", "golden_labels", "golden_member", "golden_relabelled", "golden_weight")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


@pytest.mark.parametrize("warm_up", [0, 2])
def test_what_is_replayed_is_what_refreshing_after_every_epoch_gives(
    digits: PreparedData, labels: NoisyLabels, build: Build, warm_up: int
) -> None:
    config = dataclasses.replace(CONFIG, warm_up=warm_up, confidence=0.5)
    made = build("golden", 5, config=config)
    problem = mining_problem(digits.train_images, training_labels(digits, labels), 10, RECIPE)
    for last in range(6):
        found = replayed(problem, lambda epoch: snapshots(*made, 0, [epoch])[0], last, config)
        expected = mined_by_hand(made, problem, last, config)
        assert same_mined(found, expected)
        assert (found.golden is None) == (expected.golden is None) == (last < max(warm_up, 1))


def test_where_the_last_mixtures_tell_nothing_apart_the_set_before_is_replayed(
    digits: PreparedData, labels: NoisyLabels, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddnl_ray.robust.golden import split

    made = build("golden", 5)
    problem = mining_problem(digits.train_images, training_labels(digits, labels), 10, RECIPE)
    limit = float(mined_by_hand(made, problem, 3, CONFIG).accumulated.sum())
    monkeypatch.setattr(
        "ddnl_ray.robust.rdc.split", lambda sums, restarts: split(sums, restarts) if sums.sum() <= limit else None
    )
    expected = mined_by_hand(made, problem, 5, CONFIG)
    assert expected.refresh == 2
    assert same_mined(replayed(problem, lambda epoch: snapshots(*made, 0, [epoch])[0], 5, CONFIG), expected)


def test_the_golden_sets_are_those_at_the_end_of_every_expert(
    digits: PreparedData, labels: NoisyLabels, build: Build, tmp_path: Path
) -> None:
    store, buffer = build("golden", 5)
    observed = training_labels(digits, labels)
    derived = GoldenSets(buffer, 2, CONFIG)
    derived.build(Inputs(digits, observed, store))
    problem = mining_problem(digits.train_images, observed, 10, RECIPE)
    found = derived.sets(store.root, "cpu")
    assert len(found) == 2
    expected = mined_by_hand((store, buffer), problem, 5, CONFIG).golden
    assert expected is not None
    for field in dataclasses.fields(Golden):
        assert torch.equal(getattr(found[0], field.name), getattr(expected, field.name))
    assert found[0].member.tolist() != found[1].member.tolist()
    assert torch.equal(found[0].labels[~found[0].member], observed[~found[0].member])


def test_an_expert_that_ends_before_the_warm_up_has_no_golden_sample(
    digits: PreparedData, labels: NoisyLabels, build: Build
) -> None:
    config = dataclasses.replace(CONFIG, warm_up=9)
    store, buffer = build("warm", 5, config=config)
    derived = GoldenSets(buffer, 2, config)
    derived.build(Inputs(digits, training_labels(digits, labels), store))
    assert not any(bool(golden.member.any()) for golden in derived.sets(store.root, "cpu"))


def test_names_depend_on_what_they_are_made_of() -> None:
    def keys(**changes: Any) -> tuple[str, str]:
        config = RdcConfig(**(FAST | changes))
        buffer = buffer_of(config)
        return buffer.key, GoldenSets(buffer, 2, config).key

    base = keys()
    assert keys(gmc="none", gmc_weight=3.0, mixup=0.5, temperature=0.2, views=1, cond_real="golden") == base
    for changes in ({"warm_up": 3}, {"ssl": "released"}, {"confidence": 0.9}, {"unlabelled_weight": 1.0}):
        assert not set(keys(**changes)) & set(base)
    plain = [GoldenSets(buffer_of(None), 2, RdcConfig(confidence=value)).key for value in (0.9, 0.95)]
    assert plain[0] != plain[1]
    longer = GoldenSets(buffer_of(CONFIG, epochs=6), 2, CONFIG)
    assert longer.experts.key == base[0]
    assert longer.key != base[1] != GoldenSets(buffer_of(CONFIG), 3, CONFIG).key


def test_the_work_of_an_expert_in_plain_epochs() -> None:
    source = GoldenSource(RdcConfig(warm_up=2, labelled_batch=30, unlabelled_batch=15))
    assert source.plain_epochs(0, 2, 60) == 2
    step = 3 * 30 + 2 * 15 + 2 * 45 / 3
    assert source.plain_epochs(0, 5, 60) == pytest.approx(2 + 3 * (step / 60 + 1 / 3))
    assert source.plain_epochs(4, 5, 60) == pytest.approx(step / 60 + 1 / 3)
    released = GoldenSource(RdcConfig(warm_up=2, labelled_batch=30, unlabelled_batch=30, ssl="released"))
    assert released.plain_epochs(1, 3, 60) == pytest.approx(1 + 30 / 60 + 1 / 3)


# --- steps -----------------------------------------------------------------------------------------------------------


def started(digits: PreparedData, labels: NoisyLabels) -> tuple[Any, TrainingState, Mined]:
    """Return a problem, a state after two epochs and a golden set of the right labels of half the images, float64."""
    images = digits.train_images.double()
    observed = training_labels(digits, labels)
    problem = mining_problem(images, observed, 10, RECIPE)
    assert problem.network is not None
    weights = problem.network.flatten().double()
    member = torch.arange(len(images)) % 2 == 0
    member_labels = torch.where(member, digits.clean_labels[digits.train_index], observed)  # type: ignore[index]
    nobody = torch.zeros_like(member)
    mined = Mined(1, torch.zeros(len(images)).double(), member_labels, member, nobody, member.float())
    return problem, TrainingState(2, weights, torch.zeros_like(weights)), mined


@pytest.mark.parametrize("ssl", ["dividemix1", "released"])
@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_an_epoch_is_a_loop_of_torch_over_the_loss(
    digits: PreparedData, labels: NoisyLabels, ssl: str, optimizer: str
) -> None:
    problem, start, mined = started(digits, labels)
    config = RdcConfig(**(FAST | {"ssl": ssl}))
    recipe = dataclasses.replace(RECIPE, epochs=3, optimizer=optimizer, rho=0.2, alpha=0.4, weight_decay=0.01)
    seed = SeedTree.root(3)
    found = learn_on(problem, recipe, seed, start, mined, config)
    theta = start.weights.clone()
    leaf = torch.nn.Parameter(theta.clone())
    sgd = torch.optim.SGD([leaf], lr=0.05, momentum=0.5, weight_decay=0.01)
    golden, losses = mined.golden, []
    assert golden is not None
    for step in range(4):  # 160 images in batches of 40
        own = seed.child("golden", 2, step)
        batch = draw_batch(golden, 16, 16, own.child("batch").torch())
        guide = leaf.detach().clone()

        def slope(weights: Tensor, batch: Any = batch, own: Any = own, step: int = step, guide: Tensor = guide) -> Any:
            at = weights.detach().clone().requires_grad_()
            arguments = (problem.images, golden, batch, 2 + step / 4, config, own.child("loss"), guide)
            loss = semi_supervised_loss(problem.network, at, *arguments)
            return loss.detach(), torch.autograd.grad(loss, at)[0]

        loss, leaf.grad = slope(guide) if optimizer == "sgd" else gsam_direction(slope, guide, 0.2, 0.4)
        losses.append(float(loss))
        sgd.step()
    torch.testing.assert_close(found.snapshots[-1], leaf.detach(), rtol=1e-9, atol=1e-10)
    assert found.losses == pytest.approx([sum(losses) / 4])
    assert (found.first_epoch, len(found.snapshots)) == (3, 1)


def test_refined_labels_of_a_teacher_are_those_of_its_weights(digits: PreparedData, labels: NoisyLabels) -> None:
    problem, start, mined = started(digits, labels)
    golden = dataclasses.replace(mined.golden, weight=0.3 * mined.golden_weight)  # type: ignore[type-var]
    batch = draw_batch(golden, 16, 16, SeedTree.root(0).torch())
    arguments = (problem.images, golden, batch, 9.0, CONFIG, SeedTree.root(1))
    theta = start.weights
    alone = semi_supervised_loss(problem.network, theta, *arguments)
    assert torch.equal(semi_supervised_loss(problem.network, theta, *arguments, teacher=theta), alone)
    assert not torch.equal(semi_supervised_loss(problem.network, theta, *arguments, teacher=1.5 * theta), alone)


def test_a_bfloat16_expert_computes_in_rounded_numbers(digits: PreparedData, labels: NoisyLabels) -> None:
    problem, start, mined = started(digits, labels)
    ends = []
    for precision in ("float32", "bfloat16"):
        recipe = dataclasses.replace(RECIPE, epochs=3, precision=precision)
        ends.append(learn_on(problem, recipe, SeedTree.root(0), start, mined, CONFIG).snapshots[-1])
    moved = (ends[0] - start.weights).norm()
    assert 1e-4 < float((ends[1] - ends[0]).norm() / moved) < 0.1


@pytest.mark.parametrize("ssl", ["dividemix1", "released"])
def test_experts_learn_more_from_right_golden_labels_than_from_observed_ones(
    digits: PreparedData, labels: NoisyLabels, monkeypatch: pytest.MonkeyPatch, ssl: str
) -> None:
    monkeypatch.setattr("ddnl_ray.robust.rdc.split", lambda *arguments: None)  # the set stays what it is
    problem, start, mined = started(digits, labels)
    recipe = dataclasses.replace(RECIPE, epochs=22, lr=0.1, momentum=0.9)
    found = []
    for known in (mined, Mined.nothing(problem)):
        trained = learn_on(problem, recipe, SeedTree.root(0), start, known, RdcConfig(**(FAST | {"ssl": ssl})))
        logits = problem.network(trained.snapshots[-1], digits.test_images.double())
        found.append(float((logits.argmax(1) == digits.test_labels).double().mean()))
    assert found[0] > found[1] + 0.1


def test_divergence_is_refused(digits: PreparedData, labels: NoisyLabels) -> None:
    problem, start, mined = started(digits, labels)
    recipe = dataclasses.replace(RECIPE, epochs=6, lr=1e30)
    with pytest.raises(RequestError, match=r"an expert diverged in epoch [34] .*lower experts.lr"):
        learn_on(problem, recipe, SeedTree.root(0), start, mined, CONFIG)
