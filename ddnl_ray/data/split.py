"""Stratified hold-out: a test set for sources that come without one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ddnl_ray.errors import DataError
from ddnl_ray.seeds import SeedTree


def stratified_holdout(
    labels: npt.NDArray[np.int64], num_held: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split rows so that each class gives its share to the held-out part, and keeps at least one row.

    Shares are rounded by largest remainder, so the held-out part has exactly ``num_held`` rows.

    Args:
        labels: [N] class of each row.
        num_held: Rows to hold out.
        seed: Seed of the choice within each class.

    Returns:
        The kept rows and the held-out rows, both ascending.

    Raises:
        DataError: Holding out so many rows would leave a class without any.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not 0 < num_held <= int((counts - 1).sum()):
        raise DataError(
            f"cannot hold out {num_held} of {len(labels)} images as a test set and keep one of each of the "
            f"{len(classes)} classes; add images, or give a test set"
        )
    share = counts * num_held / len(labels)
    taken = np.minimum(np.floor(share).astype(np.int64), counts - 1)
    while taken.sum() < num_held:
        remainder = np.where(taken < counts - 1, share - taken, -np.inf)
        taken[np.argmax(remainder)] += 1
    held = [
        SeedTree.root(seed).child("holdout", int(label)).numpy().permutation(np.flatnonzero(labels == label))[:num]
        for label, num in zip(classes, taken, strict=True)
    ]
    held_rows = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_rows), held_rows
