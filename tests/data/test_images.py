from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddnl_ray.data.images import Encoded, decode
from ddnl_ray.errors import DataError

Make = Callable[..., np.ndarray]
Png = Callable[..., bytes]


def test_lossless_images_come_back_exactly(pixels: Make, png: Png, tmp_path: Path) -> None:
    arrays = pixels(3, 5)
    (tmp_path / "1.png").write_bytes(png(arrays[1]))
    items = [Encoded("0", png(arrays[0])), Encoded("1", tmp_path / "1.png"), Encoded("2", png(arrays[2]))]
    images = decode(items)
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images.numpy(), arrays.transpose(0, 3, 1, 2))


def test_grey_stays_one_channel_only_if_all_are(pixels: Make, png: Png) -> None:
    grey, colour = pixels(2, 4, grey=True), pixels(1, 4)
    items = [Encoded(str(row), png(array)) for row, array in enumerate(grey)]
    np.testing.assert_array_equal(decode(items)[:, 0].numpy(), grey)
    mixed = decode([*items, Encoded("colour", png(colour[0]))])
    assert mixed.shape == (3, 3, 4, 4)
    np.testing.assert_array_equal(mixed[:2].numpy(), np.repeat(grey[:, None], 3, axis=1))


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_palettes_and_transparency_become_colour(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), (255, 0, 51)).convert(mode).save(buffer, format="PNG")
    images = decode([Encoded("x", buffer.getvalue())])
    assert images.shape == (1, 3, 3, 3)
    assert images[0, :, 1, 1].tolist() == [255, 0, 51]


def test_sizes_must_agree_or_be_given(pixels: Make, png: Png) -> None:
    items = [Encoded("first.png", png(pixels(1, 4)[0])), Encoded("second.png", png(pixels(1, 6)[0, :, :5]))]
    with pytest.raises(DataError, match=r"first\.png is 4x4 pixels, second\.png is 5x6; .* --set data\.size=64"):
        decode(items)
    assert decode(items, size=8).shape == (2, 3, 8, 8)


def test_resizing_keeps_a_flat_image_flat() -> None:
    buffer = io.BytesIO()
    Image.new("L", (9, 5), 77).save(buffer, format="PNG")
    assert (decode([Encoded("x", buffer.getvalue())], size=4) == 77).all()


def test_a_corrupt_image_is_named(pixels: Make, png: Png, tmp_path: Path) -> None:
    whole = png(pixels(1, 32)[0])
    good = Encoded("good.png", whole)
    for bad in (b"not an image", whole[:200], b""):
        with pytest.raises(DataError, match=r"bad\.png is not a readable image \(.*\); replace it or remove it"):
            decode([good, Encoded("bad.png", bad), good])
    with pytest.raises(DataError, match=r"gone\.png is not a readable image"):
        decode([Encoded("gone.png", tmp_path / "gone.png")])


def test_sixteen_bits_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(buffer, format="PNG")
    with pytest.raises(DataError, match=r"deep\.png has pixels of mode 'I;16', but only 8 bits per channel"):
        decode([Encoded("deep.png", buffer.getvalue())])


def test_no_images() -> None:
    with pytest.raises(DataError, match="there are no images to decode"):
        decode([])
