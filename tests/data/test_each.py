"""One operation an image: what each operation does, and that every image draws its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import augmentation
from ddnl_ray.data.each import EACH_OPERATIONS, Each, EachDraw
from ddnl_ray.errors import RequestError

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def applied(op: str, *values: float, images: Tensor = IMAGES) -> Tensor:
    """All images under one operation with the given uniform numbers."""
    draw = EachDraw(torch.zeros(1, dtype=torch.int64), torch.tensor(values + (0.5,) * (3 - len(values))).view(3, 1))
    return Each(op).apply(images, draw)


def test_a_flip_is_a_coin() -> None:
    assert torch.equal(applied("flip", 0.49), IMAGES.flip(-1))
    assert torch.equal(applied("flip", 0.5), IMAGES)


def test_colours_move_brightness_contrast_and_saturation_in_that_order() -> None:
    torch.testing.assert_close(applied("color", 1.0), IMAGES + 0.25)
    wide, mean = applied("color", 0.5, 1.0), IMAGES.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(wide - mean, (IMAGES - mean) * torch.tensor(0.25).exp())
    vivid, grey = applied("color", 0.5, 0.5, 0.0), IMAGES.mean(1, keepdim=True)
    torch.testing.assert_close(vivid - grey, (IMAGES - grey) * torch.tensor(-0.25).exp())


def test_a_shift_repeats_the_nearest_edge() -> None:
    moved = applied("translate", 0.5, 1.0)  # 2 of 16 pixels
    torch.testing.assert_close(moved[..., :-2], IMAGES[..., 2:])
    torch.testing.assert_close(moved[..., -2:], IMAGES[..., -1:].expand(-1, -1, -1, 2))


def test_the_middle_of_each_range_moves_nothing() -> None:
    for op in ("crop", "rotate", "translate"):
        torch.testing.assert_close(applied(op, 0.5), IMAGES, rtol=0, atol=1e-5)


def test_a_zoom_shows_a_part_of_the_image() -> None:
    ramp = torch.linspace(-15, 15, 16).expand(1, 1, 16, 16)
    for place, shift in ((0.0, -1.0), (0.5, 0.0), (1.0, 1.0)):
        found = applied("crop", 1.0, place, images=ramp)
        expected = (ramp + shift * 16 * 0.25) / 1.25  # (c + offset) / z, in half pixels
        torch.testing.assert_close(found, expected.clamp(-15, 15), rtol=0, atol=1e-3)


def test_a_hole_is_a_quarter_of_the_side_and_lies_inside() -> None:
    for first in (0.0, 0.3, 0.9999):
        hole = applied("cutout", first, 0.6, images=torch.ones(2, 1, 16, 16)) == 0
        assert hole.flatten(1).sum(1).tolist() == [16, 16]


def test_every_image_draws_its_own_operation() -> None:
    augment = augmentation("each:" + "_".join(EACH_OPERATIONS))
    assert isinstance(augment, Each)
    draw = augment.draw(torch.Generator().manual_seed(0), 600, 16, "cpu")
    assert draw.op.bincount(minlength=6).min() > 60
    together = augment.apply(IMAGES, EachDraw(draw.op[:6], draw.values[:, :6]))
    for place, image in enumerate(IMAGES):
        alone = augment.apply(image[None], EachDraw(draw.op[place : place + 1], draw.values[:, place : place + 1]))
        torch.testing.assert_close(together[place], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", ["each:flip_flip", "each:scale", "each:"])
def test_wrong_strategies_are_named(strategy: str) -> None:
    with pytest.raises(RequestError, match="each:color_crop"):
        augmentation(strategy)
