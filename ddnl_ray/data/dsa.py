"""Differentiable siamese augmentation (DSA).

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021 (arXiv
2102.08259), in the form that the trajectory-matching codes use: one operation per mini-batch, its parameters
drawn per image.

Differs from the original:
- the randomness is an argument: the original re-seeds the global generator from the clock;
- a draw is a record, so the same operation with the same parameters can be applied to several batches;
- the affine operations are a linear map with an explicit transpose, both by gathering: the backward pass adds
  in a fixed order (``grid_sample`` does not, on a GPU) and can be differentiated again.

Shape suffixes: N images, C channels, H height = width, n parameter sets (N, or 1 when siamese), P = H * H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.data.affine import affine, inside, per_channel
from ddnl_ray.errors import RequestError, require_known

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
_PARAMETERS_PER_IMAGE = 3


@dataclass(frozen=True)
class DsaDraw:
    """One draw of the augmentation: which operation, and with which parameters.

    Attributes:
        op: One of :data:`OPERATIONS`.
        values: [3, n] float32 on the device of the images, with n the number of images, or 1 when all share
            one set. ``color``: brightness shift, saturation factor, contrast factor. ``crop``: row shift,
            column shift. ``cutout``: row and column of the centre. ``flip``: 1 to mirror, 0 not to.
            ``scale``: column factor, row factor. ``rotate``: angle in radians. Unused rows are 0.
    """

    op: str
    values: Tensor


@dataclass(frozen=True)
class Dsa:
    """The augmentation: a strategy (the operations to choose from) and the strength of each operation.

    The defaults are the published ones, equal in every trajectory and distribution matching code.

    Attributes:
        strategy: Operations joined by ``_``; one of them is drawn uniformly for each batch.
        brightness: Width of the interval, centred on 0, of the shift that is added.
        saturation: Largest factor on the distance of a pixel to its mean over the channels.
        contrast: Smallest factor on the distance to the image's mean; the largest is 1 more.
        crop: Largest shift as a fraction of the size.
        cutout: Side of the square that is set to 0, as a fraction of the size.
        scale: Largest scale factor; the smallest is its inverse. A factor below 1 zooms in.
        rotate: Largest angle in degrees.
        flip: Probability of a horizontal mirror.
    """

    strategy: str = "color_crop_cutout_flip_scale_rotate"
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        """Check the strategy.

        Raises:
            RequestError: An operation is unknown or named twice, or there is none.
        """
        for op in self.operations:
            require_known("augmentation operation", op, OPERATIONS)
        if len(set(self.operations)) < len(self.operations):
            raise RequestError(
                f"an augmentation strategy names each operation once, but got {self.strategy!r}; remove the repetition"
            )
        if self.scale < 1:
            raise RequestError(f"augmentation scale must be >= 1, but got {self.scale}; published: 1.2")

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations of the strategy, in its order."""
        return tuple(self.strategy.split("_"))

    def draw(
        self,
        generator: torch.Generator,
        num: int,
        size: int,
        device: torch.device | str,
        siamese: bool = False,
    ) -> DsaDraw:
        """Draw one operation for a batch and its parameters for each image.

        The random numbers come from one call on the generator's device, and their count does not depend on
        the operation. A CPU generator gives the same draw for every device, without waiting for the device.

        Args:
            generator: Source of randomness, on the CPU or a GPU.
            num: Images in the batch.
            size: Height (= width) of the images in pixels.
            device: Where the images are.
            siamese: Whether all images share one parameter set; such a draw fits a batch of any length.
        """
        num_sets = 1 if siamese else num
        uniform = torch.rand(
            1 + _PARAMETERS_PER_IMAGE * num_sets,
            generator=generator,
            device=generator.device,
            dtype=torch.float64,
        )
        op = self.operations[int(uniform[0].item() * len(self.operations))]
        values = self._values(op, uniform[1:].view(_PARAMETERS_PER_IMAGE, num_sets), size)
        return DsaDraw(op, values.float().to(device, non_blocking=True))

    def apply(self, images: Tensor, draw: DsaDraw) -> Tensor:
        """Return the augmented images; differentiable with respect to them, never clamped.

        Args:
            images: [N, C, H, H] floating point, in any value range; vacated pixels become 0.
            draw: From :meth:`draw`, for N images or siamese, for this H.

        Raises:
            ValueError: The draw is for another number of images.
        """
        num_sets = draw.values.shape[1]
        if num_sets not in {1, len(images)}:
            raise ValueError(f"the draw is for {num_sets} images, but the batch has {len(images)}")
        # Pixel coordinates need float32 even where the images are stored in 16 bits.
        values = draw.values.to(torch.promote_types(images.dtype, torch.float32))
        if draw.op == "cutout":
            result = _cutout(images, values, side=int(images.shape[-1] * self.cutout + 0.5))
        elif draw.op == "scale":
            result = _scale(images, values, reach=self.scale)
        else:
            result = _APPLY[draw.op](images, values)
        return result.to(images.dtype)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for this batch and apply: what training a network needs."""
        return self.apply(images, self.draw(generator, len(images), images.shape[-1], images.device))

    def _values(self, op: str, uniform: Tensor, size: int) -> Tensor:
        """Return the parameters of ``op``, [3, n], from numbers uniform on [0, 1)."""
        first, second, third = uniform
        unused = torch.zeros_like(first)
        if op == "color":
            rows = [(first - 0.5) * self.brightness, second * self.saturation, third + self.contrast]
        elif op == "crop":
            reach = int(size * self.crop + 0.5)
            rows = [(u * (2 * reach + 1)).floor() - reach for u in (first, second)]
        elif op == "cutout":
            side = int(size * self.cutout + 0.5)
            rows = [(u * (size + 1 - side % 2)).floor() for u in (first, second)]
        elif op == "flip":
            rows = [(first < self.flip).double()]
        elif op == "scale":
            smallest = 1 / self.scale
            rows = [u * (self.scale - smallest) + smallest for u in (first, second)]
        else:
            rows = [(first * 2 - 1) * math.radians(self.rotate)]
        return torch.stack(rows + [unused] * (_PARAMETERS_PER_IMAGE - len(rows)))


def _color(x_NCHH: Tensor, values: Tensor) -> Tensor:
    """Shift the brightness, then scale the saturation, then the contrast."""
    shift, saturation, contrast = (row.view(-1, 1, 1, 1) for row in values)
    x_NCHH = x_NCHH + shift
    grey = x_NCHH.mean(dim=1, keepdim=True)
    x_NCHH = (x_NCHH - grey) * saturation + grey
    mean = x_NCHH.mean(dim=(1, 2, 3), keepdim=True)
    adjusted: Tensor = (x_NCHH - mean) * contrast + mean
    return adjusted


def _crop(x_NCHH: Tensor, values: Tensor) -> Tensor:
    """Shift by whole pixels. The wrapped-around pixels are masked, so each pixel is read exactly once."""
    size = x_NCHH.shape[-1]
    arange = torch.arange(size, device=x_NCHH.device)
    rows_nH, cols_nH = (arange + row.long()[:, None] for row in values[:2])
    inside_nHH = inside(rows_nH, size)[:, :, None] & inside(cols_nH, size)[:, None, :]
    index_nHH = rows_nH.remainder(size)[:, :, None] * size + cols_nH.remainder(size)[:, None, :]
    moved = x_NCHH.flatten(2).gather(2, per_channel(index_nHH.flatten(1), x_NCHH)).view_as(x_NCHH)
    return moved * inside_nHH[:, None].to(x_NCHH.dtype)


def _cutout(x_NCHH: Tensor, values: Tensor, side: int) -> Tensor:
    """Set a square of the given side to 0; the part of it beyond the border is clipped."""
    arange = torch.arange(x_NCHH.shape[-1], device=x_NCHH.device)
    starts = values[:2].long() - side // 2
    rows_nH, cols_nH = ((arange >= start[:, None]) & (arange < start[:, None] + side) for start in starts)
    keep_nHH = ~(rows_nH[:, :, None] & cols_nH[:, None, :])
    kept: Tensor = x_NCHH * keep_nHH[:, None].to(x_NCHH.dtype)
    return kept


def _flip(x_NCHH: Tensor, values: Tensor) -> Tensor:
    """Mirror the marked images horizontally."""
    return torch.where(values[0].view(-1, 1, 1, 1) > 0, x_NCHH.flip(-1), x_NCHH)


def _scale(x_NCHH: Tensor, values: Tensor, reach: float) -> Tensor:
    """Sample at coordinates multiplied by the column and row factors."""
    zero = torch.zeros_like(values[0])
    matrix = torch.stack([torch.stack([values[0], zero]), torch.stack([zero, values[1]])])
    return affine(x_NCHH, matrix, reach)


def _rotate(x_NCHH: Tensor, values: Tensor) -> Tensor:
    """Sample at coordinates rotated by the angle."""
    cos, sin = values[0].cos(), values[0].sin()
    matrix = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    return affine(x_NCHH, matrix, math.sqrt(2))


_APPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "flip": _flip,
    "rotate": _rotate,
}
