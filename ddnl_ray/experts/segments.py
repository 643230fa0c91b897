"""The files of the expert store: segments of trajectories, never rewritten.

A segment holds the snapshots of one expert from a first to a last epoch, ``expert-00003.00000-00008.safetensors``, and
what training needs to go on from its end: the float32 weights (``tail``) where snapshots are stored in less, and the
momentum buffer (``velocity``) where there is one. Beside it lies a manifest with one checksum per snapshot, so that
only the snapshots that are read need to be verified, one of the whole file, and one of the manifest itself. Every file
is renamed into place, the manifest last: a segment exists when both do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts.buffer import DTYPES
from ddnl_ray.experts.train import TrainingState, Trajectory
from ddnl_ray.files import canonical, read_json, sha256, write_atomic, write_json

FORMAT_VERSION = 2
FILE_NAME = re.compile(r"expert-(\d{5,9})\.(\d{5,9})-(\d{5,9})\.(safetensors|json)")
MANIFEST_KEYS = {
    *("format_version", "key", "expert", "first", "last", "dtype", "shape", "losses", "snapshots", "end"),
    *("bytes", "sha256", "manifest_sha256"),
}

Manifest = dict[str, Any]


@dataclass(frozen=True, order=True)
class Segment:
    """The name of a segment, whether or not it is there.

    Attributes:
        folder: Its buffer's folder, named by the buffer's key.
        expert: Which expert.
        first: Epoch of its first snapshot.
        last: Epoch of its last.
    """

    folder: Path
    expert: int
    first: int
    last: int

    @classmethod
    def of_file(cls, path: Path) -> Segment | None:
        """Return the segment to which a file belongs by its name; None: to none."""
        found = FILE_NAME.fullmatch(path.name)
        return cls(path.parent, *(int(number) for number in found.groups()[:3])) if found else None

    @property
    def data(self) -> Path:
        """The file of the tensors."""
        return self.folder / f"expert-{self.expert:05d}.{self.first:05d}-{self.last:05d}.safetensors"

    @property
    def manifest(self) -> Path:
        """The file of the checksums."""
        return self.data.with_suffix(".json")

    @property
    def is_complete(self) -> bool:
        """Whether both files are there."""
        return self.data.is_file() and self.manifest.is_file()

    def corrupt(self, reason: str) -> CorruptFileError:
        """Return the error to raise."""
        return CorruptFileError(
            f"expert segment {self.data} is corrupt: {reason}. Train it again with `ddnl experts build FILE --rebuild` "
            "(or `ddnl sweep FILE --rebuild`)"
        )


def complete_segments(folder: Path, names: Collection[str], expert: int | None = None) -> list[Segment]:
    """Return the complete segments of a buffer, of one expert or of all, sorted.

    Args:
        folder: The buffer's folder on this machine.
        names: The files that the store has of the buffer, wherever they lie.
        expert: Of which expert; None: of all.
    """
    manifests = (Segment.of_file(folder / name) for name in names if name.endswith(".json"))
    found = (one for one in manifests if one is not None and expert in (None, one.expert))
    return sorted(one for one in found if {one.data.name, one.manifest.name} <= set(names))


def connected(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments of one expert that lead from epoch 0 on without a gap, each reaching as far as any can."""
    left, chain = list(segments), list[Segment]()
    while True:
        following = chain[-1].last + 1 if chain else 0
        fitting = [segment for segment in left if segment.first <= following <= segment.last]
        if not fitting:
            return chain
        chain.append(max(fitting, key=lambda segment: segment.last))


def chains_of(segments: Iterable[Segment]) -> dict[int, list[Segment]]:
    """Return the connected segments of every expert that has epoch 0."""
    found: dict[int, list[Segment]] = {}
    for segment in segments:
        found.setdefault(segment.expert, []).append(segment)
    chains = {expert: connected(own) for expert, own in found.items()}
    return {expert: chain for expert, chain in chains.items() if chain}


def write_segment(segment: Segment, trajectory: Trajectory, dtype: str) -> None:
    """Write (a part of) a trajectory as a segment."""
    from safetensors.torch import save

    end = {"tail": trajectory.end.weights} if dtype != "float32" else {}
    if trajectory.velocity is not None:
        end["velocity"] = trajectory.velocity
    stored = trajectory.snapshots.to(DTYPES[dtype]).contiguous()
    content = save({"snapshots": stored, **{name: tensor.clone() for name, tensor in end.items()}})
    write_atomic(segment.data, content)
    manifest = {
        **_identity(segment),
        "dtype": dtype,
        "shape": list(stored.shape),
        "losses": trajectory.losses,
        "snapshots": [_checksum(row) for row in stored],
        "end": {name: _checksum(tensor) for name, tensor in end.items()},
        "bytes": len(content),
        "sha256": sha256(content),
    }
    write_json(segment.manifest, signed(manifest))


def signed(manifest: Manifest) -> Manifest:
    """Return a manifest with the checksum of its own values."""
    values = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return {**values, "manifest_sha256": sha256(canonical(values).encode())}


def manifest_fault(manifest: Any, segment: Segment) -> str | None:
    """Return what is wrong with the content of a segment's manifest; None: nothing."""
    if not isinstance(manifest, dict):
        return "its manifest holds no values"
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        return f"it has format version {version}; this ddnl reads {FORMAT_VERSION}"
    try:
        intact = set(manifest) == MANIFEST_KEYS and manifest == signed(manifest)
    except ValueError:  # not a number
        intact = False
    if not intact:
        return "its manifest does not match its own checksum"
    for name, value in _identity(segment).items():
        if manifest[name] != value:
            return f"its manifest is that of {name} {manifest[name]}, not {value}"
    sums, shape, count = manifest["snapshots"], manifest["shape"], segment.last - segment.first + 1
    if not (isinstance(sums, list) and isinstance(shape, list) and len(sums) == count and shape[:1] == [count]):
        return f"its manifest does not hold {count} checksums, for epochs {segment.first} to {segment.last}"
    if not isinstance(manifest["end"], dict):
        return "its manifest holds no checksums of its end"
    return None


def read_manifest(segment: Segment) -> Manifest:
    """Read and check the manifest of a segment.

    Raises:
        CorruptFileError: It is not there, damaged, of another format version, or of another segment.
    """
    try:
        manifest: Manifest = read_json(segment.manifest)
    except FileNotFoundError as error:
        raise segment.corrupt("it has no manifest") from error
    fault = manifest_fault(manifest, segment)
    if fault is not None:
        raise segment.corrupt(fault)
    return manifest


def read_rows(segment: Segment, epochs: Iterable[int]) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the snapshots [P] of a segment at some epochs; bfloat16 comes as its bits in uint16.

    Raises:
        CorruptFileError: A snapshot does not match its checksum, or the files are not of this format.
    """
    manifest = read_manifest(segment)
    with _opened(segment) as file:
        snapshots = file.get_slice("snapshots")
        if list(snapshots.get_shape()) != manifest["shape"]:
            raise segment.corrupt("its shape is not the one in its manifest")
        for epoch in epochs:
            row = snapshots[epoch - segment.first]
            if _checksum(row) != manifest["snapshots"][epoch - segment.first]:
                raise segment.corrupt(f"snapshot {epoch} does not match its checksum")
            yield _as_array(row)


def fill_rows(
    array: npt.NDArray[np.generic] | None, wanted: Sequence[int], places: Sequence[int], segment: Segment
) -> npt.NDArray[np.generic]:
    """Read the snapshots of a segment into their places of an array [len(wanted), P], made where there is none yet.

    Raises:
        CorruptFileError: As :func:`read_rows`, or a snapshot is not like the others.
    """
    for place, row in zip(places, read_rows(segment, [wanted[place] for place in places]), strict=True):
        if array is None:
            array = np.empty((len(wanted), len(row)), row.dtype)
        if (len(row), row.dtype) != (array.shape[1], array.dtype):
            raise segment.corrupt("its snapshots are not of the size and type of the others")
        array[place] = row
    assert array is not None
    return array


def read_end(segment: Segment) -> TrainingState:
    """Read the state from which training goes on after a segment.

    Raises:
        CorruptFileError: A tensor does not match its checksum, or the files are not of this format.
    """
    manifest = read_manifest(segment)
    with _opened(segment) as file:
        end = {name: file.get_tensor(name).clone() for name in manifest["end"]}
    for name, tensor in end.items():
        if _checksum(tensor) != manifest["end"][name]:
            raise segment.corrupt(f"its {name} does not match its checksum")
    if "tail" in end:
        return TrainingState(segment.last, end["tail"], end.get("velocity"))
    (row,) = read_rows(segment, [segment.last])
    return TrainingState(segment.last, torch.from_numpy(row.copy()), end.get("velocity"))


def check_segment(segment: Segment) -> Manifest:
    """Check every byte of a segment, and return its manifest.

    Raises:
        CorruptFileError: A checksum does not match.
    """
    manifest = read_manifest(segment)
    try:
        with segment.data.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise segment.corrupt(str(error)) from error
    if found != manifest["sha256"]:
        raise segment.corrupt("it does not match its checksum")
    return manifest


def _identity(segment: Segment) -> Manifest:
    """Return what a manifest says of its place."""
    return {
        "format_version": FORMAT_VERSION,
        "key": segment.folder.name,
        "expert": segment.expert,
        "first": segment.first,
        "last": segment.last,
    }


@contextmanager
def _opened(segment: Segment) -> Iterator[Any]:
    """Open the tensors of a segment without reading them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(segment.data, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise segment.corrupt(str(error)) from error


def _as_array(tensor: Tensor) -> npt.NDArray[np.generic]:
    """Return a tensor as NumPy; bfloat16, which NumPy lacks, as its bits."""
    tensor = tensor.contiguous()
    array: npt.NDArray[np.generic] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _checksum(tensor: Tensor) -> str:
    return sha256(_as_array(tensor).data)
