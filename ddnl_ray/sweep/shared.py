"""Big things in the object store: one copy per node, read by every trial without copying.

One actor owns the references to all expert buffers of a sweep. They are results of tasks that read the
content-addressed store, so Ray can make them again when a node is lost; when the actor itself is lost it is restarted
and reads the store anew.

Buffers for which the object stores have no room (:func:`ddnl_ray.sweep.memory.admitted`) are not put there: a trial
reads each snapshot from the expert store when it needs it, and the trials of a node share the copy that its operating
system keeps in memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from ddnl_ray.experts import ExpertStore
from ddnl_ray.experts.buffer import read_only, row_of

ATTEMPTS = 5
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class BufferSource:
    """What of a stored buffer trials read.

    Attributes:
        key: The buffer.
        num_experts: How many of its experts.
        epochs: Which of their snapshots, ascending.
        dtype: How the snapshots are stored.
        root: Where trials read it from; None: the object store.
    """

    key: str
    num_experts: int
    epochs: tuple[int, ...]
    dtype: str
    root: str | None = None


@ray.remote(num_cpus=0, max_retries=-1)  # type: ignore[untyped-decorator]
def load_experts(root: str, source: BufferSource) -> Any:
    """Read the experts of a buffer from the store into the object store, one object each.

    It yields them, so that the process never holds more than one beside the object store.
    """
    store = ExpertStore.at(root)
    for index in range(source.num_experts):
        yield store.load(source.key, index, source.epochs)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ExpertBuffers:
    """Owns the references to the snapshots of all buffers of a sweep; reads a buffer when it is first asked for.

    Args:
        root: The address of the expert store; every node can read it.
        sources: What to read, by key.
    """

    def __init__(self, root: str, sources: dict[str, BufferSource]) -> None:
        self._root, self._sources = root, sources
        self._references: dict[str, list[ray.ObjectRef[Any]]] = {}

    def references(self, key: str) -> list[ray.ObjectRef[Any]]:
        """Return one reference per expert."""
        if key not in self._references:
            source = self._sources[key]
            made = load_experts.options(num_returns=source.num_experts).remote(self._root, source)
            self._references[key] = [made] if source.num_experts == 1 else made
        return self._references[key]


class SharedExperts:
    """The experts of one cell, as its trials share them (implements :class:`ddnl_ray.experts.Experts`).

    Cells of one buffer may differ in how many experts they use and when training ends: each sees its own, whatever the
    others need.

    Args:
        actor: Handle of the sweep's :class:`ExpertBuffers`.
        source: Which buffer, and what of it is there.
        num_experts: How many experts the cell uses.
        final_epoch: The epoch at which its recipe ends training.
    """

    def __init__(self, actor: Any, source: BufferSource, num_experts: int, final_epoch: int) -> None:
        self._actor, self._source = actor, source
        self._num_experts, self._final_epoch = num_experts, final_epoch
        self._references: list[Any] | None = None
        self._arrays: dict[int, npt.NDArray[np.generic]] = {}

    @property
    def final_epoch(self) -> int:
        """The epoch at which the recipe ends training."""
        return self._final_epoch

    def __len__(self) -> int:
        """Return the number of experts."""
        return self._num_experts

    def snapshot(self, expert: int, epoch: int) -> torch.Tensor:
        """Return a private float32 copy of an expert's weights [P] (see :class:`ddnl_ray.experts.Experts`)."""
        source, row = self._source, row_of(epoch, self._source.epochs)
        if source.root is not None:
            (array,) = ExpertStore.at(source.root).load(source.key, expert, [epoch])
            return read_only(array, source.dtype).float().clone()
        if expert not in self._arrays:
            self._arrays[expert] = self._fetch(expert)
        return read_only(self._arrays[expert][row], source.dtype).float().clone()

    def _fetch(self, expert: int) -> npt.NDArray[np.generic]:
        """Get one expert's array, asking the actor to read it again where it was lost."""
        for attempt in range(ATTEMPTS):
            try:
                if self._references is None:
                    self._references = ray.get(self._actor.references.remote(self._source.key), timeout=TIMEOUT_S)
                array: npt.NDArray[np.generic] = ray.get(self._references[expert], timeout=TIMEOUT_S)
                return array
            except (ObjectLostError, RayActorError, GetTimeoutError):
                if attempt == ATTEMPTS - 1:
                    raise
                self._references = None
                time.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")
