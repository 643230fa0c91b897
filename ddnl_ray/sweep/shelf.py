"""What trials share, in the object store: data, labels, and the actor that holds the expert buffers."""

from __future__ import annotations

from typing import Any

from ddnl_ray.data import Whitening
from ddnl_ray.experts import BufferId, ExpertStore
from ddnl_ray.sweep.memory import admitted, node_stores, noted
from ddnl_ray.sweep.needs import CellNeed
from ddnl_ray.sweep.plan import Cell, Plan


class Shelf:
    """The plan's data and labels in the object store, put there on first use."""

    def __init__(self, ray: Any, plan: Plan, store: ExpertStore) -> None:
        self._ray, self.plan, self.store = ray, plan, store
        self.root = store.folder.address
        self._data: dict[Whitening, Any] = {}
        self._labels: dict[Any, Any] = {}
        self._actor: Any = None
        self._sources: dict[str, Any] = {}
        self._streamed: dict[str, int] = {}

    def data(self, cell: Cell) -> Any:
        """Return the reference to a cell's prepared data."""
        from ddnl_ray.sweep.worker import SharedData

        if cell.zca not in self._data:
            data = self.plan.data[cell.zca]
            self._data[cell.zca] = SharedData(self._ray.put(data.arrays()), data.meta())
        return self._data[cell.zca]

    def labels(self, cell: Cell) -> Any:
        """Return the reference to a cell's noisy labels."""
        if cell.labels_key not in self._labels:
            self._labels[cell.labels_key] = self._ray.put(self.plan.labels[cell.labels_key])
        return self._labels[cell.labels_key]

    def open_buffers(self, needed: dict[str, CellNeed]) -> None:
        """Start the actor that shares the buffers for which there is room."""
        from ddnl_ray.sweep.shared import BufferSource, ExpertBuffers

        sizes = {key: self._num_bytes(key, need) for key, need in needed.items()}
        held = admitted(sizes, node_stores(self._ray))
        self._streamed = {key: size for key, size in sizes.items() if key not in held}
        for key, need in needed.items():
            self.store.touch(key)
            root = self.root if key in self._streamed else None
            self._sources[key] = BufferSource(key, need.num_experts, need.epochs, need.buffer.dtype, root)
        self._actor = ExpertBuffers.remote(self.root, self._sources)  # type: ignore[attr-defined]

    def stores(self) -> dict[str, Any]:
        """Return how full the object stores are (see :func:`ddnl_ray.sweep.memory.noted`)."""
        return noted(node_stores(self._ray), self._streamed)

    def _num_bytes(self, key: str, need: CellNeed) -> int:
        """Return what a buffer takes in the object store."""
        return need.num_experts * len(need.epochs) * self.store.load(key, 0, need.epochs[:1]).nbytes

    def experts(self, cell: Cell, buffer: BufferId) -> Any:
        """Return a cell's view of a buffer."""
        from ddnl_ray.sweep.shared import SharedExperts

        source = self._sources[buffer.key]
        return SharedExperts(self._actor, source, cell.config.num_experts, buffer.recipe.epochs)

    def prepared(self, cell: Cell) -> Any:
        """Return what a trial of a cell reads of what was prepared; None: nothing, or the trial prepares itself."""
        from ddnl_ray.sweep.worker import Prepared

        preparation = self.plan.preparation(cell)
        if preparation is None or cell.prepares_itself:
            return None
        views = [
            self.experts(cell, buffer) if buffer is not None else None
            for buffer in (preparation.experts, preparation.targets)
        ]
        return Prepared(preparation, *views)
