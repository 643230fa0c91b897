"""VGG-11 for small images, as the dataset-condensation repositories build it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ddnl_ray.models.norm import make_norm

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Filters of the convolutions before each of the five max-poolings."""


class ConvNormReLU(nn.Module):
    """Conv 3x3 (padding 1, bias), normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = make_norm(norm, out_channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``."""
        return F.relu(self.norm(self.conv(x_NCHW)))


class VGG11(nn.Module):
    """Simonyan and Zisserman (ICLR 2015), configuration A, with normalisation and one linear layer.

    Differs from the original:
        The Dataset Condensation lineage flattens after the last pooling, which fits 32 x 32 images only. Here
        the remaining map is averaged: the same numbers at 32 x 32, and any larger image works.

    Args:
        norm: ``instance``, ``batch`` or ``none``.
        in_channels: Channels of the images.
        num_classes: Number of logits.
    """

    def __init__(self, *, norm: str, in_channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in STAGES:
            for out_channels in stage:
                layers.append(ConvNormReLU(channels, out_channels, norm))
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def maps(self, x_NCHW: Tensor) -> Tensor:
        """Return the output of the last pooling, ``(N, 512, H // 32, W // 32)``."""
        maps: Tensor = self.layers(x_NCHW)
        return maps

    def pooled(self, maps_NCHW: Tensor) -> Tensor:
        """Return the input of the linear layer: the mean of every map."""
        return maps_NCHW.mean(dim=(2, 3))

    def features(self, x_NCHW: Tensor) -> Tensor:
        """Return the averaged output of the last pooling, ``(N, 512)``."""
        return self.pooled(self.maps(x_NCHW))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the logits, ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x_NCHW))
        return logits
