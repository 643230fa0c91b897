"""Symmetric label noise: every wrong class is equally likely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def symmetric(rate: float, num_classes: int) -> NDArray[np.float64]:
    """Return the transition matrix of symmetric noise, shape ``(C, C)``, rows true class.

    ``T[y, y] = 1 - rate`` and ``T[y, k] = rate / (C - 1)`` for ``k != y`` (Patrini et al., CVPR 2017): a
    flipped label is never the true one, so the rate is the probability of a wrong label. (DivideMix and C2D
    redraw from all classes; their rate ``r`` is ``r * (C - 1) / C`` here.)

    Args:
        rate: Probability that a label is wrong, in ``[0, 1)``.
        num_classes: C, at least 2.
    """
    matrix = np.full((num_classes, num_classes), rate / (num_classes - 1))
    np.fill_diagonal(matrix, 1 - rate)
    return matrix
