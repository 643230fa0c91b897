"""The ConvNet of the kernel methods: no normalisation, and twice as many filters in every next block."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDED_SIZE = 28
"""Images of this size (MNIST's) are padded to 32 by the first convolution."""


class LecunConv2d(nn.Conv2d):
    """A convolution that starts as Flax's: see :func:`lecun_`."""

    def draw_parameters(self, generator: torch.Generator) -> None:
        """Draw the weight; the bias becomes 0."""
        lecun_(self.weight, self.bias, generator)


class LecunLinear(nn.Linear):
    """A linear layer that starts as Flax's: see :func:`lecun_`."""

    def draw_parameters(self, generator: torch.Generator) -> None:
        """Draw the weight; the bias becomes 0."""
        lecun_(self.weight, self.bias, generator)


@torch.no_grad()
def lecun_(weight: Tensor, bias: Tensor | None, generator: torch.Generator) -> None:
    """Draw a weight of variance 1 / fan_in from a normal distribution cut at two deviations; the bias becomes 0."""
    # The factor is the deviation of a standard normal variable that is cut at -2 and 2.
    std = 1 / math.sqrt(weight[0].numel()) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
    if bias is not None:
        bias.zero_()


class DoublingConvNet(nn.Module):
    """Blocks of a 3x3 convolution with bias, an activation and 2x2 average pooling, and one linear layer.

    Source: the network of FRePo (Zhou et al. 2022) and RCIG (Loo et al. 2023), whose deeper blocks have ``width``,
    ``2 width``, ``4 width``, ... filters. At width 128, depth 3 and 32 x 32 pixels it has 8192 features.

    Args:
        depth: Number of blocks.
        width: Filters of the first convolution.
        in_channels: Channels of the images.
        size: Height and width of the images; 28 is padded to 32.
        num_classes: Number of logits.

    Attributes:
        softplus: The activation is ``softplus(softplus * x) / softplus``; 0: ReLU.
    """

    def __init__(self, *, depth: int, width: int, in_channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        first = 3 if size == PADDED_SIZE else 1
        channels = [in_channels] + [width * 2**block for block in range(depth)]
        self.convs = nn.ModuleList(
            LecunConv2d(channels[block], channels[block + 1], kernel_size=3, padding=1 if block else first)
            for block in range(depth)
        )
        side = (size + 2 * (first - 1)) // 2**depth
        self.classifier = LecunLinear(channels[-1] * side**2, num_classes)
        self.softplus = 0.0

    def smoothed(self, softplus: float) -> DoublingConvNet:
        """Return the same network, with the same parameters, whose activation is the given softplus."""
        other = copy.copy(self)
        other.softplus = softplus
        return other

    def maps(self, x_NCHW: Tensor) -> Tensor:
        """Return the output of the last block."""
        for conv in self.convs:
            z = conv(x_NCHW)
            active = F.softplus(z, beta=self.softplus) if self.softplus else F.relu(z)
            x_NCHW = F.avg_pool2d(active, kernel_size=2)
        return x_NCHW

    def pooled(self, maps_NCHW: Tensor) -> Tensor:
        """Return the input of the linear layer: the maps, flattened."""
        return maps_NCHW.flatten(1)

    def features(self, x_NCHW: Tensor) -> Tensor:
        """Return the flattened input of the linear layer."""
        return self.pooled(self.maps(x_NCHW))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the logits, ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x_NCHW))
        return logits
