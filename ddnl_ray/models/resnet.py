"""ResNet-18 for small images, as the dataset-condensation repositories build it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ddnl_ray.models.norm import make_norm

STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
"""Width multiplier and first stride of the four stages."""
BLOCKS_PER_STAGE = 2


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with normalisation and a shortcut (1x1 convolution where the shape changes)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
            self.shortcut.append(make_norm(norm, out_channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``."""
        hidden = F.relu(self.norm1(self.conv1(x_NCHW)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x_NCHW))


class ResNet18(nn.Module):
    """He et al. (CVPR 2016) with a 3x3 stem and no max-pooling, as in the Dataset Condensation lineage.

    Differs from the original:
        The lineage averages over a fixed 4 x 4 window, which fits 32 x 32 images only. Here the average is
        over the whole map: the same numbers at 32 x 32, and any larger image works.

    Args:
        width: Filters of the first stage; the others have 2, 4 and 8 times as many.
        norm: ``instance``, ``batch`` or ``none``.
        in_channels: Channels of the images.
        num_classes: Number of logits.
    """

    def __init__(self, *, width: int, norm: str, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = make_norm(norm, width)
        self.stages = nn.Sequential()
        channels = width
        for multiplier, stride in STAGES:
            stage = nn.Sequential()
            for index in range(BLOCKS_PER_STAGE):
                out_channels = multiplier * width
                stage.append(BasicBlock(channels, out_channels, stride if index == 0 else 1, norm))
                channels = out_channels
            self.stages.append(stage)
        self.classifier = nn.Linear(channels, num_classes)

    def maps(self, x_NCHW: Tensor) -> Tensor:
        """Return the output of the last stage, ``(N, 8 * width, H / 8, W / 8)``."""
        maps: Tensor = self.stages(F.relu(self.norm(self.conv(x_NCHW))))
        return maps

    def pooled(self, maps_NCHW: Tensor) -> Tensor:
        """Return the input of the linear layer: the mean of every map."""
        return maps_NCHW.mean(dim=(2, 3))

    def features(self, x_NCHW: Tensor) -> Tensor:
        """Return the globally averaged output of the last stage, ``(N, 8 * width)``."""
        return self.pooled(self.maps(x_NCHW))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the logits, ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x_NCHW))
        return logits
