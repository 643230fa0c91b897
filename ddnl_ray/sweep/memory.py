"""The object stores of a cluster: what of the expert buffers they may hold, and how full they are.

A buffer that does not fit beside the others is not put there. Ray would write it to disk and read it back, piece by
piece, although it lies on a disk already: in the expert store, from which trials then read it
(:class:`ddnl_ray.sweep.shared.BufferSource`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

SHARE = 0.6
"""Part of the smallest object store that buffers may take; the rest is for data, labels and copies on their way."""
VARIABLE = "DDNL_BUFFER_SHARE"
"""Environment variable that sets another part."""
FILE = "object_store.json"
"""Where a run folder keeps their state."""


@dataclass(frozen=True)
class NodeStore:
    """The object store of one node.

    Attributes:
        node_id: Ray's name of it.
        node: Its address.
        used: Bytes of the objects that are there.
        capacity: Bytes that it holds.
        spilled: Bytes written to disk for want of room, since the node started.
        restored: Bytes read back, since then.
        received: Bytes of all objects that were made here or came here, since then.
    """

    node_id: str
    node: str
    used: int
    capacity: int
    spilled: int
    restored: int
    received: int


def node_stores(ray: Any) -> list[NodeStore]:
    """Ask every living node for the state of its object store; a node that does not answer is left out."""
    from ray._private.internal_api import node_stats  # Ray has no public way to ask

    found = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        address = node["NodeManagerAddress"]
        try:
            stats = node_stats(address, node["NodeManagerPort"], include_memory_info=False).store_stats
        except Exception:  # gRPC's errors; a node may die while it is asked, and this is only for show
            continue
        found.append(
            NodeStore(
                node_id=node["NodeID"],
                node=address,
                used=stats.object_store_bytes_used,
                capacity=stats.object_store_bytes_avail,
                spilled=stats.spilled_bytes_total,
                restored=stats.restored_bytes_total,
                received=stats.cumulative_created_bytes,
            )
        )
    return found


def admitted(sizes: Mapping[str, int], stores: Iterable[NodeStore]) -> set[str]:
    """Return the keys of the buffers that the object stores hold together, the first ones first.

    Args:
        sizes: Bytes of every buffer, in the order of the plan.
        stores: The stores; every one of them may come to hold all buffers.
    """
    room = float(os.environ.get(VARIABLE, SHARE)) * min((each.capacity for each in stores), default=0)
    found = set()
    for key, size in sizes.items():
        if size <= room:
            room -= size
            found.add(key)
    return found


def noted(stores: Iterable[NodeStore], streamed: Mapping[str, int]) -> dict[str, Any]:
    """Return the state of the object stores as the run folder keeps it, for ``ddnl status``.

    Args:
        stores: The stores.
        streamed: Bytes of the buffers that trials read from the expert store, by key.
    """
    return {"nodes": [asdict(each) for each in stores], "streamed": dict(streamed)}


def stores_text(state: Mapping[str, Any]) -> list[str]:
    """Return one line for every node's store, and one for the buffers that are streamed."""
    lines = []
    for each in state["nodes"]:
        line = f"  object store of {each['node']}: {_size(each['used'])} of {_size(each['capacity'])} used"
        if each["spilled"]:
            line += f", {_size(each['spilled'])} spilled to disk, {_size(each['restored'])} read back"
        lines.append(line)
    if state["streamed"]:
        num, total = len(state["streamed"]), _size(sum(state["streamed"].values()))
        what = f"1 expert buffer ({total}) does" if num == 1 else f"{num} expert buffers ({total}) do"
        lines.append(f"  {what} not fit: trials read {'it' if num == 1 else 'them'} from the expert store")
    return lines


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.2f} MB"
