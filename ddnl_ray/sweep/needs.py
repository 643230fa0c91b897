"""Which expert snapshots a sweep reads, and which experts must be trained for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.experts.precision import require_precision
from ddnl_ray.robust import bring
from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.trial.prepare import Need, needs_of


@dataclass(frozen=True)
class CellNeed(Need):
    """What a sweep reads of a buffer.

    Attributes:
        cell: A cell that needs it (its labels and data are those of all that do).
    """

    cell: Cell


def needs(plan: Plan, cells: Iterable[Cell]) -> dict[str, CellNeed]:
    """Return the buffers that cells need, by key; cells whose trials prepare themselves are left out."""
    found: dict[str, CellNeed] = {}
    for cell in cells:
        preparation = plan.preparation(cell)
        if preparation is None or cell.prepares_itself:
            continue
        for need in needs_of(cell.config, preparation, **cell.highest):
            key = need.buffer.key
            found[key] = _merged(found.get(key), need, cell)
    return found


def _merged(old: CellNeed | None, need: Need, cell: Cell) -> CellNeed:
    """Return what is read of a buffer by a cell and those before it."""
    if old is None:
        return CellNeed(need.buffer, need.num_experts, need.last_epoch, need.finals, cell)
    num, last = max(old.num_experts, need.num_experts), max(old.last_epoch, need.last_epoch)
    return CellNeed(need.buffer, num, last, old.finals | need.finals, cell)


def verify_experts(needed: dict[str, CellNeed], store: ExpertStore, rebuild: bool) -> None:
    """Check the stored experts that a sweep will read or train on from.

    Raises:
        CorruptFileError: A segment fails its checks and ``rebuild`` is off.
    """
    for key, need in needed.items():
        if rebuild:
            store.discard_corrupt(key, need.num_experts)
        else:
            store.verify(key, need.num_experts, need.epochs)


def verify_derived(plan: Plan, cells: Iterable[Cell], store: ExpertStore, rebuild: bool) -> None:
    """Check what is stored of what cells derive.

    Raises:
        CorruptFileError: A file fails its checks and ``rebuild`` is off.
    """
    preparations = [plan.preparation(cell) for cell in cells if not cell.prepares_itself]
    made = {each.key: each for own in preparations if own is not None for each in (*own.first, *own.then)}
    for derived in made.values():
        if derived.is_stored(store):
            try:
                bring(derived, store)
                derived.read(store.root)
            except CorruptFileError:
                if not rebuild:
                    raise
                store.folder.delete([derived.name])


def require_trainable(needed: dict[str, CellNeed], store: ExpertStore, device: str) -> None:
    """Check that what the store lacks can be trained on a device.

    Raises:
        RequestError: The device cannot compute in a recipe's precision.
    """
    for key, need in needed.items():
        if store.missing(key, need.num_experts, need.train_to):
            require_precision(need.buffer.recipe.precision, device)
