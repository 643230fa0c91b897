"""Big things in the object store: one copy per node, read by every trial without copying.

An actor per expert buffer owns the references. They are results of tasks that read the content-addressed store, so Ray
can make them again when a node is lost; when the actor itself is lost it is restarted and reads the store anew.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from ddnl_ray.experts import ExpertStore
from ddnl_ray.experts.buffer import read_only

ATTEMPTS = 5
TIMEOUT_S = 600.0


@ray.remote(num_cpus=0, max_retries=-1)  # type: ignore[untyped-decorator]
def load_expert(root: str, key: str, index: int, epochs: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Read one expert's snapshots from the store into the object store."""
    return ExpertStore(Path(root)).load(key, index, epochs)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ExpertBuffer:
    """Owns the references to the snapshots of one expert buffer."""

    def __init__(self, root: str, key: str, num_experts: int, epochs: tuple[int, ...]) -> None:
        self._references: list[ray.ObjectRef[Any]] = [
            load_expert.remote(root, key, index, epochs) for index in range(num_experts)
        ]

    def references(self) -> list[ray.ObjectRef[Any]]:
        """Return one reference per expert."""
        return self._references


class SharedExperts:
    """Experts that are read from the object store (implements :class:`ddnl_ray.experts.Experts`).

    Args:
        actor: Handle of the buffer's :class:`ExpertBuffer`.
        num_experts: How many there are.
        epochs: The epochs that the buffer holds.
        final_epoch: The last epoch of training.
        dtype: How snapshots are stored.
    """

    def __init__(self, actor: Any, num_experts: int, epochs: tuple[int, ...], final_epoch: int, dtype: str) -> None:
        self._actor, self._num, self._epochs, self._dtype = actor, num_experts, epochs, dtype
        self.final_epoch = final_epoch
        self._references: list[Any] | None = None
        self._arrays: dict[int, npt.NDArray[np.generic]] = {}

    def __len__(self) -> int:
        """Return the number of experts."""
        return self._num

    def snapshot(self, expert: int, epoch: int) -> torch.Tensor:
        """Return a private float32 copy of an expert's weights [P] (see :class:`ddnl_ray.experts.Experts`)."""
        if expert not in self._arrays:
            self._arrays[expert] = self._fetch(expert)
        return read_only(self._arrays[expert][self._epochs.index(epoch)], self._dtype).float().clone()

    def _fetch(self, expert: int) -> npt.NDArray[np.generic]:
        """Get one expert's array, asking the actor to read it again where it was lost."""
        for attempt in range(ATTEMPTS):
            try:
                if self._references is None:
                    self._references = ray.get(self._actor.references.remote(), timeout=TIMEOUT_S)
                array: npt.NDArray[np.generic] = ray.get(self._references[expert], timeout=TIMEOUT_S)
                return array
            except (ObjectLostError, RayActorError, GetTimeoutError):
                if attempt == ATTEMPTS - 1:
                    raise
                self._references = None
                time.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")
