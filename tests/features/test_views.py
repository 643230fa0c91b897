"""Views against torchvision one image at a time, against colours computed pixel by pixel, and against their laws."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as TF

from ddnl_ray.features import ViewDraw, apply_views, draw_views
from ddnl_ray.features.views import (
    KEEP,
    LUMA,
    OPERATIONS,
    TRIES,
    _sides,
    brightness,
    contrast,
    grey,
    hue,
    resized_crop,
    saturation,
)

LUMA_GAP = 1.5e-4
"""torchvision weighs red by 0.2989, here it is 0.299: grey differs by at most 1e-4; factors from 0 to 2 keep that."""


def images(num: int = 6, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(num, channels, size, size, generator=torch.Generator().manual_seed(7), dtype=dtype)


def drawn(num: int, size: int, seed: int = 0, flip: bool = True) -> ViewDraw:
    return draw_views(torch.Generator().manual_seed(seed), num, size, "cpu", flip)


def unchanged(num: int, size: int) -> ViewDraw:
    """The draw that leaves images as they are."""
    return ViewDraw(
        window=torch.tensor([0.0, 0.0, size, size]).unsqueeze(1).expand(4, num),
        flip=torch.zeros(num, dtype=torch.bool),
        order=torch.full((4, num), KEEP),
        factors=torch.tensor([1.0, 1.0, 1.0, 0.0]).unsqueeze(1).expand(4, num),
        grey=torch.zeros(num, dtype=torch.bool),
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [7, 28, 32])
def test_identity_parameters_leave_every_bit(size: int, channels: int) -> None:
    x = images(channels=channels, size=size, dtype=torch.float32)
    assert torch.equal(apply_views(x, unchanged(len(x), size)), x)


def test_operations_at_their_neutral_factors_leave_images() -> None:
    x = images(size=32, dtype=torch.float32)
    draw = dataclasses.replace(unchanged(len(x), 32), order=torch.arange(4).unsqueeze(1).expand(4, len(x)))
    # The other three are exact; a hue goes through its place on the circle and back.
    torch.testing.assert_close(apply_views(x, draw), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [7, 32])
def test_crops_equal_those_of_torchvision(size: int) -> None:
    x, draw = images(40, size=size), drawn(40, size)
    assert 0 < int(draw.flip.sum()) < 40
    found = resized_crop(x, draw.window, draw.flip)
    for image, window, flip, own in zip(x, draw.window.T, draw.flip, found, strict=True):
        for antialias in (True, False):  # nothing shrinks, so there is nothing to smooth
            expected = TF.resized_crop(image, *window.int().tolist(), [size, size], antialias=antialias)
            expected = TF.hflip(expected) if flip else expected
            # In float64 nothing but rounding is left.
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-12)


def test_a_crop_of_one_pixel_is_that_pixel() -> None:
    x = images(1, size=5)
    window = torch.tensor([[3.0], [1.0], [1.0], [1.0]])
    view = resized_crop(x, window, torch.zeros(1, dtype=torch.bool))
    torch.testing.assert_close(view, x[:, :, 3:4, 1:2].expand_as(x), rtol=0, atol=1e-15)


def test_the_mirror_turns_columns_around_and_nothing_else() -> None:
    x = images()
    marked = torch.tensor([True, False] * 3)
    view = apply_views(x, dataclasses.replace(unchanged(6, 8), flip=marked))
    assert torch.equal(view[marked], x[marked].flip(-1))
    assert torch.equal(view[~marked], x[~marked])


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 2.0])
@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (brightness, TF.adjust_brightness, 1e-12),
        (contrast, TF.adjust_contrast, LUMA_GAP),
        (saturation, TF.adjust_saturation, LUMA_GAP),
    ],
)
def test_factors_act_as_in_torchvision(
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Tensor, float], Tensor],
    tolerance: float,
    factor: float,
) -> None:
    x = images(20)
    found = ours(x, torch.full((20, 1, 1, 1), factor, dtype=x.dtype))
    torch.testing.assert_close(found, theirs(x, factor), rtol=0, atol=tolerance)
    assert factor == 1 or not torch.allclose(found, x, atol=10 * LUMA_GAP)


@pytest.mark.parametrize("turn", [-0.5, -0.1, -0.03, 0.0, 0.07, 0.1, 0.5])
def test_hues_turn_as_in_torchvision(turn: float) -> None:
    x = images(20)
    x[0] = 0.3  # greys have no hue
    x[1, 1] = x[1, 0]  # two largest or two smallest channels
    found = hue(x, torch.full((20, 1, 1, 1), turn, dtype=x.dtype))
    # torchvision turns hues in float32; the test of whole draws has an exact oracle.
    torch.testing.assert_close(found, TF.adjust_hue(x, turn), rtol=0, atol=3e-6)
    assert turn == 0 or not torch.allclose(found, x, atol=1e-2)


def test_grey_equals_that_of_torchvision_and_leaves_greys() -> None:
    x = images()
    torch.testing.assert_close(grey(x), TF.rgb_to_grayscale(x), rtol=0, atol=LUMA_GAP)
    torch.testing.assert_close(grey(torch.full((1, 3, 2, 2), 0.7)), torch.full((1, 1, 2, 2), 0.7), rtol=0, atol=1e-7)
    assert grey(torch.eye(3).view(3, 3, 1, 1)).flatten().tolist() == pytest.approx(LUMA)


def reference(image: np.ndarray, draw: ViewDraw, row: int) -> np.ndarray:
    """Colours of one cropped image [3, H, H], pixel by pixel with Python's own hues."""
    factors = draw.factors[:, row].tolist()
    for operation in draw.order[:, row].tolist():
        luma = np.tensordot(LUMA, image, 1)
        if operation == 0:
            image = image * factors[0]
        elif operation == 1:
            image = luma.mean() + factors[1] * (image - luma.mean())
        elif operation == 2:
            image = luma + factors[2] * (image - luma)
        elif operation == 3:
            pixels = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(3, -1).T]
            turned = [colorsys.hsv_to_rgb((h + factors[3]) % 1, s, v) for h, s, v in pixels]
            image = np.array(turned).T.reshape(image.shape)
        image = image.clip(0, 1)
    return np.tile(np.tensordot(LUMA, image, 1), (3, 1, 1)) if draw.grey[row] else image


def test_every_image_takes_its_own_operations_in_its_own_order() -> None:
    x, draw = images(40), drawn(40, 8)
    assert len(draw.order.unique(dim=1).T) > 10
    assert bool((draw.order == KEEP).any())
    assert bool(draw.grey.any())
    cropped = resized_crop(x, draw.window, draw.flip)
    expected = np.stack([reference(image.numpy(), draw, row) for row, image in enumerate(cropped)])
    np.testing.assert_allclose(apply_views(x, draw).numpy(), expected, rtol=0, atol=1e-12)


def test_float32_agrees_with_float64() -> None:
    x, draw = images(64, size=32), drawn(64, 32)
    found = apply_views(x.float(), draw)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), apply_views(x, draw), rtol=0, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_stay_in_range_and_differ_from_their_images(channels: int) -> None:
    x = images(100, channels=channels, size=32, dtype=torch.float32)
    x[:10], x[10:20] = x[:10].round(), 1.0
    for seed in range(5):
        view = apply_views(x, drawn(100, 32, seed))
        assert view.shape == x.shape
        assert view.min() >= 0
        assert view.max() <= 1
        assert not torch.isnan(view).any()
        assert not torch.allclose(view, x)


def test_images_with_one_channel_keep_their_colours() -> None:
    x, draw = images(channels=1), drawn(6, 8)
    assert torch.equal(apply_views(x, draw), resized_crop(x, draw.window, draw.flip))


def test_an_image_does_not_depend_on_the_others() -> None:
    x, draw = images(30), drawn(30, 8)
    some = ViewDraw(draw.window[:, 7:9], draw.flip[7:9], draw.order[:, 7:9], draw.factors[:, 7:9], draw.grey[7:9])
    torch.testing.assert_close(apply_views(x[7:9], some), apply_views(x, draw)[7:9], rtol=0, atol=1e-14)


def test_images_are_not_written_to() -> None:
    x = images(30)
    before = x.clone()
    apply_views(x, drawn(30, 8))
    assert torch.equal(x, before)


def test_parameters_differ_between_images() -> None:
    draw = drawn(50, 32)
    for row in (*draw.window, *draw.factors):
        assert len(row.unique()) > 5
    assert len(draw.order.unique(dim=1).T) > 5


def test_equal_seeds_give_equal_bits_and_others_differ() -> None:
    x = images(dtype=torch.float32)
    first, again, other = (apply_views(x, drawn(6, 8, seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_generator_gives_another_view_each_time() -> None:
    x, generator = images(), torch.Generator().manual_seed(0)
    first, second = (apply_views(x, draw_views(generator, 6, 8, "cpu")) for _ in range(2))
    assert not torch.allclose(first, second)


def test_without_a_mirror_the_rest_of_the_draw_is_the_same() -> None:
    with_, without = drawn(200, 8), drawn(200, 8, flip=False)
    assert with_.flip.any()
    assert not without.flip.any()
    for name in ("window", "order", "factors", "grey"):
        assert torch.equal(getattr(with_, name), getattr(without, name))


def test_the_global_generators_are_untouched(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    with global_random_untouched(0):
        apply_views(images(), drawn(6, 8))


def test_choices_have_the_published_probabilities() -> None:
    num = 40_000
    draw = drawn(num, 32)
    kept = (draw.order == KEEP).all(dim=0)
    assert torch.equal(kept, (draw.order == KEEP).any(dim=0))
    for chosen, probability in ((draw.flip, 0.5), (~kept, 0.8), (draw.grey, 0.2)):
        assert abs(chosen.double().mean() - probability) < 5 * math.sqrt(probability * (1 - probability) / num)
    orders, counts = draw.order[:, ~kept].unique(dim=1, return_counts=True)
    assert orders.sort(dim=0).values.T.tolist() == [[0, 1, 2, 3]] * 24
    mean = float(counts.sum()) / 24
    assert (counts - mean).abs().max() < 5 * math.sqrt(mean)


@pytest.mark.parametrize(("row", "low", "high"), [(0, 0.6, 1.4), (1, 0.6, 1.4), (2, 0.6, 1.4), (3, -0.1, 0.1)])
def test_factors_are_uniform_on_the_published_interval(row: int, low: float, high: float) -> None:
    values, width = drawn(20_000, 32).factors[row], high - low
    assert low - 1e-6 <= values.min() < low + width / 1000
    assert high - width / 1000 < values.max() <= high + 1e-6
    assert abs(values.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * 20_000)


@pytest.mark.parametrize("size", [8, 32])
def test_crops_are_distributed_as_those_of_torchvision(size: int) -> None:
    num = 4000
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.zeros(1, size, size)
        theirs = torch.tensor(
            [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(num)], dtype=torch.float64
        ).T
    ours = drawn(num, size).window.double()
    assert torch.equal(ours, ours.round())
    top, left, height, width = ours
    assert min(float(row.min()) for row in (top, left, height - 1, width - 1)) >= 0
    assert float(torch.maximum(top + height, left + width).max()) <= size
    for power in (1, 2):
        for statistic in (lambda w: w[0], lambda w: w[1], lambda w: w[2], lambda w: w[2] * w[3], lambda w: w[2] / w[3]):
            a, b = (statistic(window) ** power for window in (ours, theirs))
            assert abs(a.mean() - b.mean()) < 5 * math.sqrt((a.var() + b.var()) / num)


def test_a_crop_that_does_not_fit_is_drawn_again_and_at_last_the_whole_image() -> None:
    tries = torch.zeros(2 * TRIES, 2, dtype=torch.float64)
    tries[:] = 0.999  # nearly the whole area, nearly 4 by 3: too wide
    tries[3, 0], tries[TRIES + 3, 0] = 0.05, 0.5  # the fourth try of the first image: 0.24 of the area, square
    height, width = _sides(tries, 10)
    assert height.tolist() == width.tolist() == [5.0, 10.0]


def test_a_draw_for_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="the draw is for 4 images, but the batch has 6"):
        apply_views(images(), drawn(4, 8))


def test_there_is_a_factor_for_every_operation() -> None:
    assert len(OPERATIONS) == len(drawn(1, 8).factors) == len(drawn(1, 8).order)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu() -> None:
    x = images(64, size=32, dtype=torch.float32)
    draw = draw_views(torch.Generator().manual_seed(0), 64, 32, "cuda")
    found = apply_views(x.cuda(), draw)
    torch.testing.assert_close(found.cpu(), apply_views(x, drawn(64, 32)), rtol=0, atol=2e-5)
    assert torch.equal(found, apply_views(x.cuda(), draw))
