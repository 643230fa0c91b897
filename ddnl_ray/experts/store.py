"""The content-addressed store of expert trajectories.

A buffer is a folder named by the hash of all that determines it: the data, the realised noisy labels, the recipe, the
seed and the format's version. How far its experts are trained is not among them: every trajectory is a prefix of an
endless one. A buffer grows by experts and by epochs, in segments that are never rewritten
(:mod:`ddnl_ray.experts.segments`); where two processes have written overlapping ones, either is read.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddnl_ray.errors import CorruptFileError, RequestError, require_known
from ddnl_ray.experts.policy import PolicySource
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.experts.segments import (
    FORMAT_VERSION,
    Segment,
    check_segment,
    complete_segments,
    connected,
    discard,
    read_end,
    read_rows,
    write_segment,
)
from ddnl_ray.experts.train import TrainingState, Trajectory
from ddnl_ray.files import digest, read_json, write_json
from ddnl_ray.seeds import SeedTree

STAGING = ".import-"
DERIVED = "derived"
"""The folder of what is made of data and experts beside trajectories (:mod:`ddnl_ray.robust.derived`)."""


@dataclass(frozen=True)
class BufferId:
    """All that determines an expert buffer, and how long its recipe trains.

    Attributes:
        data: Fingerprint of the prepared data.
        labels: SHA-256 of the observed labels of its training part.
        recipe: How experts are trained.
        seed: Root of the experts' seed tree.
        dtype: How snapshots are stored: ``float32``, ``bfloat16`` or ``float16``.
        policy: What the experts learn from; None: every image, with its label.
    """

    data: str
    labels: str
    recipe: ExpertRecipe
    seed: int
    dtype: str = "float32"
    policy: PolicySource | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the snapshots: everything but the number of epochs."""
        recipe = self.recipe.identity
        del recipe["epochs"]
        plain = {"data": self.data, "labels": self.labels, "recipe": recipe, "seed": self.seed, "dtype": self.dtype}
        return plain if self.policy is None else plain | {"policy": self.policy.identity}

    @property
    def key(self) -> str:
        """The folder's name: 16 hexadecimal digits."""
        return key_of(self.identity)

    def seeds(self, index: int) -> SeedTree:
        """Return the seed tree of one expert: own to the data and the labels, whatever the recipe."""
        return SeedTree.root(self.seed).child("expert", self.data, self.labels, index)


def key_of(about: dict[str, Any]) -> str:
    """Return the key of a buffer from its identity, or from its description, which contains it."""
    names = [field.name for field in dataclasses.fields(BufferId)]
    identity = {name: about.get(name) for name in names if name != "policy" or name in about}
    return digest({"format": FORMAT_VERSION, **identity})


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
    """A folder of expert buffers.

    Args:
        root: The folder; it is made when something is saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def segments(self, key: str) -> dict[int, list[Segment]]:
        """Return what reading uses of a buffer: the connected segments of every expert that has epoch 0."""
        found: dict[int, list[Segment]] = {}
        for segment in complete_segments(self.root / key):
            found.setdefault(segment.expert, []).append(segment)
        chains = {expert: connected(segments) for expert, segments in found.items()}
        return {expert: chain for expert, chain in chains.items() if chain}

    def reach(self, key: str, num_experts: int) -> list[int]:
        """Return up to which epoch each of the first ``num_experts`` experts has every snapshot; -1: it has none."""
        chains = self.segments(key)
        return [chains[index][-1].last if index in chains else -1 for index in range(num_experts)]

    def missing(self, key: str, num_experts: int, last_epoch: int) -> list[int]:
        """Return which of the first ``num_experts`` experts lack a snapshot of epochs 0 to ``last_epoch``."""
        return [index for index, reach in enumerate(self.reach(key, num_experts)) if reach < last_epoch]

    def describe(self, buffer: BufferId, about: dict[str, Any]) -> None:
        """Write what a buffer is made of."""
        write_json(self.root / buffer.key / "buffer.json", {**about, **buffer.identity})

    def save(self, buffer: BufferId, index: int, trajectory: Trajectory) -> None:
        """Store (a part of) one expert's trajectory; a segment that is already there stays as it is."""
        assert (trajectory.velocity is not None) == bool(buffer.recipe.momentum)
        write_segment(self.root / buffer.key, index, trajectory, buffer.dtype)

    def end(self, key: str, index: int) -> TrainingState | None:
        """Return the state from which training of an expert goes on; None: from its initialisation.

        Raises:
            CorruptFileError: It does not match its checksum, or the files are not of this format.
        """
        chain = connected(complete_segments(self.root / key, index))
        return read_end(chain[-1]) if chain else None

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
        chain = connected(complete_segments(self.root / key, index))
        reach = chain[-1].last if chain else -1
        wanted = list(range(reach + 1) if epochs is None else epochs)
        if not wanted or max(wanted) > reach:
            raise CorruptFileError(
                f"expert {index} of buffer {self.root / key} is not stored up to epoch {max(wanted, default=0)} "
                f"(it ends at {reach}); train it with `ddnl experts build FILE`"
            )
        assert min(wanted) >= 0
        array: npt.NDArray[np.generic] | None = None
        covered = -1
        for segment in chain:
            places = [place for place, epoch in enumerate(wanted) if covered < epoch <= segment.last]
            covered = segment.last
            rows = read_rows(segment, [wanted[place] for place in places]) if places else iter(())
            for place, row in zip(places, rows, strict=True):
                if array is None:
                    array = np.empty((len(wanted), len(row)), row.dtype)
                if (len(row), row.dtype) != (array.shape[1], array.dtype):
                    raise segment.corrupt("its snapshots are not of the size and type of the others")
                array[place] = row
        assert array is not None
        return array

    def verify(self, key: str, num_experts: int, epochs: Iterable[int]) -> None:
        """Check what is stored of some epochs of the first ``num_experts`` experts, and what training goes on from.

        Raises:
            CorruptFileError: As :meth:`load`, for the first bad segment.
        """
        wanted = list(epochs)
        for index, reach in enumerate(self.reach(key, num_experts)):
            held = [epoch for epoch in wanted if epoch <= reach]
            if held:
                self.load(key, index, held)
            if len(held) < len(wanted):
                self.end(key, index)

    def discard_corrupt(self, key: str, num_experts: int) -> list[int]:
        """Remove the segments of the first ``num_experts`` experts that fail their checks; return their experts."""
        bad = set()
        for segment in complete_segments(self.root / key):
            if segment.expert < num_experts:
                try:
                    check_segment(segment)
                except CorruptFileError:
                    discard(segment)
                    bad.add(segment.expert)
        return sorted(bad)

    def touch(self, key: str) -> None:
        """Note that a buffer was used now, for :meth:`collect`."""
        (self.root / key).mkdir(parents=True, exist_ok=True)
        (self.root / key / "used").touch()

    def buffers(self) -> Iterator[StoredBuffer]:
        """Yield every buffer of the store, by name."""
        for description in sorted(self.root.glob("*/buffer.json")):
            folder = description.parent
            chains = self.segments(folder.name)
            used = folder / "used"
            yield StoredBuffer(
                key=folder.name,
                experts=len(chains),
                last_epoch=min((chain[-1].last for chain in chains.values()), default=-1),
                num_bytes=sum(file.stat().st_size for file in folder.iterdir() if not file.name.startswith(".")),
                used_at=(used if used.is_file() else description).stat().st_mtime,
                about=read_json(description),
            )

    def derived(self) -> list[Path]:
        """Return the files of what was derived, by name."""
        return sorted((self.root / DERIVED).glob("*.safetensors"))

    def collect_derived(self, unused_days: float) -> list[Path]:
        """Remove what was derived and no trial has read for ``unused_days`` days; return it."""
        limit = time.time() - unused_days * 86400
        old = [path for path in self.derived() if path.stat().st_mtime <= limit]
        for path in old:
            path.unlink()
        return old

    def find(self, prefix: str) -> str:
        """Return the key of the buffer whose name starts with ``prefix``.

        Raises:
            RequestError: None does, or several do.
        """
        keys = sorted(path.parent.name for path in self.root.glob("*/buffer.json"))
        if not keys:
            raise RequestError(f"unknown expert buffer {prefix!r}: the store {self.root} holds none")
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
        left = [folder for folder in self.root.glob(f"{STAGING}*") if folder.stat().st_mtime <= limit]
        for folder in [*(self.root / buffer.key for buffer in old), *left]:
            shutil.rmtree(folder)
        return old
