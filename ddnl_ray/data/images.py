"""Encoded image files to one uint8 tensor."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ddnl_ray.errors import DataError

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


@dataclass(frozen=True)
class Encoded:
    """An encoded image: its bytes or the file that holds them, and its name for messages."""

    name: str
    content: bytes | Path


def decode(encoded: Sequence[Encoded], size: int | None = None) -> Tensor:
    """Decode images, on all cores.

    Args:
        encoded: N images. The result has 1 channel if all of them are grey, else 3.
        size: Height and width to resize to (bilinear, antialiased); None requires that all have one size.

    Returns:
        uint8 [N, C, H, W].

    Raises:
        DataError: An image is corrupt, has more than 8 bits per channel, or differs in size; the message
        names it.
    """
    if not encoded:
        raise DataError("there are no images to decode")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        arrays = list(pool.map(lambda item: _decode_one(item, size), encoded))
    shape = arrays[0].shape[:2]
    for item, array in zip(encoded, arrays, strict=True):
        if array.shape[:2] != shape:
            raise DataError(
                f"images differ in size: {encoded[0].name} is {shape[1]}x{shape[0]} pixels, {item.name} is "
                f"{array.shape[1]}x{array.shape[0]}; resize them all, for example with --set data.size=64"
            )
    num_channels = max(array.shape[2] for array in arrays)
    images = np.empty((len(arrays), num_channels, *shape), dtype=np.uint8)
    for row, array in enumerate(arrays):
        images[row] = array.transpose(2, 0, 1)
    return torch.from_numpy(images)


def _decode_one(item: Encoded, size: int | None) -> npt.NDArray[np.uint8]:
    """Return one image as [H, W, 1] if it is grey, else [H, W, 3]."""
    content = item.content if isinstance(item.content, Path) else io.BytesIO(item.content)
    try:
        with Image.open(content) as image:
            if image.mode not in _GREY_MODES | _COLOUR_MODES:
                raise DataError(
                    f"{item.name} has pixels of mode {image.mode!r}, but only 8 bits per channel are "
                    "supported; convert it"
                )
            pixels = image.convert("L" if image.mode in _GREY_MODES else "RGB")
    except DataError:
        raise
    # Pillow raises SyntaxError, ValueError and others on corrupt files of some formats.
    except Exception as error:
        raise DataError(f"{item.name} is not a readable image ({error}); replace it or remove it") from error
    if size is not None and pixels.size != (size, size):
        pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(pixels, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array
