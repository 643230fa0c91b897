"""ConvNet-D: the network that dataset distillation is measured with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ddnl_ray.models.norm import make_norm


class ConvBlock(nn.Module):
    """Conv 3x3 (padding 1, bias), normalisation, ReLU, average pooling 2x2.

    The pooling drops the last row and column of a map of odd size.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = make_norm(norm, out_channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, out_channels, H // 2, W // 2)``."""
        return F.avg_pool2d(F.relu(self.norm(self.conv(x_NCHW))), kernel_size=2)


class ConvNet(nn.Module):
    """``depth`` blocks of :class:`ConvBlock` and one linear layer.

    Depth 3 is the field's network for 32 x 32 images, depth 4 for 64 x 64; with width 128 both end in 2048
    features.
    Source: the ConvNet of Gidaris and Komodakis (CVPR 2018) as used by Zhao et al. (Dataset Condensation,
        ICLR 2021)
    and every trajectory-matching method since.

    Parameters are registered block by block as conv weight, conv bias, norm weight, norm bias; the linear
    layer last.

    Args:
        depth: Number of blocks.
        width: Filters of every convolution.
        norm: ``instance``, ``batch`` or ``none``.
        in_channels: Channels of the images.
        size: Height and width of the images; ``size // 2**depth`` must be at least 1.
        num_classes: Number of logits.
    """

    def __init__(self, *, depth: int, width: int, norm: str, in_channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        channels = [in_channels] + [width] * depth
        self.blocks = nn.Sequential(*(ConvBlock(channels[i], channels[i + 1], norm) for i in range(depth)))
        self.classifier = nn.Linear(width * (size // 2**depth) ** 2, num_classes)

    def maps(self, x_NCHW: Tensor) -> Tensor:
        """Return the output of the last block, ``(N, width, size // 2**depth, size // 2**depth)``."""
        maps: Tensor = self.blocks(x_NCHW)
        return maps

    def pooled(self, maps_NCHW: Tensor) -> Tensor:
        """Return the input of the linear layer: the maps, flattened."""
        return maps_NCHW.flatten(1)

    def features(self, x_NCHW: Tensor) -> Tensor:
        """Return the flattened input of the linear layer, ``(N, width * (size // 2**depth)**2)``."""
        return self.pooled(self.maps(x_NCHW))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the logits, ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x_NCHW))
        return logits
