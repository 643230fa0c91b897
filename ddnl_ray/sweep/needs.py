"""Which expert snapshots a sweep reads, and which experts must be trained for that."""

from __future__ import annotations

from dataclasses import dataclass

from ddnl_ray.experts import BufferId, ExpertStore
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
