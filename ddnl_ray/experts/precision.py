"""In which numbers a network computes while experts are trained.

Weights, losses and updates are float32 in any case. What differs is the network:

    float32: every product is exact to float32, on a GPU too (where torch's own default rounds those of convolutions);
    tf32: products of matrices and convolutions round their factors to 10 bits (NVIDIA GPUs, Ampere and later);
    bfloat16: the network and its backward pass, on copies of the weights and images that are rounded for every step.

Not ``torch.autocast``: it passes over the convolutions of a mapped network (``torch.func.vmap``, on a CPU, torch 2.15),
so that experts that train together would train in other numbers than one alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ddnl_ray.errors import RequestError

PRECISIONS = ("float32", "tf32", "bfloat16")


def require_precision(precision: str, device: torch.device | str) -> None:
    """Check that a device can compute in a precision.

    Raises:
        RequestError: It cannot.
    """
    kind = torch.device(device).type
    if precision == "tf32" and kind != "cuda":
        raise RequestError(
            f"experts.precision: tf32 needs an NVIDIA GPU, but experts would train on the {kind}; use float32 or "
            "bfloat16, or train them where there is one"
        )


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices and convolutions in a precision inside the block; both passes are subject to it."""
    if device.type != "cuda":
        yield
        return
    places: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
