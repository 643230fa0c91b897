"""Random views of small images, as SimCLR contrasts them: a crop, a mirror, colours, grey; whole batches on the device.

Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020
(arXiv 2002.05709, appendix A), with the strengths of the SupContrast code, which C2D starts from: a random resized
crop, a mirror, and with probability 0.8 brightness, contrast, saturation and hue in a random order; then grey with
probability 0.2. There is no blur: the paper leaves it out at 32 x 32 pixels, too.

Differs from the original:
- a batch at a time, on its device: every image has parameters of its own, the order of its colour operations included,
  but no sample is looped over (the images that take the same operation at the same turn take it together);
- numbers are floating point throughout (there, 8-bit images are rounded after every operation, and the mean grey of the
  contrast to a whole number);
- images with one channel keep their colours: there is no hue or saturation to change, and brightness and contrast are
  left out with them;
- the mirror can be left out: mirrored digits are other digits;
- grey weighs red, green and blue by 0.299, 0.587 and 0.114, as Pillow does, which the code uses (torchvision's tensor
  operations have 0.2989, so that their weights do not sum to 1).

Shape suffixes: N images, C channels, H height = width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

AREA = (0.2, 1.0)
"""Part of the image that a crop covers."""
RATIO = (3 / 4, 4 / 3)
"""Width by height of a crop; its logarithm is uniform."""
TRIES = 10
"""How often a crop that does not fit is drawn again, before the whole image is taken."""
FLIP = 0.5
"""Probability of a mirror."""
JITTER = 0.8
"""Probability that the colours change."""
STRENGTH = 0.4
"""The factors of brightness, contrast and saturation lie within this of 1."""
HUE = 0.1
"""Largest turn of the hue, in full turns."""
GREY = 0.2
"""Probability of grey."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
KEEP = -1
"""In an order of operations: none."""


@dataclass(frozen=True)
class ViewDraw:
    """One draw of a view for each of N images.

    Attributes:
        window: Crop: top, left, height, width, whole pixels as float32 [4, N], on the device of the images.
        flip: Whether to mirror, bool [N], there.
        order: Which of :data:`OPERATIONS` an image takes at each of four turns, int64 [4, N] on the CPU;
            :data:`KEEP` at all of them for an image that keeps its colours.
        factors: Factors of brightness, contrast and saturation, and the turn of the hue, float32 [4, N], on the device.
        grey: Whether to take the colours away, bool [N], there.
    """

    window: Tensor
    flip: Tensor
    order: Tensor
    factors: Tensor
    grey: Tensor


def draw_views(
    generator: torch.Generator, num: int, size: int, device: torch.device | str, flip: bool = True
) -> ViewDraw:
    """Draw a view for each image.

    The random numbers come from one call, whose size depends on ``num`` alone.

    Args:
        generator: A CPU generator.
        num: Images in the batch.
        size: Height (= width) of the images in pixels.
        device: Where the images are.
        flip: Whether images may be mirrored.
    """
    uniform = torch.rand(2 * TRIES + 13, num, generator=generator, dtype=torch.float64)
    tries, (row, column, mirror, jitter, grey), keys, strengths = uniform.split([2 * TRIES, 5, 4, 4])
    height, width = _sides(tries, size)
    corner = [(u * (size + 1 - side)).floor() for u, side in ((row, height), (column, width))]
    reach = torch.tensor([STRENGTH, STRENGTH, STRENGTH, HUE], dtype=torch.float64).unsqueeze(1)
    middle = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64).unsqueeze(1)
    return ViewDraw(
        window=torch.stack([*corner, height, width]).float().to(device, non_blocking=True),
        flip=((mirror < FLIP) & flip).to(device, non_blocking=True),
        order=torch.where(jitter < JITTER, keys.argsort(dim=0), KEEP),
        factors=(middle + (2 * strengths - 1) * reach).float().to(device, non_blocking=True),
        grey=(grey < GREY).to(device, non_blocking=True),
    )


def _sides(tries: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return height and width [N] of crops: of the first try that fits, else of the whole image."""
    area, ratio = tries.split(TRIES)
    area = (AREA[0] + area * (AREA[1] - AREA[0])) * size * size
    ratio = (math.log(RATIO[0]) + ratio * math.log(RATIO[1] / RATIO[0])).exp()
    height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (height >= 1) & (height <= size) & (width >= 1) & (width <= size)
    first = fits.int().argmax(dim=0, keepdim=True)
    height, width = (torch.where(fits.any(dim=0), side.gather(0, first).squeeze(0), size) for side in (height, width))
    return height, width


def apply_views(pixels: Tensor, draw: ViewDraw) -> Tensor:
    """Return the views of pixels in [0, 1] [N, C, H, H], of the same shape, type and range.

    Raises:
        ValueError: The draw is for another number of images.
    """
    if len(draw.flip) != len(pixels):
        raise ValueError(f"the draw is for {len(draw.flip)} images, but the batch has {len(pixels)}")
    views = resized_crop(pixels, draw.window, draw.flip)
    if pixels.shape[1] != 3:
        return views
    views = _jitter(views, draw)
    return torch.where(draw.grey.view(-1, 1, 1, 1), grey(views), views)


def resized_crop(pixels: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    """Cut out windows, stretch each bilinearly to the size of its image, and mirror the marked ones.

    Pixels have an area: the centre of pixel i is at i + 1/2, and beyond the window its border goes on. Nothing is
    smoothed, because nothing shrinks. Two products of matrices per image: the interpolation of its rows, and of its
    columns.

    Args:
        pixels: [N, C, H, H].
        window: Top, left, height and width [4, N].
        flip: Bool [N].
    """
    top, left, height, width = window.to(pixels.dtype)
    size = pixels.shape[-1]
    rows, columns = _interpolation(top, height, size), _interpolation(left, width, size)
    columns = torch.where(flip.view(-1, 1, 1), columns.flip(1), columns)
    return (rows.unsqueeze(1) @ pixels @ columns.mT.unsqueeze(1)).clamp_(0, 1)


def _interpolation(first: Tensor, length: Tensor, size: int) -> Tensor:
    """Return the weights [N, size, size] of input pixels (last) in the pixels of a stretched window along one axis."""
    axis = torch.arange(size, device=first.device, dtype=first.dtype)
    first, length = first.unsqueeze(1), length.unsqueeze(1)
    at = (first + (axis + 0.5) * (length / size) - 0.5).clamp(first, first + length - 1)
    weights: Tensor = (1 - (at.unsqueeze(2) - axis).abs()).clamp_min_(0)
    return weights


def _jitter(views: Tensor, draw: ViewDraw) -> Tensor:
    """Change the colours of each image by its factors, in its order."""
    factors = draw.factors.to(views.dtype)[:, :, None, None, None]
    for turn in draw.order:
        rows = [(turn == index).nonzero().squeeze(1).to(views.device) for index in range(len(OPERATIONS))]
        changed = [
            operation(views[own], factor[own]) for operation, factor, own in zip(OPERATIONS, factors, rows, strict=True)
        ]
        views = views.index_copy(0, torch.cat(rows), torch.cat(changed))
    return views


def grey(x_N3HH: Tensor) -> Tensor:
    """Return the brightness of each pixel, [N, 1, H, H]."""
    red, green, blue = x_N3HH.split(1, dim=1)
    weighed: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return weighed


def brightness(x_N3HH: Tensor, factor: Tensor) -> Tensor:
    """Multiply images in [0, 1] by factors [N, 1, 1, 1]."""
    return (x_N3HH * factor).clamp_(0, 1)


def contrast(x_N3HH: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance of images in [0, 1] to their mean grey by factors [N, 1, 1, 1]."""
    return _away(x_N3HH, grey(x_N3HH).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(x_N3HH: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance of pixels in [0, 1] to their grey by factors [N, 1, 1, 1]."""
    return _away(x_N3HH, grey(x_N3HH), factor)


def _away(x: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * base).clamp_(0, 1)


def hue(x_N3HH: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue (of hue, saturation and value) of images in [0, 1] by full turns [N, 1, 1, 1].

    A colour is its largest channel, its range over the channels, and its place on the circle of hues: each channel is
    the largest less the range times a trapezium of the distance, along the circle, to where that channel vanishes.
    """
    red, green, blue = x_N3HH.split(1, dim=1)
    value = x_N3HH.amax(dim=1, keepdim=True)
    span = value - x_N3HH.amin(dim=1, keepdim=True)
    safe = torch.where(span > 0, span, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    offset = torch.tensor([5.0, 3.0, 1.0], dtype=x_N3HH.dtype, device=x_N3HH.device).view(1, 3, 1, 1)
    place = (offset + sixths + 6 * turn).remainder(6)
    turned: Tensor = value - span * torch.minimum(place, 4 - place).clamp_(0, 1)
    return turned.clamp_(0, 1)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)
"""The colour operations, in the order of :attr:`ViewDraw.factors`."""
