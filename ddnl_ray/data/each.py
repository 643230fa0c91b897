"""One operation for each image: the augmentation with which the kernel methods evaluate (FRePo, RCIG).

Zhou et al., NeurIPS 2022, and Loo et al., ICML 2023 (authors' code: yolky/RCIG): where DSA draws one operation for a
batch, here every image of a batch draws its own, uniformly from the strategy. Vacated pixels take the value of the
nearest edge, except under the cutout, which is 0.

Differs from the original:
    - every step has random numbers of its own (there: the same ones come back every 500 steps);
    - sampling is bilinear with ``grid_sample``, whose sample points are those of pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddnl_ray.errors import RequestError, require_known

EACH_OPERATIONS = ("flip", "color", "crop", "rotate", "translate", "cutout")
COLOR, ZOOM, ANGLE, SHIFT, HOLE = 0.25, 1.25, 15.0, 0.125, 0.25
_PARAMETERS = 3


@dataclass(frozen=True)
class EachDraw:
    """One draw for a batch.

    Attributes:
        op: Place of each image's operation in the strategy, int64 [n].
        values: Three numbers, uniform on [0, 1), for each image [3, n].
    """

    op: Tensor
    values: Tensor


@dataclass(frozen=True)
class Each:
    """The augmentation: the operations of which every image draws one.

    ``flip`` mirrors with probability 1/2. ``color`` adds a number of up to 0.25 in size, then scales the distance to
    the image's mean and that to the pixel's mean over the channels, each by ``exp`` of such a number. ``crop`` zooms by
    a factor of 0.8 to 1.25, log-uniform, at a random place. ``rotate`` turns by up to 15 degrees, ``translate`` shifts
    by up to an eighth, and ``cutout`` sets a square of a quarter of the side to 0.

    Attributes:
        strategy: Operations joined by ``_``.
    """

    strategy: str

    def __post_init__(self) -> None:
        """Check the strategy.

        Raises:
            RequestError: An operation is unknown or named twice.
        """
        for op in self.operations:
            require_known("augmentation operation", op, EACH_OPERATIONS)
        if len(set(self.operations)) < len(self.operations):
            raise RequestError(
                f"an augmentation strategy names each operation once, but got {self.strategy!r}; remove the repetition"
            )

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations of the strategy, in its order."""
        return tuple(self.strategy.split("_"))

    def draw(
        self, generator: torch.Generator, num: int, size: int, device: torch.device | str, siamese: bool = False
    ) -> EachDraw:
        """Draw for a batch (see :meth:`ddnl_ray.data.augment.Augment.draw`)."""
        uniform = torch.rand(1 + _PARAMETERS, 1 if siamese else num, generator=generator, dtype=torch.float64)
        op = (uniform[0] * len(self.operations)).long()
        return EachDraw(op.to(device), uniform[1:].float().to(device))

    def apply(self, images: Tensor, draw: EachDraw) -> Tensor:
        """Return the augmented images [N, C, H, H]; differentiable with respect to them.

        Raises:
            ValueError: The draw is for another number of images.
        """
        if len(draw.op) not in {1, len(images)}:
            raise ValueError(f"the draw is for {len(draw.op)} images, but the batch has {len(images)}")
        op, values = draw.op.expand(len(images)), draw.values.expand(-1, len(images)).to(images.dtype)

        def chosen(name: str) -> Tensor:
            return op == self.operations.index(name) if name in self.operations else torch.zeros_like(op).bool()

        mirrored = (chosen("flip") & (values[0] < 0.5)).view(-1, 1, 1, 1)
        found = torch.where(mirrored, images.flip(-1), images)
        found = torch.where(chosen("color").view(-1, 1, 1, 1), _colored(found, values), found)
        moved = chosen("crop") | chosen("rotate") | chosen("translate")
        grid = _grid(images, values, chosen("crop"), chosen("rotate"), chosen("translate"))
        sampled = F.grid_sample(found, grid, mode="bilinear", padding_mode="border", align_corners=False)
        found = torch.where(moved.view(-1, 1, 1, 1), sampled, found)
        return torch.where(chosen("cutout").view(-1, 1, 1, 1) & _hole(images, values), 0, found)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for this batch and apply."""
        return self.apply(images, self.draw(generator, len(images), images.shape[-1], images.device))


def _colored(images: Tensor, values: Tensor) -> Tensor:
    """Return the images brighter or darker, then of other contrast, then of other saturation."""
    shift, contrast, saturation = (COLOR * (2 * values - 1)).view(_PARAMETERS, -1, 1, 1, 1)
    images = images + shift
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * contrast.exp() + mean
    grey = images.mean(1, keepdim=True)
    colored: Tensor = (images - grey) * saturation.exp() + grey
    return colored


def _grid(images: Tensor, values: Tensor, crop: Tensor, rotate: Tensor, translate: Tensor) -> Tensor:
    """Return where the pixels of the moved images lie in the given ones, in [-1, 1], [N, H, H, 2]."""
    one, nothing = torch.ones_like(values[0]), torch.zeros_like(values[0])
    signed = 2 * values - 1
    zoom = torch.where(crop, (math.log(ZOOM) * signed[0]).exp(), one)
    angle = torch.where(rotate, math.radians(ANGLE) * signed[0], nothing)
    # In units of half a side. A crop lies in the zoomed image, whose border is |zoom - 1| beyond or within the frame.
    offsets = [
        torch.where(crop, (zoom - 1).abs() * row / zoom, torch.where(translate, 2 * SHIFT * row, nothing))
        for row in (signed[1], signed[2])
    ]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([torch.stack([cos, -sin, offsets[0]], 1), torch.stack([sin, cos, offsets[1]], 1)], 1)
    return F.affine_grid(matrix, list(images.shape), align_corners=False)


def _hole(images: Tensor, values: Tensor) -> Tensor:
    """Return the pixels of the squares [N, 1, H, H]."""
    size = images.shape[-1]
    side, axis = max(1, int(size * HOLE)), torch.arange(size, device=images.device)
    starts = (values[:2] * (size - side + 1)).long()
    rows, columns = ((axis >= start[:, None]) & (axis < start[:, None] + side) for start in starts)
    hole: Tensor = rows[:, :, None] & columns[:, None, :]
    return hole.unsqueeze(1)
