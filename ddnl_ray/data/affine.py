"""Batched bilinear sampling under a linear map of the coordinates, with an explicit transpose.

Equal to ``affine_grid`` and ``grid_sample`` with zero padding, under either corner convention, on square
images. Both the map and its transpose gather, so that the backward pass adds in a fixed order (on a GPU,
``grid_sample`` does not) and can be differentiated again.

Shape suffixes: N images, C channels, H height = width, P = H * H pixels, n maps (N, or 1 for all images).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def affine(x_NCHH: Tensor, matrix: Tensor, reach: float) -> Tensor:
    """Return the images whose pixel at ``(column, row)`` is the input's value at ``matrix @ (column, row)``.

    Coordinates are relative to the image's centre; the value outside the image is 0.

    Args:
        x_NCHH: The images; the result is differentiable with respect to them, to any order.
        matrix: [2, 2, n], float32 or wider.
        reach: Bound on the sums of each row of ``|matrix^-1|``.
    """
    result: Tensor = _Affine.apply(x_NCHH, matrix, reach, False)
    return result


class _Affine(torch.autograd.Function):
    """Bilinear sampling at ``M (column, row)``, coordinates relative to the image's centre, zero outside.

    Output pixel q takes input pixel p with weight ``hat((M q - p)_x) * hat((M q - p)_y)``, where
    ``hat(d) = max(0, 1 - |d|)``. The transposed map sums the same weights over q. ``reach`` bounds the row
    sums of ``|M^-1|``, and so the distance along an axis from ``M^-1 p`` to the outputs that take from p.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x_NCHH: Tensor, matrix: Tensor, reach: float, transposed: bool) -> Tensor:
        """Apply the map, or its transpose; ``matrix`` is [2, 2, n]."""
        size = x_NCHH.shape[-1]
        axis = torch.arange(size, device=x_NCHH.device, dtype=matrix.dtype)
        rows, cols = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
        centre = (size - 1) / 2
        if transposed:
            near_col, near_row = _times(_inverse(matrix), cols - centre, rows - centre)
            first_col, first_row = ((near + centre - reach).ceil() for near in (near_col, near_row))
            num_taps = math.ceil(2 * reach)
        else:
            near_col, near_row = _times(matrix, cols - centre, rows - centre)
            first_col, first_row = ((near + centre).floor() for near in (near_col, near_row))
            num_taps = 2
        flat_NCP = x_NCHH.flatten(2)
        total_NCP = torch.zeros_like(flat_NCP)
        for tap in range(num_taps * num_taps):
            row_nP, col_nP = first_row + tap // num_taps, first_col + tap % num_taps
            if transposed:
                at_col, at_row = _times(matrix, col_nP - centre, row_nP - centre)
                weight_nP = _hat(at_col - (cols - centre)) * _hat(at_row - (rows - centre))
            else:
                weight_nP = _hat(near_col - (col_nP - centre)) * _hat(near_row - (row_nP - centre))
            weight_nP = weight_nP * (inside(row_nP, size) & inside(col_nP, size))
            index_nP = (row_nP.clamp(0, size - 1) * size + col_nP.clamp(0, size - 1)).long()
            total_NCP = total_NCP + flat_NCP.gather(2, per_channel(index_nP, x_NCHH)) * weight_nP[:, None]
        return total_NCP.view_as(x_NCHH)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, bool], output: Tensor) -> None:
        """Keep the matrix: the map is linear in the images, so its derivative needs nothing else."""
        ctx.save_for_backward(inputs[1])
        ctx.reach, ctx.transposed = inputs[2:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Apply the transpose of what :meth:`forward` applied."""
        (matrix,) = ctx.saved_tensors
        grad = _Affine.apply(grads[0], matrix, ctx.reach, not ctx.transposed)
        return grad, None, None, None


def _times(matrix: Tensor, cols: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns and rows, [n, P], of ``matrix`` [2, 2, n] times points [P] or [n, P]."""
    (a, b), (c, d) = matrix.unsqueeze(-1)
    return a * cols + b * rows, c * cols + d * rows


def _inverse(matrix: Tensor) -> Tensor:
    """Return the inverse of each 2x2 matrix of [2, 2, n]."""
    (a, b), (c, d) = matrix
    inverse: Tensor = torch.stack([torch.stack([d, -b]), torch.stack([-c, a])]) / (a * d - b * c)
    return inverse


def _hat(distance: Tensor) -> Tensor:
    """Return the bilinear weight at a distance in pixels."""
    weight: Tensor = (1 - distance.abs()).clamp_min(0)
    return weight


def inside(position: Tensor, size: int) -> Tensor:
    """Return whether a row or column number is in the image."""
    return (position >= 0) & (position < size)


def per_channel(index_nP: Tensor, x_NCHH: Tensor) -> Tensor:
    """Return the index expanded, without a copy, to [N, C, P]."""
    return index_nP[:, None].expand(x_NCHH.shape[0], x_NCHH.shape[1], -1)
