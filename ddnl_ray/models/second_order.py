"""Gradient of a ConvNet's loss, and the derivatives of its product with a direction, written out by hand.

For weights theta, images X, target probabilities T and the mean cross-entropy, let ``g = dloss/dtheta``. A
:class:`ConvNetTape` holds a forward and a backward pass; from it come ``g``, and for a direction ``a`` the value
``<a, g>`` and its derivatives with respect to theta (the Hessian times ``a``), X and T. By symmetry these are the
derivatives of ``g``, ``dloss/dX`` and ``dloss/dT`` along ``a`` in weight space, so one forward and one backward sweep
of directional derivatives gives all of them (Pearlmutter 1994, "Fast exact multiplication by the Hessian").

What this saves over differentiating twice with autograd:

- The weight gradients are not computed where only their product is wanted: 11 forward passes a step instead of 12,
  and 9 where the tape was kept.
- Beside its convolutions, a block's full maps are passed over some 20 times, forth and back. For a map ``f``, the mean
  over the pixels of ``up(e) * mask * f``, with ``e`` the derivative of the pooled map, ``up`` the way back through
  pooling and ``mask`` the open ReLUs, is the mean over the pooled pixels of ``e * pool(mask * f)``: all sums with masks
  in them, and the pooled maps themselves, come from ``pool(mask)``, ``pool(mask * z)`` and ``pool(mask * dz)``, a
  quarter of the size.
- A tape holds two full maps and three pooled ones per block, where autograd keeps every intermediate of both passes.

Maps are channel-last, which convolutions prefer and where sums over pixels read memory in order. The bias of a
convolution before an instance normalisation cancels, and so do all its derivatives: they are exact zeros.

Shapes: maps are [N, H, W, C]; ``z`` is a block's convolution minus its mean over the pixels, ``r`` one over its
standard deviation [N, 1, 1, C], ``f`` is ``r`` times the scale of the normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ddnl_ray.models.convnet import ConvNet
from ddnl_ray.models.flat import Flat
from ddnl_ray.models.norm import InstanceNorm2d


def is_supported(network: Flat) -> bool:
    """Return whether a network is a ConvNet with instance normalisation, which is what this module differentiates."""
    module = network.module
    return isinstance(module, ConvNet) and all(isinstance(block.norm, InstanceNorm2d) for block in module.blocks)


def epsilon(network: Flat) -> float:
    """Return what the normalisation of a supported network adds to the variance."""
    module = network.module
    assert isinstance(module, ConvNet)
    norm = module.blocks[0].norm
    assert isinstance(norm, InstanceNorm2d)
    return norm.eps


@dataclass(frozen=True)
class _Block:
    """Weights of one block: kernel [out, in, 3, 3], scale and shift of its normalisation [out]."""

    kernel: Tensor
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Weights:
    """A flat vector cut into a ConvNet's weights.

    Attributes:
        blocks: In order.
        matrix: Of the linear layer [classes, features].
        bias: Of the linear layer [classes].
    """

    blocks: tuple[_Block, ...]
    matrix: Tensor
    bias: Tensor

    @classmethod
    def cut(cls, network: Flat, theta: Tensor) -> Weights:
        """Cut ``theta`` [P] as the network orders it."""
        *parts, matrix, bias = network.unflatten(theta.detach()).values()
        blocks = tuple(
            _Block(parts[i].contiguous(memory_format=torch.channels_last), parts[i + 2], parts[i + 3])
            for i in range(0, len(parts), 4)
        )
        return cls(blocks, matrix, bias)


@dataclass(frozen=True)
class _Maps:
    """What a block keeps of both passes.

    Attributes:
        entry: Its input [N, H, W, in].
        z: Its centred convolution [N, H, W, out].
        r: One over the standard deviation of the convolution [N, 1, 1, out].
        open: Pooled mask of the open ReLUs [N, H // 2, W // 2, out].
        open_z: Pooled product of the mask and ``z``.
        exit: Derivative of the loss with respect to its output.
        mean: Mean over the pixels of ``active``, that derivative before pooling and ReLU [N, 1, 1, out].
        along: Mean over the pixels of ``active`` times the normalised map [N, 1, 1, out].
        delta: Derivative of the loss with respect to the convolution [N, H, W, out].
    """

    entry: Tensor
    z: Tensor
    r: Tensor
    open: Tensor
    open_z: Tensor
    exit: Tensor
    mean: Tensor
    along: Tensor
    delta: Tensor

    @property
    def pixels(self) -> int:
        """Pixels of a full map."""
        return self.z.shape[1] * self.z.shape[2]


@dataclass(frozen=True)
class _Tangent:
    """How a block moves when the weights move.

    Attributes:
        entry: The move of its input; None for the images, which do not move.
        dz: The move of its convolution [N, H, W, out].
        mask: Which ReLUs are open, 0 or 1.
        open_dz: Pooled product of the mask and ``dz``.
        mean: Mean over the pixels of ``dz`` [N, 1, 1, out].
        stretch: Mean over the pixels of ``dz`` times the normalised map [N, 1, 1, out].
    """

    entry: Tensor | None
    dz: Tensor
    mask: Tensor
    open_dz: Tensor
    mean: Tensor
    stretch: Tensor


@dataclass(frozen=True)
class Derivatives:
    """What :meth:`ConvNetTape.pull` returns.

    Attributes:
        product: ``<a, g>``, scalar.
        images: Its derivative with respect to the images [N, C, H, W].
        targets: Its derivative with respect to the target probabilities [N, classes].
        weights: Its derivative with respect to the weights [P], or None.
    """

    product: Tensor
    images: Tensor
    targets: Tensor
    weights: Tensor | None


class ConvNetTape:
    """One forward and backward pass of a batch.

    Args:
        weights: The ConvNet's weights.
        eps: Added to the variance by the normalisation.
        images: [N, C, H, W].
        targets: Target probabilities [N, classes]; each row sums to 1.
    """

    def __init__(self, weights: Weights, eps: float, images: Tensor, targets: Tensor) -> None:
        self._weights = weights
        before: list[tuple[Tensor, ...]] = []
        x = images.detach().permute(0, 2, 3, 1).contiguous()
        for block in weights.blocks:
            z = _conv(x, block.kernel)
            z -= _mean(z, z)
            scratch = z * z
            r = (_mean(scratch, z) + eps).rsqrt_()
            mask = _mask(block, z, r)
            pooled, pooled_z = _pool(mask), _pool(torch.mul(mask, z, out=scratch))
            before.append((x, z, r, mask, pooled, pooled_z))
            x = block.shift * pooled + r * block.scale * pooled_z
        self._top = x
        self._features = x.permute(0, 3, 1, 2).flatten(1)
        self._probabilities = torch.addmm(weights.bias, self._features, weights.matrix.T).softmax(1)
        self._error = (self._probabilities - targets) / len(images)
        e = _unflatten(self._error @ weights.matrix, x)
        maps = []
        for i in reversed(range(len(before))):
            block = weights.blocks[i]
            entry, z, r, mask, pooled, pooled_z = before.pop()
            f = block.scale * r
            mean, along = _mean(e * pooled, z), _mean(e * pooled_z, z) * r
            delta = _add_active(torch.addcmul(-f * mean, z, -f * r * along), mask, e * f)
            maps.append(_Maps(entry, z, r, pooled, pooled_z, e, mean, along, delta))
            if i > 0:
                e = _conv_input(delta, entry, block.kernel)
        self._maps = maps[::-1]

    @property
    def num_bytes(self) -> int:
        """The memory that the tape holds, beside the weights."""
        own = [tensor for maps in self._maps for tensor in vars(maps).values()]
        return sum(t.nbytes for t in [*own, self._top, self._features, self._probabilities, self._error])

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of the loss with respect to the weights [P]."""
        parts = []
        for block, maps in zip(self._weights.blocks, self._maps, strict=True):
            kernel = _conv_kernel(maps.delta, maps.entry, block.kernel)
            scale, shift = (maps.pixels * mean.sum((0, 1, 2)) for mean in (maps.along, maps.mean))
            parts += [kernel, torch.zeros_like(shift), scale, shift]
        return _join([*parts, self._error.T @ self._features, self._error.sum(0)])

    def pull(self, direction: Weights, through_weights: bool = True) -> Derivatives:
        """Return ``<a, g>`` and its derivatives for a direction ``a``.

        Args:
            direction: ``a``, cut as the weights are.
            through_weights: Whether the derivative with respect to the weights is wanted.
        """
        weights, p = self._weights, self._probabilities
        moved, tangents = self._forward(direction)
        moved_features = moved.permute(0, 3, 1, 2).flatten(1)
        logits = torch.addmm(direction.bias, self._features, direction.matrix.T).addmm_(
            moved_features, weights.matrix.T
        )
        error = p * (logits - (p * logits).sum(1, keepdim=True)) / len(p)
        e = _unflatten(error @ weights.matrix + self._error @ direction.matrix, self._top)
        e, parts = self._backward(direction, e, tangents, through_weights)
        hessian = None
        if through_weights:
            matrix = error.T @ self._features + self._error.T @ moved_features
            hessian = _join([*parts, matrix, error.sum(0)])
        return Derivatives((self._error * logits).sum(), e.permute(0, 3, 1, 2), logits / -len(p), hessian)

    def _forward(self, direction: Weights) -> tuple[Tensor, list[_Tangent]]:
        """Return how the last map moves when the weights move along the direction, and what the way back needs."""
        moved: Tensor | None = None
        tangents = []
        for block, turn, maps in zip(self._weights.blocks, direction.blocks, self._maps, strict=True):
            z, r = maps.z, maps.r
            f = block.scale * r
            dz = _conv(maps.entry, turn.kernel)
            if moved is not None:
                dz += _conv(moved, block.kernel)
            scratch = dz * z
            mean, stretch = _mean(dz, z), _mean(scratch, z) * r
            mask = _mask(block, z, r)
            open_dz = _pool(torch.mul(mask, dz, out=scratch))
            tangents.append(_Tangent(moved, dz, mask, open_dz, mean, stretch))
            moved = (turn.shift - f * mean) * maps.open
            moved.addcmul_(maps.open_z, r * turn.scale - f * r * stretch).addcmul_(open_dz, f)
        assert moved is not None
        return moved, tangents

    def _backward(
        self, direction: Weights, e: Tensor, tangents: list[_Tangent], through_weights: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Return how the derivative with respect to the images moves, and those of the weights of all blocks.

        ``e`` is the move of the derivative with respect to the last map. The move of ``delta``, the derivative with
        respect to a convolution, is that of ``r * (g - mean(g) - x * mean(g * x))`` with the normalised map
        ``x = z * r`` and ``g = scale * active``, gathered by map.
        """
        parts: list[Tensor] = []
        blocks = zip(self._weights.blocks, direction.blocks, self._maps, tangents, strict=True)
        for block, turn, maps, tangent in reversed(list(blocks)):
            z, r, stretch = maps.z, maps.r, tangent.stretch
            f = block.scale * r
            mean, along = _mean(e * maps.open, z), _mean(e * maps.open_z, z) * r
            along += r * (_mean(maps.exit * tangent.open_dz, z) - tangent.mean * maps.mean - stretch * maps.along)
            means = turn.scale * maps.mean + block.scale * mean
            products = turn.scale * maps.along + block.scale * along
            constant = r * (f * (maps.along * tangent.mean + stretch * maps.mean) - means)
            moved = torch.addcmul(constant, z, r * r * (2 * f * stretch * maps.along - products))
            moved.addcmul_(tangent.dz, -f * r * maps.along)
            _add_active(moved, tangent.mask, maps.exit * (r * turn.scale - f * r * stretch) + e * f)
            e = _conv_input(moved, maps.entry, block.kernel)
            e += _conv_input(maps.delta, maps.entry, turn.kernel)
            if through_weights:
                kernel = _conv_kernel(moved, maps.entry, block.kernel)
                if tangent.entry is not None:
                    kernel += _conv_kernel(maps.delta, tangent.entry, block.kernel)
                scale, shift = (maps.pixels * value.sum((0, 1, 2)) for value in (along, mean))
                parts = [kernel, torch.zeros_like(shift), scale, shift, *parts]
        return e, parts


def _conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the 3x3 convolution of channel-last maps, contiguous and the caller's own."""
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1).contiguous()


def _conv_input(delta: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """Return the derivative with respect to a convolution's input."""
    return _conv_backward(delta, x, kernel, [True, False, False])[0].permute(0, 2, 3, 1).contiguous()


def _conv_kernel(delta: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """Return the derivative with respect to a convolution's kernel."""
    return _conv_backward(delta, x, kernel, [False, True, False])[1]


def _conv_backward(delta: Tensor, x: Tensor, kernel: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        delta.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
    )
    return grads


def _mean(x: Tensor, full: Tensor) -> Tensor:
    """Return the sum over the pixels of ``x``, a full or a pooled map, divided by the number of pixels of ``full``."""
    return x.sum((1, 2), keepdim=True) / (full.shape[1] * full.shape[2])


def _mask(block: _Block, z: Tensor, r: Tensor) -> Tensor:
    """Return 1 where the ReLU is open, else 0, as numbers: Boolean masks are several times slower on CPUs."""
    return torch.addcmul(block.shift, z, r * block.scale).gt_(0)


def _pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).contiguous()


def _add_active(x: Tensor, mask: Tensor, e: Tensor) -> Tensor:
    """Add to ``x``, in place, the derivative ``e`` of a pooled map taken back through pooling and ReLU."""
    n, rows, columns, channels = e.shape
    cells = (n, rows, 2, columns, 2, channels)
    height, width = 2 * rows, 2 * columns
    inner, seen = (map_[:, :height, :width].unflatten(1, (rows, 2)).unflatten(3, (columns, 2)) for map_ in (x, mask))
    inner.addcmul_(seen, (e / 4)[:, :, None, :, None].expand(cells))
    return x


def _unflatten(features: Tensor, like: Tensor) -> Tensor:
    """Return features [N, C * H * W] as channel-last maps."""
    n, height, width, channels = like.shape
    return features.view(n, channels, height, width).permute(0, 2, 3, 1).contiguous()


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
