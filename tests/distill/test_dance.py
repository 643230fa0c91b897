"""DANCE: its contract, and one iteration by hand in float64, one class after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Normalise
from ddnl_ray.data.augment import DiffAug
from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import Terms, View, class_gradient, draw_rows, observed_pools
from ddnl_ray.distill.dance import Dance, DanceConfig, DanceState, interpolated
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import CLASSES, EPOCHS, NUM_EXPERTS, toy_problem

SEED = SeedTree.root(0)
SMALL: dict[str, Any] = {"iterations": 3, "batch_real": 4, "batch_syn_max": 5}
MEAN, STD = 0.5, 0.2


def normalised(device: torch.device | str = "cpu") -> Normalise:
    return Normalise(torch.tensor([MEAN], device=device), torch.tensor([STD], device=device))


def pixel_problem(ipc: int = 2, **changes: Any) -> Problem:
    return dataclasses.replace(toy_problem(ipc, experts=True), **({"transform": normalised()} | changes))


def double_problem(**changes: Any) -> Problem:
    problem = pixel_problem(**changes)
    assert problem.network is not None
    problem.network.module.double()
    return dataclasses.replace(problem, images=problem.images.double())


class TestDance(MethodContract):
    method = Dance
    config = DanceConfig(**SMALL)

    def problem(self, device: torch.device) -> Problem:
        problem = super().problem(device)
        return dataclasses.replace(problem, transform=normalised(device))


def quarters(stored: Tensor) -> Tensor:
    """Return the four quarters of 8 x 8 images [n, 1, 8, 8], row by row, each enlarged [4 * n, 1, 8, 8]."""
    cut = [
        image[None, :, row : row + 4, column : column + 4] for image in stored for row in (0, 4) for column in (0, 4)
    ]
    return F.interpolate(torch.cat(cut), size=8, mode="bilinear", align_corners=False)


def moved(
    problem: Problem, config: DanceConfig, pixels: Tensor, theta: Tensor, calibrates: bool, source: SeedTree
) -> tuple[Tensor, Tensor]:
    """Return the pixels after one view, and its loss, from the random numbers of ``source``."""
    network, generator = problem.network, source.torch()
    assert network is not None
    assert config.match_augment is not None
    augment = DiffAug(config.match_augment)
    rows = None if calibrates else draw_rows(observed_pools(problem), config.batch_real, generator)
    draws = [augment.draw(generator, 1, 8, "cpu", siamese=True) for _ in range(CLASSES)]
    available = 4 * len(pixels) // CLASSES
    picks = [torch.arange(available)] * CLASSES
    if available > config.batch_syn_max:
        picks = [torch.randperm(available, generator=generator)[: config.batch_syn_max] for _ in range(CLASSES)]
    leaf, total = pixels.clone().requires_grad_(), pixels.new_zeros(())
    for label, own in enumerate(leaf.chunk(CLASSES)):
        images = (quarters(own)[picks[label]] - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
        found = network.outputs(theta, augment.apply(images, draws[label]))
        if rows is None:
            total = total - config.calib_weight * found.logits.log_softmax(1)[:, label].mean()
        else:
            real = network.outputs(theta, augment.apply(problem.images[rows[label]], draws[label]))
            total = total + (found.embedding.mean(0) - real.embedding.mean(0)).square().sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    authors_rate = config.lr_img * (len(pixels) / CLASSES) / 10
    return pixels - 2 * authors_rate * gradient, total.detach()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_syn_max": 8},
        {"iter_calib": 3, "calib_weight": 0.5},
        {"match_augment": "flip_color_crop_scale_rotate_cutout", "batch_real": 99},
    ],
)
def test_an_iteration_matches_and_then_calibrates_the_moved_images(changes: dict[str, Any]) -> None:
    config, problem = DanceConfig(**(SMALL | {"lr_img": 0.3} | changes)), double_problem()
    assert problem.experts is not None
    method = Dance(config)
    given = DanceState(7, 0.3 * torch.randn(CLASSES * 2, 1, 8, 8, generator=SEED.torch()).double() + 0.5)
    after, info = method.step(given, problem, SEED)
    own = SEED.child("step", 7)
    generator = own.child("expert").torch()
    expert = int(torch.randint(NUM_EXPERTS, (), generator=generator))
    share = torch.rand((), generator=generator, dtype=torch.float64)
    first, last = (problem.experts.snapshot(expert, epoch).double() for epoch in (0, EPOCHS))
    pixels = given.images.clamp(0, 1)
    pixels, loss = moved(problem, config, pixels, share * first + (1 - share) * last, False, own.child("match"))
    for turn in range(config.iter_calib):
        pixels, value = moved(problem, config, pixels, last, True, own.child("calibrate", turn))
        loss = loss + value
    torch.testing.assert_close(after.images, pixels, rtol=1e-9, atol=1e-11)
    assert info.loss == pytest.approx(float(loss), rel=1e-9)
    assert (after.images - given.images.clamp(0, 1)).abs().max() > 1e-3


@pytest.mark.parametrize("changes", [{"calib_weight": 0.0}, {"iter_calib": 0}])
def test_without_calibration_it_is_matching_alone(changes: dict[str, Any]) -> None:
    problem, config = pixel_problem(), DanceConfig(**(SMALL | changes))
    method = Dance(config)
    state = method.init(problem, SEED)
    after, info = method.step(state, problem, SEED)
    own = SEED.child("step", 0)
    generator = own.child("expert").torch()
    expert = int(torch.randint(NUM_EXPERTS, (), generator=generator))
    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    assert problem.experts is not None
    theta = interpolated(problem.experts.snapshot(expert, 0), problem.experts.snapshot(expert, EPOCHS), share)
    augmented = dataclasses.replace(problem, augment=DiffAug("color_crop_cutout"))
    view, pools = View(2, problem.transform, config.batch_syn_max), observed_pools(problem)
    loss, gradient = class_gradient(state.images, augmented, theta, view, Terms(), pools, 4, own.child("match"))
    assert torch.equal(after.images, state.images - config.rate(2) * gradient)
    assert info.loss == float(loss)
    both, _ = Dance(DanceConfig(**SMALL)).step(state, problem, SEED)
    assert not torch.allclose(both.images, after.images)


def test_the_encoder_lies_between_the_first_weights_and_the_last() -> None:
    first, last = torch.randn(2, 50, generator=SEED.torch())
    assert torch.equal(interpolated(first, last, 1.0), first)
    assert torch.equal(interpolated(first, last, 0.0), last)
    torch.testing.assert_close(interpolated(first, last, 0.25) - last, 0.25 * (first - last))


def test_every_iteration_reads_both_ends_of_one_expert_and_in_time_of_all(
    convnet_problem: Callable[..., Problem],
) -> None:
    problem = convnet_problem()
    method = Dance(DanceConfig(batch_real=2))
    state = method.init(problem, SEED)
    for _ in range(40):
        state, _ = method.step(state, problem, SEED)
    reads = problem.experts.reads  # type: ignore[union-attr]
    chosen = [{expert for expert, _ in reads[start : start + 2]} for start in range(0, 80, 2)]
    assert len(reads) == 80
    assert all(len(one) == 1 for one in chosen)
    assert all({epoch for _, epoch in reads[start : start + 2]} == {0, 12} for start in range(0, 80, 2))
    counts = [sum(expert in one for one in chosen) for expert in range(3)]
    assert min(counts) >= 5


def test_pixels_are_clamped_before_a_step_and_when_handed_over() -> None:
    problem, method = pixel_problem(), Dance(DanceConfig(**(SMALL | {"lr_img": 20.0})))
    wild = DanceState(0, torch.randn(CLASSES * 2, 1, 8, 8, generator=SEED.torch()))
    tame = DanceState(0, wild.images.clamp(0, 1))
    after, _ = method.step(wild, problem, SEED)
    assert torch.equal(after.images, method.step(tame, problem, SEED)[0].images)
    assert float(after.images.min()) < 0
    assert float(after.images.max()) > 1
    exported = method.export(after, problem)
    torch.testing.assert_close(normalised().invert(exported.images), after.images.clamp(0, 1))


def test_the_rate_of_the_published_settings() -> None:
    """0.01 per image of a class in steps with momentum 0.5, which add up to twice that."""
    config = DanceConfig()
    assert [config.rate(ipc) for ipc in (1, 10, 50)] == pytest.approx([0.02, 0.2, 1.0])
    assert DanceConfig(lr_img=1.0, momentum=0.0).rate(10) == 1.0


def test_the_set_holds_what_the_network_was_shown() -> None:
    """Cutting normalised images gives the normalised crops of the pixels."""
    problem, method = pixel_problem(), Dance(DanceConfig(**SMALL))
    state, _ = method.step(method.init(problem, SEED), problem, SEED)
    kept = method.export(state, problem)
    assert kept.images.shape == (CLASSES * 2, 1, 8, 8)
    assert kept.labels.tolist() == [0, 0, 1, 1, 2, 2]
    decoded = kept.decoded()
    torch.testing.assert_close(decoded.images, (quarters(state.images.clamp(0, 1)) - MEAN) / STD, rtol=1e-5, atol=1e-5)
    assert decoded.labels.bincount().tolist() == [8] * CLASSES


def test_each_quarter_starts_as_every_second_pixel_of_an_image_of_its_class() -> None:
    problem = pixel_problem(ipc=1)
    stored = Dance(DanceConfig(**SMALL)).init(problem, SEED).images
    pixels = normalised().invert(problem.images).clamp(0, 1)
    for label, image in enumerate(stored):
        own = pixels[problem.labels == label][:, :, ::2, ::2]
        cut = [image[:, row : row + 4, column : column + 4] for row in (0, 4) for column in (0, 4)]
        found = [[int(torch.equal(quarter, each)) for each in own].index(1) for quarter in cut]
        assert len(set(found)) == 4


@pytest.mark.parametrize("transform", [normalised(), None])
def test_noise_is_grey_and_within_the_range_of_pixels(transform: Normalise | None) -> None:
    problem = pixel_problem(ipc=7, transform=transform)
    stored = Dance(DanceConfig(init="noise")).init(problem, SEED).images
    assert 0 <= float(stored.min()) < 0.1
    assert 0.9 < float(stored.max()) <= 1
    assert float(stored.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(stored.std()) == pytest.approx(0.24, abs=0.02)


def test_the_augmentation_is_that_of_the_configuration() -> None:
    problem = pixel_problem()
    states = []
    for own, strategy in ((problem.augment, "color"), (None, "color"), (problem.augment, None), (None, None)):
        method = Dance(DanceConfig(**(SMALL | {"match_augment": strategy})))
        given = dataclasses.replace(problem, augment=own)
        states.append(method.step(method.init(given, SEED), given, SEED)[0].images)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[2], states[3])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"lr_img": 0.0},
        {"momentum": 1.0},
        {"batch_real": 0},
        {"batch_syn_max": 0},
        {"factor": 0},
        {"init": "mix"},
        {"match_augment": "color_blur"},
        {"match_augment": ""},
        {"iter_calib": -1},
        {"calib_weight": -0.5},
    ],
)
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        DanceConfig(**bad)  # type: ignore[arg-type]
