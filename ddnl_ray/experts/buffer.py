"""Views on expert trajectories: what a method reads, whoever holds the bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddnl_ray.errors import RequestError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Experts(Protocol):
    """Expert trajectories as a method reads them."""

    @property
    def final_epoch(self) -> int:
        """The epoch at which the recipe ends training; held for the methods that read it (``Method.reads_final``)."""

    def __len__(self) -> int:
        """Return the number of experts."""

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Return a private float32 copy of an expert's weights [P] after ``epoch`` epochs (0: before training)."""


@dataclass(frozen=True)
class ArrayExperts:
    """Experts whose snapshots lie in NumPy arrays, perhaps in shared memory.

    Attributes:
        arrays: One array per expert [len(epochs), P]: float32, float16, or bfloat16 bits as uint16.
        epochs: The epochs that the rows hold.
        final_epoch: The epoch at which the recipe ends training.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
    """

    arrays: Sequence[npt.NDArray[np.generic]]
    epochs: tuple[int, ...]
    final_epoch: int
    dtype: str = "float32"

    def __len__(self) -> int:
        """Return the number of experts."""
        return len(self.arrays)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Return a private float32 copy of an expert's weights [P] (see :class:`Experts`)."""
        return read_only(self.arrays[expert][row_of(epoch, self.epochs)], self.dtype).float().clone()


def row_of(epoch: int, epochs: tuple[int, ...]) -> int:
    """Return the row of an epoch's snapshot in an array that holds ``epochs``, in ascending order.

    Raises:
        RequestError: The epoch is not held.
    """
    if epoch not in epochs:
        raise RequestError(
            f"the experts' snapshot of epoch {epoch} was read, but epochs {ranges(epochs)} are held: those up to the "
            "last_epoch of the method's configuration, and the final one for methods that set reads_final"
        )
    return epochs.index(epoch)


def ranges(epochs: Iterable[int]) -> str:
    """Return ascending numbers in words: ``0-8, 12``."""
    spans: list[list[int]] = []
    for epoch in epochs:
        if spans and epoch == spans[-1][1] + 1:
            spans[-1][1] = epoch
        else:
            spans.append([epoch, epoch])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def read_only(array: npt.NDArray[np.generic], dtype: str = "float32") -> Tensor:
    """Return a tensor over a read-only array without a copy, on which in-place operations raise.

    An in-place operation on ``torch.from_numpy`` of shared memory would silently change the buffer of every other
    process. On a tensor made in inference mode it raises, but only after it has written (torch checks last): the fault
    is loud, not prevented. So keep the view to yourself and hand out clones, which may also take part in a graph.
    """
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
