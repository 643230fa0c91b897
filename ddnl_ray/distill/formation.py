"""Several training images in one stored image: IDM's partition, IDC's multi-formation.

Zhao et al., "Improved Distribution Matching for Dataset Condensation", CVPR 2023; Kim et al., "Dataset Condensation via
Efficient Synthetic-Data Parameterization", ICML 2022. A stored image is cut into ``factor`` x ``factor`` crops, each
enlarged to the full size bilinearly (pixel centres aligned, corners not): with factor 2, four images for the storage
of one.

Differs from the original:
    - the images that one stored image holds follow each other, row by row (IDM: all first crops, then all second ones;
      which image a label belongs to is the same);
    - where ``factor`` does not divide the size, the border is repeated (IDC: filled with 0.5, which means grey only for
      pixels in [0, 1]);
    - enlarging is a product with a fixed matrix on either side, so that its gradient adds in a fixed order on a GPU.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F


def decode(images: Tensor, factor: int) -> Tensor:
    """Return the training images that stored ones hold, [n * factor^2, C, H, H]; differentiable.

    Args:
        images: Stored images [n, C, H, H].
        factor: Crops per side; 1 returns the images as they are.
    """
    if factor == 1:
        return images
    n, channels, size = images.shape[:3]
    side = -(-size // factor)
    missing = side * factor - size
    padded = F.pad(images, (0, missing, 0, missing), mode="replicate") if missing else images
    crops = padded.view(n, channels, factor, side, factor, side).permute(0, 2, 4, 1, 3, 5)
    matrix = _enlarging(side, size).to(images)
    enlarged = matrix @ crops @ matrix.T
    return enlarged.reshape(n * factor**2, channels, size, size)


def encode(images: Tensor, factor: int, how: str) -> Tensor:
    """Return stored images [n, C, H, H] that hold the given ones, made smaller.

    Args:
        images: [n * factor^2, C, H, H], those of one stored image after each other.
        factor: Crops per side.
        how: ``bilinear`` (IDM; with factor 2 the mean of 2 x 2 pixels) or ``nearest`` (IDC).
    """
    if factor == 1:
        return images.clone()
    channels, size = images.shape[1:3]
    side = -(-size // factor)
    small = F.interpolate(images, size=(side, side), mode=how, align_corners=False if how == "bilinear" else None)
    crops = small.view(-1, factor, factor, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return crops.reshape(-1, channels, side * factor, side * factor)[:, :, :size, :size].clone()


@functools.cache
def _enlarging(side: int, size: int) -> Tensor:
    """Return the matrix [size, side] of bilinear enlargement along one axis, float64."""
    with torch.inference_mode(False):
        unit = torch.eye(side, dtype=torch.float64)[None]
        return F.interpolate(unit, size=size, mode="linear", align_corners=False)[0].T.contiguous()
