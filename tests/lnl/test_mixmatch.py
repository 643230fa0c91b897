"""The pieces of the semi-supervised loss by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.lnl.mixmatch import (
    Batch,
    Mixing,
    draw_mixing,
    draw_share,
    flip_crop,
    mixmatch_loss,
    prior_penalty,
    ramp_up,
    sharpen,
    targets_of,
    two_views,
)
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture
def network() -> Flat:
    return Flat(build(NetworkSpec("convnet1", 4), (1, 8, 8), 3, SEED.torch()))


@pytest.fixture
def theta(network: Flat) -> Tensor:
    return network.flatten().double().requires_grad_()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("size", "reach"), [(32, 4), (8, 1), (4, 0)])
@pytest.mark.parametrize("flip", [False, True])
def test_the_augmentation_is_a_shift_after_a_mirror(size: int, reach: int, flip: bool) -> None:
    """Every result is one of the padded image's crops, and each crop that there is occurs."""
    image = torch.arange(1.0, size * size + 1).view(1, 1, size, size)
    num = 60 * (2 * reach + 1) ** 2 if reach < 4 else 400
    found = flip_crop(image.repeat(num, 1, 1, 1), torch.Generator().manual_seed(0), flip)
    seen = set()
    for mirrored in (False, True):
        padded = F.pad(image.flip(-1) if mirrored else image, [reach] * 4)
        for top in range(2 * reach + 1):
            for left in range(2 * reach + 1):
                crop = padded[..., top : top + size, left : left + size]
                matches = (found == crop).flatten(1).all(1)
                if matches.any():
                    seen.add((mirrored, top, left))
                    found = found[~matches]
    assert not len(found)
    possible = (2 if flip else 1) * (2 * reach + 1) ** 2
    assert len(seen) == possible if reach < 4 else len(seen) > 0.7 * possible
    assert {mirrored for mirrored, _, _ in seen} == ({False, True} if flip else {False})


def test_half_of_the_images_are_mirrored() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4).repeat(2000, 1, 1, 1)
    found = flip_crop(image, torch.Generator().manual_seed(0))
    assert abs(int((found == image).flatten(1).all(1).sum()) - 1000) < 100


def test_views_are_two_draws_of_each_image(images: Tensor) -> None:
    batch = Batch(torch.arange(8), torch.arange(20, 30))
    views = two_views(images, batch, torch.Generator().manual_seed(0), flip=False)
    expected = torch.cat([torch.arange(8).repeat(2), torch.arange(20, 30).repeat(2)])
    for view, row in zip(views, expected.tolist(), strict=True):
        padded = F.pad(images[row], [1] * 4)
        crops = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        assert any(torch.equal(view, crop) for crop in crops)
    assert not torch.equal(views[:8], views[8:16])
    assert not torch.equal(views[16:26], views[26:])


def test_sharpening_by_hand() -> None:
    torch.testing.assert_close(sharpen(tensor([0.8, 0.2], [0.5, 0.5]), 0.5), tensor([16 / 17, 1 / 17], [0.5, 0.5]))
    torch.testing.assert_close(sharpen(tensor([0.64, 0.36]), 2.0), tensor([8 / 14, 6 / 14]))
    torch.testing.assert_close(sharpen(tensor([0.3, 0.7]), 1.0), tensor([0.3, 0.7]))


def test_targets_are_refined_labels_and_guesses(network: Flat, theta: Tensor, images: Tensor) -> None:
    labels, weights = torch.tensor([2, 0]), torch.tensor([0.75, 1.0])
    views = images[:10]  # 2 labelled images and 3 others, twice each
    found = targets_of(network, theta, views, labels, weights, 0.5)
    p = network(theta, views).softmax(1).detach()
    raw = [
        0.75 * tensor(0, 0, 1) + 0.25 * (p[0] + p[2]) / 2,
        tensor(1, 0, 0),
        (p[4] + p[7]) / 2,
        (p[5] + p[8]) / 2,
        (p[6] + p[9]) / 2,
    ]
    sharp = [each**2 / (each**2).sum() for each in raw]
    expected = torch.stack([sharp[index] for index in (0, 1, 0, 1, 2, 3, 4, 2, 3, 4)])
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_two_networks_guess_together_and_one_refines(network: Flat, theta: Tensor, images: Tensor) -> None:
    labels, weights = torch.tensor([2, 0]), torch.tensor([0.75, 0.25])
    other = network.fresh(SEED.child("other").torch()).double()
    views = images[:10]
    found = targets_of(network, theta, views, labels, weights, 0.5, other)
    p, q = (network(each, views).softmax(1).detach() for each in (theta, other))
    guesses = [(p[4 + i] + p[7 + i] + q[4 + i] + q[7 + i]) / 4 for i in range(3)]
    sharp = [each**2 / (each**2).sum() for each in guesses]
    torch.testing.assert_close(found[4:], torch.stack(sharp * 2))
    assert torch.equal(found[:4], targets_of(network, theta, views, labels, weights, 0.5)[:4])
    assert torch.equal(found[:4], targets_of(network, theta, views[:4], labels, weights, 0.5, other))


def test_targets_without_unlabelled_views(network: Flat, theta: Tensor, images: Tensor) -> None:
    found = targets_of(network, theta, images[:4], torch.tensor([1, 2]), torch.ones(2), 0.5)
    assert found.tolist() == [[0, 1, 0], [0, 0, 1]] * 2


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 1), st.integers(1, 9), st.integers(0, 1000))
def test_mixing_conserves_totals(share: float, num: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(num, 2, 3, generator=generator, dtype=torch.float64)
    mixed = Mixing(share, torch.randperm(num, generator=generator)).apply(values)
    torch.testing.assert_close(mixed.sum(0), values.sum(0))


def test_mixing_by_hand() -> None:
    mixed = Mixing(0.75, torch.tensor([1, 2, 0])).apply(tensor([4, 0], [0, 4], [8, 8]))
    assert mixed.tolist() == [[3, 1], [2, 5], [7, 6]]


def test_the_share_is_the_larger_side_of_a_beta_draw(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    with global_random_untouched(5):
        shares = torch.tensor([draw_share(4.0, SEED.child(index)) for index in range(2000)])
    assert ((shares >= 0.5) & (shares <= 1)).all()
    # E|l - 1/2| of Beta(4, 4) is 35/256: 140 times the integral over [0, 1/2] of u (1/4 - u^2)^3, twice.
    assert float(shares.mean()) == pytest.approx(0.5 + 35 / 256, abs=0.006)
    mixing = draw_mixing(20, 4.0, SEED)
    assert sorted(mixing.order.tolist()) == list(range(20))
    assert torch.equal(mixing.order, draw_mixing(20, 4.0, SEED).order)


def test_the_prior_penalty() -> None:
    torch.testing.assert_close(prior_penalty(torch.full((5, 4), 0.25)), torch.tensor(0.0))
    # The mean prediction is uniform though no row is.
    assert float(prior_penalty(torch.eye(3))) == pytest.approx(0, abs=1e-7)
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(prior_penalty(tensor([0.9, 0.1], [0.6, 0.4]))) == pytest.approx(expected)
    collapsed = 0.5 * math.log(0.5 / 1.0) + 0.5 * math.log(0.5 / 1e-8)
    assert float(prior_penalty(tensor([1.0, 0.0]))) == pytest.approx(collapsed)


def test_the_mixmatch_loss_by_hand() -> None:
    """Probabilities (3/4, 1/4) on two labelled rows, (1/2, 1/2) and (1/4, 3/4) on the others."""
    odds = math.log(3)
    logits = tensor([odds, 0], [odds, 0], [0, 0], [0, odds])
    targets = tensor([1, 0], [0.5, 0.5], [0.9, 0.1], [0.25, 0.75])
    entropy = (-math.log(0.75) - 0.5 * (math.log(0.75) + math.log(0.25))) / 2
    error = (0.4**2 + 0.4**2 + 0 + 0) / 4
    mean = (0.75 + 0.75 + 0.5 + 0.25) / 4
    penalty = 0.5 * math.log(0.5 / mean) + 0.5 * math.log(0.5 / (1 - mean))
    assert float(mixmatch_loss(logits, targets, 2, 10.0)) == pytest.approx(entropy + 10 * error + penalty)
    half = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(mixmatch_loss(logits[:2], targets[:2], 2, 10.0)) == pytest.approx(entropy + half)


def test_the_unlabelled_weight_rises_over_sixteen_epochs() -> None:
    assert [ramp_up(epoch, 5) for epoch in (0, 5, 9, 13.5, 21, 90)] == [0, 0, 0.25, 8.5 / 16, 1, 1]
