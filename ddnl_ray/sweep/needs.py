"""Which expert snapshots a sweep reads, and which experts must be trained for that."""

from __future__ import annotations

from dataclasses import dataclass

from ddnl_ray.experts import BufferId, ExpertStore, groups
from ddnl_ray.experts.precision import require_precision
from ddnl_ray.sweep.plan import Cell, Plan


@dataclass(frozen=True)
class Need:
    """An expert buffer that a sweep needs.

    Attributes:
        buffer: What it is.
        cell: A cell that needs it (its labels and data are those of all that do).
        num_experts: How many experts.
        last_epoch: The last epoch that matching reads in any of its cells.
        finals: The final epochs that its cells read beside those.
    """

    buffer: BufferId
    cell: Cell
    num_experts: int
    last_epoch: int
    finals: frozenset[int]

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that are read, ascending."""
        return tuple(sorted({*range(self.last_epoch + 1), *self.finals}))

    @property
    def train_to(self) -> int:
        """The epoch up to which experts are trained: the last that is read."""
        return self.epochs[-1]

    def groups(self, store: ExpertStore, at_once: int) -> list[list[int]]:
        """Return the experts that are to be trained, in groups that train together."""
        return groups(dict(enumerate(store.reach(self.buffer.key, self.num_experts))), self.train_to, at_once)


def needs(plan: Plan, cells: list[Cell]) -> dict[str, Need]:
    """Return the expert buffers that cells need, by key."""
    found: dict[str, Need] = {}
    for cell in cells:
        buffer = plan.buffer(cell)
        if buffer is None:
            continue
        num, last = cell.config.num_experts, cell.last_epoch
        finals = frozenset({buffer.recipe.epochs} if cell.reads_final else ())
        old = found.get(buffer.key)
        if old is not None:
            num, last = max(num, old.num_experts), max(last, old.last_epoch)
            finals |= old.finals
        found[buffer.key] = Need(buffer, cell, num, last, finals)
    return found


def verify_experts(needed: dict[str, Need], store: ExpertStore, rebuild: bool) -> None:
    """Check the stored experts that a sweep will read or train on from.

    Raises:
        CorruptFileError: A segment fails its checks and ``rebuild`` is off.
    """
    for key, need in needed.items():
        if rebuild:
            store.discard_corrupt(key, need.num_experts)
        else:
            store.verify(key, need.num_experts, need.epochs)


def require_trainable(needed: dict[str, Need], store: ExpertStore, device: str) -> None:
    """Check that what the store lacks can be trained on a device.

    Raises:
        RequestError: The device cannot compute in a recipe's precision.
    """
    for key, need in needed.items():
        if store.missing(key, need.num_experts, need.train_to):
            require_precision(need.buffer.recipe.precision, device)
