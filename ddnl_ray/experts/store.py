"""The content-addressed store of expert trajectories.

A buffer is a folder named by the hash of all that determines it: the data, the realised noisy labels, the recipe, the
seed and this format's version. It holds one safetensors shard per expert, so a buffer can grow, and beside each shard a
manifest with one checksum per snapshot, so that only the snapshots that are read need to be verified. Every file is
renamed into place; a shard exists when its manifest does.
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
import torch

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts.buffer import DTYPES
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.experts.train import Trajectory
from ddnl_ray.files import digest, read_json, sha256, write_json, write_tensors
from ddnl_ray.seeds import SeedTree

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BufferId:
    """All that determines an expert buffer.

    Attributes:
        data: Fingerprint of the prepared data.
        labels: SHA-256 of the observed labels of its training part.
        recipe: How experts are trained.
        seed: Root of the experts' seed tree.
        dtype: How snapshots are stored: ``float32``, ``bfloat16`` or ``float16``.
    """

    data: str
    labels: str
    recipe: ExpertRecipe
    seed: int
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """The folder's name: 16 hexadecimal digits."""
        return digest({"format": FORMAT_VERSION, **dataclasses.asdict(self)})

    def seeds(self, index: int) -> SeedTree:
        """Return the seed tree of one expert: own to the data and the labels, whatever the recipe."""
        return SeedTree.root(self.seed).child("expert", self.data, self.labels, index)


@dataclass(frozen=True)
class StoredBuffer:
    """A buffer as ``ddnl experts ls`` shows it.

    Attributes:
        key: Its name.
        experts: Shards that are complete.
        num_bytes: Size on disk.
        used_at: When a sweep last built or read it, seconds since the epoch.
        about: What it was made of (data set, noise, recipe).
    """

    key: str
    experts: int
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

    def shard(self, key: str, index: int) -> Path:
        """Return where the shard of an expert lies."""
        return self.root / key / f"expert-{index:05d}.safetensors"

    def missing(self, key: str, num_experts: int) -> list[int]:
        """Return which of the first ``num_experts`` experts are not stored."""
        return [index for index in range(num_experts) if not self._is_complete(key, index)]

    def _is_complete(self, key: str, index: int) -> bool:
        shard = self.shard(key, index)
        return shard.is_file() and shard.with_suffix(".json").is_file()

    def describe(self, buffer: BufferId, about: dict[str, Any]) -> None:
        """Write what a buffer is made of, for people."""
        write_json(self.root / buffer.key / "buffer.json", {**about, **dataclasses.asdict(buffer)})

    def save(self, buffer: BufferId, index: int, trajectory: Trajectory) -> None:
        """Store one expert; a shard that is already there is replaced by an equal one."""
        stored = trajectory.snapshots.to(DTYPES[buffer.dtype]).contiguous()
        shard = self.shard(buffer.key, index)
        write_tensors(shard, {"snapshots": stored})
        write_json(
            shard.with_suffix(".json"),
            {
                "format_version": FORMAT_VERSION,
                "key": buffer.key,
                "index": index,
                "dtype": buffer.dtype,
                "shape": list(stored.shape),
                "bytes": shard.stat().st_size,
                "losses": trajectory.losses,
                "sha256": [sha256(_as_array(row).tobytes()) for row in stored],
            },
        )

    def load(self, key: str, index: int, epochs: Iterable[int] | None = None) -> npt.NDArray[np.generic]:
        """Read snapshots of one expert and verify their checksums.

        Args:
            key: The buffer.
            index: The expert.
            epochs: Which snapshots, in this order; None: all.

        Returns:
            Array [len(epochs), P]; bfloat16 comes as its bits in uint16.

        Raises:
            CorruptFileError: A snapshot does not match its checksum, or the files are not of this format.
        """
        from safetensors import SafetensorError, safe_open

        shard = self.shard(key, index)
        manifest = self._manifest(shard)
        rows = list(range(manifest["shape"][0])) if epochs is None else list(epochs)
        try:
            with safe_open(shard, framework="pt") as file:
                snapshots = file.get_slice("snapshots")
                if list(snapshots.get_shape()) != manifest["shape"]:
                    raise self._corrupt(shard, "its shape is not the one in its manifest")
                array = np.stack([_as_array(snapshots[row]) for row in rows])
        except (SafetensorError, OSError) as error:
            raise self._corrupt(shard, str(error)) from error
        for row, values in zip(rows, array, strict=True):
            if sha256(values.tobytes()) != manifest["sha256"][row]:
                raise self._corrupt(shard, f"snapshot {row} does not match its checksum")
        return array

    def verify(self, key: str, num_experts: int, epochs: Iterable[int] | None = None) -> None:
        """Check what is stored of the first ``num_experts`` experts.

        Raises:
            CorruptFileError: As :meth:`load`, for the first bad shard.
        """
        rows = None if epochs is None else list(epochs)
        for index in range(num_experts):
            if self._is_complete(key, index):
                self.load(key, index, rows)

    def discard(self, key: str, index: int) -> None:
        """Remove one shard, manifest first, so that it is missing at every moment."""
        self.shard(key, index).with_suffix(".json").unlink(missing_ok=True)
        self.shard(key, index).unlink(missing_ok=True)

    def discard_corrupt(self, key: str, num_experts: int) -> list[int]:
        """Remove the shards that fail their checks; return their experts."""
        bad = []
        for index in range(num_experts):
            try:
                if self._is_complete(key, index):
                    self.load(key, index)
            except CorruptFileError:
                self.discard(key, index)
                bad.append(index)
        return bad

    def touch(self, key: str) -> None:
        """Note that a buffer was used now, for :meth:`collect`."""
        (self.root / key).mkdir(parents=True, exist_ok=True)
        (self.root / key / "used").touch()

    def buffers(self) -> Iterator[StoredBuffer]:
        """Yield every buffer of the store, by name."""
        for folder in sorted(self.root.glob("*/buffer.json")):
            files = [file for file in folder.parent.iterdir() if not file.name.startswith(".")]
            used = folder.parent / "used"
            yield StoredBuffer(
                key=folder.parent.name,
                experts=sum(
                    self._is_complete(folder.parent.name, int(f.stem[-5:])) for f in files if f.suffix == ".safetensors"
                ),
                num_bytes=sum(f.stat().st_size for f in files),
                used_at=(used if used.is_file() else folder).stat().st_mtime,
                about=read_json(folder),
            )

    def collect(self, unused_days: float, keep: Iterable[str] = ()) -> list[StoredBuffer]:
        """Remove the buffers that no sweep has used for ``unused_days`` days; return them."""
        kept, limit = set(keep), time.time() - unused_days * 86400
        old = [buffer for buffer in self.buffers() if buffer.used_at <= limit and buffer.key not in kept]
        for buffer in old:
            shutil.rmtree(self.root / buffer.key)
        return old

    def _manifest(self, shard: Path) -> dict[str, Any]:
        try:
            manifest: dict[str, Any] = read_json(shard.with_suffix(".json"))
        except FileNotFoundError as error:
            raise self._corrupt(shard, "it has no manifest") from error
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise self._corrupt(shard, f"it has format version {version}; this ddnl reads {FORMAT_VERSION}")
        return manifest

    def _corrupt(self, shard: Path, reason: str) -> CorruptFileError:
        return CorruptFileError(
            f"expert shard {shard} is corrupt: {reason}. Train it again with `ddnl experts build FILE --rebuild` "
            "(or `ddnl sweep FILE --rebuild`)"
        )


def _as_array(tensor: torch.Tensor) -> npt.NDArray[np.generic]:
    """Return a tensor as NumPy; bfloat16, which NumPy lacks, as its bits."""
    tensor = tensor.contiguous()
    array: npt.NDArray[np.generic] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
