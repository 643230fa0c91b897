"""The content-addressed store of expert trajectories.

A buffer is a folder named by the hash of all that determines it: the data, the realised noisy labels, the recipe, the
seed and the format's version. How far its experts are trained is not among them: every trajectory is a prefix of an
endless one. A buffer grows by experts and by epochs, in segments that are never rewritten
(:mod:`ddnl_ray.experts.segments`); where two processes have written overlapping ones, either is read.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ddnl_ray.errors import CorruptFileError, RequestError, require_known
from ddnl_ray.experts.identity import BufferId
from ddnl_ray.experts.segments import (
    Segment,
    chains_of,
    check_segment,
    complete_segments,
    connected,
    fill_rows,
    read_end,
    read_manifest,
    write_segment,
)
from ddnl_ray.experts.train import TrainingState, Trajectory
from ddnl_ray.files import read_json, write_json
from ddnl_ray.storage import Address, Entry, Folder, LocalFolder, open_folder

T = TypeVar("T")

DESCRIPTION, USED = "buffer.json", "used"
STAGING, UNFINISHED = ".import-", ".checkpoint"
DERIVED = "derived"
"""The folder of what is made of data and experts beside trajectories (:mod:`ddnl_ray.robust.derived`)."""


@dataclass(frozen=True)
class StoredBuffer:
    """A buffer as ``ddnl experts ls`` shows it.

    Attributes:
        key: Its name.
        experts: Experts that are there.
        last_epoch: The last epoch that all of them reach; -1: there are none.
        num_bytes: Size on disk.
        used_at: When a sweep last built or read it, seconds since the epoch.
        about: What it was made of (data set, noise, recipe).
    """

    key: str
    experts: int
    last_epoch: int
    num_bytes: int
    used_at: float
    about: dict[str, Any]


class ExpertStore:
    """A folder of expert buffers, local or remote.

    Of a remote store this machine keeps a copy of what it has read and written: a segment is brought when it is first
    read, checked against its manifest, and mapped into memory from there. Segments are published data first and
    manifest last, so that other nodes see whole ones only.

    Args:
        root: The folder, or its path; it is made when something is saved.
    """

    def __init__(self, root: Path | Folder) -> None:
        self.folder = root if isinstance(root, Folder) else LocalFolder(root)
        self.root = self.folder.path

    @classmethod
    def at(cls, address: Address | str) -> ExpertStore:
        """Return the store at an address.

        Raises:
            RequestError: It is not an address, or cannot be opened.
        """
        return cls(open_folder(address, "experts"))

    def complete(self, key: str, expert: int | None = None) -> list[Segment]:
        """Return the complete segments of a buffer, of one expert or of all, sorted."""
        names = {entry.name.rsplit("/", 1)[1] for entry in self.folder.entries(key)}
        return complete_segments(self.root / key, names, expert)

    def segments(self, key: str) -> dict[int, list[Segment]]:
        """Return what reading uses of a buffer: the connected segments of every expert that has epoch 0."""
        return chains_of(self.complete(key))

    def reach(self, key: str, num_experts: int) -> list[int]:
        """Return up to which epoch each of the first ``num_experts`` experts has every snapshot; -1: it has none."""
        chains = self.segments(key)
        return [chains[index][-1].last if index in chains else -1 for index in range(num_experts)]

    def missing(self, key: str, num_experts: int, last_epoch: int) -> list[int]:
        """Return which of the first ``num_experts`` experts lack a snapshot of epochs 0 to ``last_epoch``."""
        return [index for index, reach in enumerate(self.reach(key, num_experts)) if reach < last_epoch]

    def describe(self, buffer: BufferId, about: dict[str, Any]) -> None:
        """Write what a buffer is made of."""
        self.describe_key(buffer.key, {**about, **buffer.identity})

    def describe_key(self, key: str, about: dict[str, Any]) -> None:
        """Write the whole description of a buffer."""
        write_json(self.root / key / DESCRIPTION, about)
        self.folder.publish(f"{key}/{DESCRIPTION}")

    def description(self, key: str) -> dict[str, Any]:
        """Return what a buffer is made of."""
        about: dict[str, Any] = read_json(self.folder.fetch(f"{key}/{DESCRIPTION}"))
        return about

    def save(self, buffer: BufferId, index: int, trajectory: Trajectory) -> None:
        """Store (a part of) one expert's trajectory; a segment that is already there stays as it is."""
        assert (trajectory.velocity is not None) == bool(buffer.recipe.momentum)
        segment = Segment(self.root / buffer.key, index, trajectory.first_epoch, trajectory.end.epoch)
        if self.holds(segment):
            return
        write_segment(segment, trajectory, buffer.dtype)
        self.folder.publish(*_names(segment))

    def holds(self, segment: Segment) -> bool:
        """Return whether the store has both files of a segment."""
        return all(self.folder.exists(name) for name in _names(segment))

    def bring(self, segment: Segment) -> None:
        """Make sure that both files of a segment are on this machine.

        Raises:
            CorruptFileError: What the store holds does not match its checksums.
        """
        if not self.folder.is_remote:
            return
        data, manifest = _names(segment)
        if not segment.is_complete:
            self.folder.fetch(manifest)
            self.folder.fetch(data, read_manifest(segment)["sha256"])
        for path in (segment.data, segment.manifest):
            os.utime(path)  # for collect_copies

    def read(self, segment: Segment, action: Callable[[Segment], T]) -> T:
        """Read of a segment; where this machine's copy is damaged, once again from the store.

        Raises:
            CorruptFileError: What the store holds does not match its checksums.
        """
        self.bring(segment)
        try:
            return action(segment)
        except CorruptFileError:
            if not self.folder.is_remote:
                raise
            for name in _names(segment):
                self.folder.forget(name)
        self.bring(segment)
        return action(segment)

    def end(self, key: str, index: int) -> TrainingState | None:
        """Return the state from which training of an expert goes on; None: from its initialisation.

        Raises:
            CorruptFileError: It does not match its checksum, or the files are not of this format.
        """
        chain = connected(self.complete(key, index))
        return self.read(chain[-1], read_end) if chain else None

    def load(self, key: str, index: int, epochs: Iterable[int] | None = None) -> npt.NDArray[np.generic]:
        """Read snapshots of one expert and verify their checksums.

        Args:
            key: The buffer.
            index: The expert.
            epochs: Which snapshots, in this order; None: all.

        Returns:
            Array [len(epochs), P]; bfloat16 comes as its bits in uint16.

        Raises:
            CorruptFileError: A snapshot is not there or does not match its checksum, or the files are not of this
                format.
        """
        chain = connected(self.complete(key, index))
        reach = chain[-1].last if chain else -1
        wanted = list(range(reach + 1) if epochs is None else epochs)
        if not wanted or max(wanted) > reach:
            raise CorruptFileError(
                f"expert {index} of buffer {self.folder.named(key)} is not stored up to epoch {max(wanted, default=0)} "
                f"(it ends at {reach}); train it with `ddnl experts build FILE`"
            )
        assert min(wanted) >= 0
        array: npt.NDArray[np.generic] | None = None
        covered = -1
        for segment in chain:
            places = [place for place, epoch in enumerate(wanted) if covered < epoch <= segment.last]
            covered = segment.last
            if places:
                array = self.read(segment, functools.partial(fill_rows, array, wanted, places))
        assert array is not None
        return array

    def verify(self, key: str, num_experts: int, epochs: Iterable[int]) -> None:
        """Check what is stored of some epochs of the first ``num_experts`` experts, and what training goes on from.

        Of a remote store the manifests and the sizes are checked: whoever brings a segment checks its content.

        Raises:
            CorruptFileError: As :meth:`load`, for the first bad segment.
        """
        if self.folder.is_remote:
            self._verify_sizes(key, num_experts)
            return
        wanted = list(epochs)
        for index, reach in enumerate(self.reach(key, num_experts)):
            held = [epoch for epoch in wanted if epoch <= reach]
            if held:
                self.load(key, index, held)
            if len(held) < len(wanted):
                self.end(key, index)

    def _verify_sizes(self, key: str, num_experts: int) -> None:
        sizes = {entry.name: entry.num_bytes for entry in self.folder.entries(key)}
        for expert, chain in self.segments(key).items():
            for segment in chain if expert < num_experts else ():
                data, manifest = _names(segment)
                self.folder.keep(manifest)
                expected = read_manifest(segment)["bytes"]
                if sizes.get(data) != expected:
                    raise segment.corrupt(f"it has {sizes.get(data)} bytes instead of {expected}")

    def discard_corrupt(self, key: str, num_experts: int) -> list[int]:
        """Remove the segments of the first ``num_experts`` experts that fail their checks; return their experts."""
        bad = set()
        for segment in self.complete(key):
            if segment.expert < num_experts:
                try:
                    self.read(segment, check_segment)
                except CorruptFileError:
                    # Manifest first, so that it is incomplete at every moment.
                    self.folder.delete(reversed(_names(segment)))
                    bad.add(segment.expert)
        return sorted(bad)

    def touch(self, key: str) -> None:
        """Note that a buffer was used now, for :meth:`collect`."""
        (self.root / key).mkdir(parents=True, exist_ok=True)
        (self.root / key / USED).touch()
        self.folder.publish(f"{key}/{USED}")

    def use(self, name: str) -> None:
        """Note that something derived was used now, in a remote store, for :meth:`collect_derived`."""
        mark = self.root / f"{name}.{USED}"
        if not mark.is_file() or mark.stat().st_mtime < time.time() - 86400:
            mark.touch()
            self.folder.publish(f"{name}.{USED}")

    def buffers(self) -> Iterator[StoredBuffer]:
        """Yield every buffer of the store, by name."""
        files: dict[str, dict[str, Entry]] = {}
        for entry in self.folder.entries():
            key, _, name = entry.name.partition("/")
            files.setdefault(key, {})[name] = entry
        for key, own in sorted(files.items()):
            if DESCRIPTION in own:
                chains = chains_of(complete_segments(self.root / key, own.keys()))
                yield StoredBuffer(
                    key=key,
                    experts=len(chains),
                    last_epoch=min((chain[-1].last for chain in chains.values()), default=-1),
                    num_bytes=sum(entry.num_bytes for entry in own.values()),
                    used_at=own.get(USED, own[DESCRIPTION]).changed_at,
                    about=self.description(key),
                )

    def derived(self) -> list[Entry]:
        """Return the files of what was derived, by name, each with the time when it was last used."""
        found = {entry.name: entry for entry in self.folder.entries(DERIVED)}
        return [
            dataclasses.replace(entry, changed_at=found.get(f"{name}.{USED}", entry).changed_at)
            for name, entry in found.items()
            if name.endswith((".safetensors", UNFINISHED))
        ]

    def collect_derived(self, unused_days: float) -> list[Entry]:
        """Remove what was derived and no trial has read for ``unused_days`` days; return it."""
        limit = time.time() - unused_days * 86400
        old = [entry for entry in self.derived() if entry.changed_at <= limit]
        self.folder.delete(name for entry in old for name in (entry.name, f"{entry.name}.{USED}"))
        return old

    def find(self, prefix: str) -> str:
        """Return the key of the buffer whose name starts with ``prefix``.

        Raises:
            RequestError: None does, or several do.
        """
        names = (entry.name.split("/") for entry in self.folder.entries())
        keys = [parts[0] for parts in names if parts[1:] == [DESCRIPTION]]
        if not keys:
            raise RequestError(f"unknown expert buffer {prefix!r}: the store {self.folder.named()} holds none")
        found = [key for key in keys if prefix and key.startswith(prefix)]
        if len(found) > 1:
            raise RequestError(f"{prefix!r} is the start of {len(found)} buffers: {', '.join(found)}; give more of it")
        return found[0] if found else require_known("expert buffer", prefix, keys)

    def collect(self, unused_days: float, keep: Iterable[str] = ()) -> list[StoredBuffer]:
        """Remove the buffers that no sweep has used for ``unused_days`` days; return them.

        What an import that was killed that long ago has left behind goes too.
        """
        kept, limit = set(keep), time.time() - unused_days * 86400
        old = [buffer for buffer in self.buffers() if buffer.used_at <= limit and buffer.key not in kept]
        for buffer in old:
            if self.folder.is_remote:
                names = [entry.name for entry in self.folder.entries(buffer.key)]
                self.folder.delete(sorted(names, key=lambda name: not name.endswith(".json")))
            shutil.rmtree(self.root / buffer.key, ignore_errors=self.folder.is_remote)
        for folder in self.root.glob(f"{STAGING}*"):
            if folder.stat().st_mtime <= limit:
                shutil.rmtree(folder)
        return old

    def collect_copies(self, unused_days: float) -> int:
        """Remove this machine's copies of a remote store that were not read for a while; return their bytes."""
        if not self.folder.is_remote:
            return 0
        limit = time.time() - unused_days * 86400
        old = [entry for entry in LocalFolder(self.root).entries() if entry.changed_at <= limit]
        for entry in old:
            self.folder.forget(entry.name)
        return sum(entry.num_bytes for entry in old)


def _names(segment: Segment) -> tuple[str, str]:
    """Return the files of a segment as the store names them, in the order in which they are published."""
    key = segment.folder.name
    return f"{key}/{segment.data.name}", f"{key}/{segment.manifest.name}"
