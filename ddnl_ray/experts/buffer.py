"""Views on expert trajectories: what a method reads, whoever holds the bytes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Experts(Protocol):
    """Expert trajectories as a method reads them."""

    @property
    def final_epoch(self) -> int:
        """The last epoch of the training of every expert."""

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
        final_epoch: The last epoch of training.
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
        return read_only(self.arrays[expert][self.epochs.index(epoch)], self.dtype).float().clone()


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


def window(last_epoch: int, final_epoch: int) -> tuple[int, ...]:
    """Return the epochs that matching up to ``last_epoch`` can read, and the final one (label initialisation)."""
    return (*range(min(last_epoch, final_epoch) + 1), *((final_epoch,) if final_epoch > last_epoch else ()))
