"""How the learning rate moves: in thirds (the IDC lineage), or up and down a cosine (the kernel methods)."""

from __future__ import annotations

import math

FACTOR = 0.2
FLOOR = 0.01


def thirds(done: int, total: int) -> float:
    """Return the factor on the learning rate after ``done`` epochs of a schedule of ``total``.

    It is 1, then 0.2 after floor(2 total / 3) epochs, then 0.04 after floor(5 total / 6). The momentum is kept.
    """
    return FACTOR ** sum(done >= milestone for milestone in (2 * total // 3, 5 * total // 6))


def warm_cosine(taken: int, total: int, warm_up: float) -> float:
    """Return the factor on the learning rate of the step that follows ``taken`` of ``total`` steps.

    It rises in a line from 0 to 1 over the first ``warm_up * total`` steps, then falls along a cosine towards 0.01.
    """
    rising = round(warm_up * total)
    if taken < rising:
        return taken / rising
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * (taken - rising) / (total - rising))) / 2
