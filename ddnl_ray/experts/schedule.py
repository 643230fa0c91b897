"""How the learning rate falls where it falls in thirds: the schedule of the IDC lineage."""

from __future__ import annotations

FACTOR = 0.2


def thirds(done: int, total: int) -> float:
    """Return the factor on the learning rate after ``done`` epochs of a schedule of ``total``.

    It is 1, then 0.2 after floor(2 total / 3) epochs, then 0.04 after floor(5 total / 6). The momentum is kept.
    """
    return FACTOR ** sum(done >= milestone for milestone in (2 * total // 3, 5 * total // 6))
