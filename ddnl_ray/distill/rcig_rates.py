"""How RCIG finds the learning rates of its inner systems, and how it adapts that of the inner problem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FIRST_LR_INNER, FIRST_LR_HESSIAN = 1e-5, 5e-5
GROWTH, BACK = 1.2, 0.7
MAX_TRIES = 100
"""Learning rates that are tried at most."""
ROSE_SHARE, MONOTONE_SHARE = 0.29, 0.7
SLOWER, FASTER = 0.9, 1.05


def falls(values: Tensor) -> Tensor:
    """Return whether every value [k] is below the one before it."""
    return (values[1:] < values[:-1]).all()


def largest_rate(objective: Callable[[Tensor], Tensor], first: Tensor) -> Tensor:
    """Return 0.84 times the first learning rate with which a step of an optimizer does not lower its objective.

    Rates grow by 1.2 from the first one on. The factor is 1.2 * 0.7: the failing rate still grows before 0.7 of it is
    taken, as in the authors' code.

    Args:
        objective: Maps a learning rate to the objective before every step [k].
        first: Where to start, a scalar.
    """
    lr = first
    for _ in range(MAX_TRIES):
        fell = bool(falls(objective(lr)))
        lr = lr * GROWTH
        if not fell:
            break
    return lr * BACK


def rate_change(window: Tensor) -> Tensor:
    """Return the factor on the inner learning rate after a window of iterations.

    It is 0.9 where at least 29 % of them ended with a higher loss than they began with, else 1.05 where in at least
    70 % of them every step lowered it, else 1.

    Args:
        window: Iterations, those that rose, those that fell throughout, int64 [3].
    """
    seen, rose, fell = window.double()
    faster = torch.where(fell >= MONOTONE_SHARE * seen, FASTER, 1.0)
    return torch.where(rose >= ROSE_SHARE * seen, SLOWER, faster)
