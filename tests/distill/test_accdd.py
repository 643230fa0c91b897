"""Acc-DD: its contract, the perturbation, the starts of networks, their training, and what is stored and exported."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Normalise, Zca
from ddnl_ray.data.augment import DiffAug
from ddnl_ray.data.cutmix import CutMix
from ddnl_ray.distill import accdd
from ddnl_ray.distill.accdd import Accdd, AccddConfig, AccddState, direction, perturb
from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import View, observed_pools
from ddnl_ray.distill.gradients import SQUARED, matching_gradient
from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import CLASSES, WatchedExperts, toy_problem

SEED = SeedTree.root(0)
PIXELS = Normalise(torch.tensor([0.4]), torch.tensor([0.5]))
SMALL = {"batch_real": 4, "batch_syn_max": 6, "n_data": 8, "batch_train": 5, "lr_img": 1.0}


def small(**changes: object) -> AccddConfig:
    return AccddConfig(**(SMALL | changes))  # type: ignore[arg-type]


class TestAccdd(MethodContract):
    method = Accdd
    config = small(iterations=5, inner_loop=2)


class TestIdc(MethodContract):
    """From initial weights, without perturbation, and with pixels that are normalised."""

    method = Accdd
    config = small(
        iterations=3, inner_loop=2, start_epoch=0, perturbation_low=0.0, perturbation_high=0.0, match_augment=None,
        train_augment=None, cutmix=0.0, factor=1,
    )  # fmt: skip

    def problem(self, device: torch.device) -> Problem:
        return dataclasses.replace(super().problem(device), transform=PIXELS.to(device))


def pixel_problem(ipc: int = 2) -> Problem:
    """Return a problem whose images are normalised pixels in [0, 1]."""
    problem = toy_problem(ipc, experts=True)
    return dataclasses.replace(problem, images=PIXELS.apply(problem.images.sigmoid()), transform=PIXELS)


def run(config: AccddConfig, steps: int, problem: Problem | None = None) -> list[AccddState]:
    problem = problem or pixel_problem()
    method = Accdd(config)
    states = [method.init(problem, SEED)]
    for _ in range(steps):
        states.append(method.step(states[-1], problem, SEED)[0])
    return states


def network_of(problem: Problem) -> Flat:
    assert problem.network is not None
    return problem.network


def filters(network: Flat, theta: Tensor) -> dict[str, Tensor]:
    """Return the slices of every weight tensor with two dimensions or more, by name."""
    return {name: value.flatten(1) for name, value in network.unflatten(theta).items() if value.dim() > 1}


def double_theta(network: Flat) -> Tensor:
    return network.fresh(torch.Generator().manual_seed(0)).double()


def test_a_direction_has_the_norm_of_each_filter_and_leaves_biases() -> None:
    network = network_of(pixel_problem())
    theta = double_theta(network)
    found = direction(network, theta, torch.Generator().manual_seed(1))
    rows, weights = filters(network, found), filters(network, theta)
    assert sorted(rows) == ["blocks.0.conv.weight", "classifier.weight"]
    for name, weight in weights.items():
        torch.testing.assert_close(rows[name].norm(dim=1), weight.norm(dim=1), rtol=1e-8, atol=0)
    for name, value in network.unflatten(found).items():
        assert (name in rows) or not bool(value.any())


def test_a_direction_is_isotropic_within_a_filter() -> None:
    """The mean of many directions is 0, and each entry has its share of the norm."""
    network = network_of(pixel_problem())
    theta, generator = double_theta(network), torch.Generator().manual_seed(1)
    drawn = torch.stack([direction(network, theta, generator) for _ in range(2000)])
    rows = network.unflatten(drawn.square().mean(0))["blocks.0.conv.weight"].flatten(1)
    share = network.unflatten(theta)["blocks.0.conv.weight"].flatten(1).square().mean(1, keepdim=True)
    torch.testing.assert_close(rows, share.expand_as(rows), rtol=0.2, atol=0)
    assert float(drawn.mean(0).norm()) < 0.05 * float(theta.norm())


def test_a_perturbation_is_two_directions_with_signs_and_magnitudes_of_their_own() -> None:
    network = network_of(pixel_problem())
    theta = double_theta(network)
    signs = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        moved = perturb(network, theta, 0.01, 0.09, generator) - theta
        again = torch.Generator().manual_seed(seed)
        torch.rand(2, 2, generator=again, dtype=torch.float64)
        pair = torch.stack([direction(network, theta, again) for _ in range(2)], dim=1)
        factors = torch.linalg.lstsq(pair, moved.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(pair @ factors, moved, rtol=0, atol=1e-12)
        assert bool(((factors.abs() >= 0.01) & (factors.abs() <= 0.09)).all())
        a, b = factors.tolist()
        signs.add((a > 0, b > 0))
        for name, rows in filters(network, moved).items():
            relative = rows.norm(dim=1) / filters(network, theta)[name].norm(dim=1)
            assert bool((relative <= abs(a) + abs(b) + 1e-9).all())
            assert bool((relative >= abs(abs(a) - abs(b)) - 1e-9).all())
    assert signs == {(True, True), (True, False), (False, True), (False, False)}


def test_a_perturbation_of_fixed_magnitude_and_of_none() -> None:
    network = network_of(pixel_problem())
    theta = double_theta(network)
    same = [perturb(network, theta, 0.05, 0.05, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], perturb(network, theta, 0.05, 0.05, torch.Generator().manual_seed(4)))
    mean = torch.stack(
        [
            (perturb(network, theta, 0.05, 0.05, torch.Generator().manual_seed(seed)) - theta).square()
            for seed in range(300)
        ]
    ).mean(0)
    squares = {name: value.square().sum(1) for name, value in filters(network, theta).items()}
    for name, value in network.unflatten(mean).items():
        if name in squares:  # sqrt(a^2 + b^2) of the norm, in the mean
            torch.testing.assert_close(value.flatten(1).sum(1), 2 * 0.05**2 * squares[name], rtol=0.15, atol=0)
        else:
            assert not bool(value.any())
    assert torch.equal(perturb(network, theta, 0.0, 0.0, torch.Generator().manual_seed(3)), theta)


def test_a_filter_of_zeros_stays() -> None:
    network = network_of(pixel_problem())
    theta = torch.zeros(network.num_params)
    assert not bool(perturb(network, theta, 0.05, 0.09, torch.Generator().manual_seed(0)).any())


def test_every_outer_iteration_starts_from_an_early_network_without_momentum() -> None:
    problem = pixel_problem()
    assert problem.experts is not None
    config = small(inner_loop=3, start_epoch=4, perturbation_low=0.0, perturbation_high=0.0, n_data=0)
    states = run(config, 9, problem)
    early = [problem.experts.snapshot(expert, 4) for expert in range(len(problem.experts))]
    for state in states:
        assert any(torch.equal(state.theta, snapshot) for snapshot in early)
    assert all(torch.equal(states[1].theta, states[step].theta) for step in (2, 3))
    learning = run(small(inner_loop=3), 6, problem)
    assert [bool(state.velocity.any()) for state in learning] == [False] + [True] * 6
    seen = []
    method = Accdd(small(inner_loop=3))
    object.__setattr__(method, "_learn", lambda state, problem, seed: (seen.append(state), state)[1])
    method.step(dataclasses.replace(learning[3]), problem, SEED)
    method.step(dataclasses.replace(learning[4]), problem, SEED)
    assert [bool(state.velocity.any()) for state in seen] == [False, True]
    assert not torch.equal(seen[0].theta, learning[3].theta)
    assert torch.equal(seen[1].theta, learning[4].theta)


def test_all_experts_are_started_from_and_none_beyond() -> None:
    problem = pixel_problem()
    assert problem.experts is not None
    config = small(start_epoch=1, perturbation_low=0.0, perturbation_high=0.0)
    early = [problem.experts.snapshot(expert, 1) for expert in range(3)]
    drawn = [accdd._early_network(config, problem, SEED.child(turn)) for turn in range(60)]
    counts = [sum(torch.equal(theta, snapshot) for theta in drawn) for snapshot in early]
    assert sum(counts) == 60
    assert min(counts) >= 8


def test_each_start_is_perturbed_anew() -> None:
    problem = pixel_problem()
    assert problem.experts is not None
    watched = WatchedExperts(problem.experts)
    problem = dataclasses.replace(problem, experts=watched)
    drawn = [accdd._early_network(small(), problem, SEED.child(turn)) for turn in range(8)]
    assert len({tuple(theta.tolist()) for theta in drawn}) == 8
    assert watched.epochs == {2}
    starts = run(small(inner_loop=2, n_data=0), 8, problem)
    assert len({tuple(state.theta.tolist()) for state in starts}) == 4


def test_images_move_by_the_scaled_rate_of_the_joint_step() -> None:
    problem = pixel_problem()
    config = small(inner_loop=9, lr_img=3.0, momentum=0.5)
    before, after = run(config, 1, problem)
    view, augment = View(2, PIXELS, 6), DiffAug("color_crop_cutout")
    args = (view, SQUARED, augment, observed_pools(problem), 4, SEED.child("step", 0).child("match"))
    _, gradient = matching_gradient(before.images, problem, before.theta, *args)
    rate = 3.0 * (2 / 10) * (8 / 32) ** 2 * 2
    assert config.rate(2, 8) == pytest.approx(rate)
    torch.testing.assert_close(after.images, before.images - rate * gradient)
    assert [AccddConfig(lr_img=0.005).rate(ipc, 32) for ipc in (1, 10, 50)] == pytest.approx([1e-3, 1e-2, 5e-2])
    assert AccddConfig(momentum=0.0).rate(10, 64) == pytest.approx(0.04)


def one_batch_step(config: AccddConfig, problem: Problem, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the weights that torch reaches from the first network, on given batches of images and probabilities."""
    network, start = network_of(problem), Accdd(config).init(problem, SEED).theta
    module = copy.deepcopy(network.module)
    for parameter, value in zip(module.parameters(), network.unflatten(start).values(), strict=True):
        parameter.data.copy_(value)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for images, targets in batches:
        optimizer.zero_grad()
        F.cross_entropy(module(images), targets).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_the_network_learns_from_real_images_as_torch_teaches_it() -> None:
    """Two batches of a shuffled training set, and two more, of which the last is short, after the second update."""
    problem = pixel_problem()
    config = small(n_data=20, batch_train=12, lr_net=0.1, train_augment=None, cutmix=0.0, inner_loop=9)
    states, batches = run(config, 2, problem), []
    for step in range(2):
        order = torch.randperm(24, generator=SEED.child("step", step).child("learn").torch())
        batches += [(problem.images[rows], problem.labels[rows]) for rows in order.split(12)]
    expected = one_batch_step(config, problem, batches)
    torch.testing.assert_close(states[2].theta, expected, rtol=1e-4, atol=1e-5)


def test_images_are_augmented_and_then_mixed_with_the_labels_of_both() -> None:
    problem = pixel_problem()
    config = small(n_data=24, batch_train=6, lr_net=0.1, train_augment="color_crop", cutmix=0.5, inner_loop=9)
    generator, batches, mixed = SEED.child("step", 0).child("learn").torch(), [], 0
    for rows in torch.randperm(24, generator=generator).split(6):
        images = DiffAug("color_crop")(problem.images[rows], generator)
        targets = F.one_hot(problem.labels[rows], CLASSES).float()
        draw = CutMix(0.5).draw(generator, 6, 8, "cpu")
        if draw is not None:
            mixed += 1
            images = CutMix(0.5).apply(images, draw)
            targets = draw.own * targets + (1 - draw.own) * targets[draw.order]
        batches.append((images, targets))
    assert 0 < mixed < 4
    torch.testing.assert_close(
        run(config, 1, problem)[1].theta, one_batch_step(config, problem, batches), rtol=1e-4, atol=1e-5
    )


def test_the_network_learns_from_full_batches_of_as_many_images_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    taught = accdd.slope

    def watched(network: Flat, theta: Tensor, images: Tensor, labels: Tensor, smaller: int) -> object:
        sizes.append(len(images))
        return taught(network, theta, images, labels, smaller)

    monkeypatch.setattr(accdd, "slope", watched)
    for n_data, batch, expected in ((8, 5, [5, 5]), (10, 5, [5, 5]), (99, 10, [10, 10, 4]), (0, 5, [])):
        sizes.clear()
        run(small(n_data=n_data, batch_train=batch), 1)
        assert sizes == expected


def test_images_are_clamped_when_an_outer_iteration_starts_and_not_between() -> None:
    states = run(small(inner_loop=2, lr_img=1e4, n_data=0), 3)
    outside = [bool(((state.images < 0) | (state.images > 1)).any()) for state in states]
    assert outside == [False, True, True, True]
    problem = pixel_problem()
    method = Accdd(small(inner_loop=2, lr_img=1e-30, n_data=0))
    for iteration, clamped in ((1, False), (2, True)):
        state = dataclasses.replace(states[1], iteration=iteration)
        after, info = method.step(state, problem, SEED)
        assert info.accepted
        expected = state.images.clamp(0, 1) if clamped else state.images
        torch.testing.assert_close(after.images, expected, rtol=0, atol=1e-25)


def test_first_images_hold_nearest_pixels_of_real_images_of_their_class() -> None:
    problem = pixel_problem()
    images = run(small(), 0, problem)[0].images
    pixels = PIXELS.invert(problem.images)
    for place, stored in enumerate(images):
        own = pixels[problem.labels == place // 2][:, :, ::2, ::2]
        for row, column in ((0, 0), (0, 4), (4, 0), (4, 4)):
            crop = stored[:, row : row + 4, column : column + 4]
            assert min(float((crop - each).abs().max()) for each in own) < 1e-5


@pytest.mark.parametrize("transform", [None, PIXELS, Zca.fit(torch.rand(200, 1, 8, 8))])
def test_the_set_is_exported_as_networks_see_it(transform: Normalise | Zca | None) -> None:
    problem = dataclasses.replace(pixel_problem(), transform=transform)
    if transform is None:
        problem = dataclasses.replace(problem, images=PIXELS.invert(problem.images))
    method = Accdd(small())
    state = method.init(problem, SEED)
    state = dataclasses.replace(state, images=state.images * 3 - 1)
    found = method.export(state, problem)
    pixels = state.images.clamp(0, 1)
    torch.testing.assert_close(found.images, pixels if transform is None else transform.apply(pixels))
    assert found.images.shape == (CLASSES * 2, 1, 8, 8)
    assert found.decoded().images.shape == (CLASSES * 8, 1, 8, 8)
    assert found.decoded().labels.bincount().tolist() == [8] * CLASSES
    torch.testing.assert_close(found.decoded().images, View(2, transform).decoded(pixels))


class Steered(Accdd):
    """A variant that overrides all seams, and notes in which order they are used."""

    def _start(self, state: AccddState, problem: Problem, seed: SeedTree) -> AccddState:
        assert 0 <= float(state.images.min()) <= float(state.images.max()) <= 1
        calls.append(("start", state.iteration))
        return state

    def _pools(self, state: AccddState, problem: Problem) -> list[Tensor]:
        calls.append(("pools", state.iteration))
        return [rows[:2] for rows in observed_pools(problem)]

    def _extra(self, state: AccddState, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor]:
        calls.append(("extra", state.iteration))
        return torch.tensor(1000.0), torch.full_like(state.images, 2.0)

    def _learn(self, state: AccddState, problem: Problem, seed: SeedTree) -> AccddState:
        calls.append(("learn", state.iteration))
        return dataclasses.replace(state, theta=state.theta + 1)


calls: list[tuple[str, int]] = []


def test_a_variant_steers_starts_pools_a_further_term_and_learning() -> None:
    calls.clear()
    problem, config = pixel_problem(), small(inner_loop=2)
    method = Steered(config)
    first = method.init(problem, SEED)
    state, info = method.step(first, problem, SEED)
    method.step(state, problem, SEED)
    rest = ["pools", "extra", "learn"]
    assert calls == [("start", 0), *((name, 0) for name in rest), *((name, 1) for name in rest)]
    args = (View(2, PIXELS, 6), SQUARED, DiffAug("color_crop_cutout"))
    pools, seed = [rows[:2] for rows in observed_pools(problem)], SEED.child("step", 0).child("match")
    loss, gradient = matching_gradient(first.images, problem, first.theta, *args, pools, 4, seed)
    assert info.loss == pytest.approx(float(loss) + 1000)
    torch.testing.assert_close(state.images, first.images - config.rate(2, 8) * (gradient + 2))
    torch.testing.assert_close(state.theta, first.theta + 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"inner_loop": 0},
        {"start_epoch": -1},
        {"perturbation_low": 0.2},
        {"perturbation_high": float("inf")},
        {"batch_syn_max": 0},
        {"n_data": -1},
        {"lr_net": 0.0},
        {"net_momentum": 1.0},
        {"cutmix": 1.5},
    ],
)
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        AccddConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["match_augment", "train_augment"])
def test_an_unknown_operation_is_named_with_its_setting(name: str) -> None:
    with pytest.raises(RequestError, match=rf"{name}.*twirl"):
        AccddConfig(**{name: "color_twirl"})  # type: ignore[arg-type]
