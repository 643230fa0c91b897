"""Pair-flip label noise: every class is mistaken for the next one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pairflip(rate: float, num_classes: int) -> NDArray[np.float64]:
    """Return the transition matrix of pair-flip noise, shape ``(C, C)``, rows true class.

    ``T[y, y] = 1 - rate`` and ``T[y, (y + 1) mod C] = rate``. This is what RDC (Kim and Song, ICCV 2025)
    calls asymmetric noise; all classes are affected, so it is harsher than the semantic maps at the same
    rate.

    Differs from the original:
        RDC flips exactly ``round(rate * N)`` labels; here every label is drawn independently.

    Args:
        rate: Probability that a label is wrong, in ``[0, 1)``.
        num_classes: C, at least 2.
    """
    identity = np.eye(num_classes)
    return (1 - rate) * identity + rate * np.roll(identity, 1, axis=1)
