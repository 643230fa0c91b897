"""How many images go through a network at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddnl_ray.models.flat import Flat, Outputs

PART_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}
"""Bytes of the widest map of the images that go through at once: on a CPU they should stay in its cache."""


def part_size(module: nn.Module, size: int, device: torch.device, smaller: int = 0) -> int | None:
    """Return how many images of ``size`` x ``size`` pixels go through a network at once; None: a batch must be whole.

    A batch that is taken in parts, each with its share of the mean loss, has the gradient of the whole batch, so long
    as the network treats each image by itself; a batch normalisation does not.

    Args:
        module: The network; its first layer has its widest maps.
        size: Height and width of the images.
        device: Where it runs.
        smaller: How often the work ran out of memory; each time the parts are a quarter of what they were.
    """
    if any(True for _ in module.buffers()):
        return None
    channels = next(module.parameters()).shape[0]
    return max(1, (PART_BYTES.get(device.type, PART_BYTES["cuda"]) >> (2 * smaller)) // (4 * channels * size * size))


def outputs_of(network: Flat, theta: Tensor, images: Tensor, smaller: int = 0) -> Outputs:
    """Return what a network computes of images, part by part; gradients flow where they are recorded.

    Args:
        network: The network.
        theta: Its weights [P].
        images: [N, C, H, W].
        smaller: How often the work ran out of memory.
    """
    size = part_size(network.module, images.shape[-1], images.device, smaller)
    assert size is not None  # a flat network has no batch normalisation
    # Copies, because kernels choose their path by alignment, and memory that is shared has an alignment of its own.
    parts = [part.clone() for part in images.split(size)]
    if smaller and torch.is_grad_enabled():
        # A part's graph is thrown away and made again on the way back: memory for time, the same numbers.
        found = [checkpoint(network.outputs, theta, part, use_reentrant=False) for part in parts]
    else:
        found = [network.outputs(theta, part) for part in parts]
    return found[0] if len(found) == 1 else Outputs(*(torch.cat(pieces) for pieces in zip(*found, strict=True)))
