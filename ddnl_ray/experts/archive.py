"""Expert buffers as one file, to move them between clusters: a plain tar whose first member lists the others.

``archive.json`` holds format versions, what each buffer is made of, and name, size and SHA-256 of every other member.
The same segments give the same bytes. Nothing is unpacked under a name that the tar claims: each name must be listed,
and be that of a segment's file. A store gets its new segments only when all of them have been copied and checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ddnl_ray.errors import CorruptFileError, DataError
from ddnl_ray.experts.identity import key_of
from ddnl_ray.experts.segments import FORMAT_VERSION, Segment, manifest_fault, read_manifest
from ddnl_ray.experts.store import DESCRIPTION, STAGING, ExpertStore
from ddnl_ray.files import open_atomic, sha256

ARCHIVE_VERSION = 1
INDEX = "archive.json"
CHUNK = 2**20


@dataclass(frozen=True)
class Moved:
    """What was moved of one buffer.

    Attributes:
        key: The buffer.
        experts: Experts of which a segment was moved.
        segments: Segments that were moved.
        num_bytes: Bytes of their files.
        skipped: Segments that were there already (import).
    """

    key: str
    experts: int
    segments: int
    num_bytes: int
    skipped: int = 0


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        name: ``KEY/FILE``.
        size: Its bytes.
        sha256: Their checksum.
    """

    name: str
    size: int
    sha256: str


def export_buffers(store: ExpertStore, keys: Iterable[str], out: Path) -> list[Moved]:
    """Write buffers into an archive, and check every byte on the way.

    Args:
        store: Where they are.
        keys: Their names.
        out: The archive; it appears when it is whole.

    Raises:
        CorruptFileError: A segment does not match its checksums.
        DataError: A buffer has no expert that can be read.
    """
    buffers: dict[str, Any] = {}
    files: list[tuple[Member, Segment]] = []
    moved = []
    for key in sorted(set(keys)):
        buffers[key] = store.description(key)
        chains = store.segments(key)
        if not chains:
            raise DataError(
                f"expert buffer {key} in {store.folder.named()} has nothing to export: it holds no complete expert of "
                f"format version {FORMAT_VERSION}; train it with `ddnl experts build FILE`"
            )
        segments = sorted(segment for chain in chains.values() for segment in chain)
        own = [(member, segment) for segment in segments for member in store.read(segment, _members_of)]
        moved.append(Moved(key, len(chains), len(segments), sum(member.size for member, _ in own)))
        files += own
    index = {
        "format_version": ARCHIVE_VERSION,
        "segment_format_version": FORMAT_VERSION,
        "buffers": buffers,
        "members": [asdict(member) for member, _ in files],
    }
    content = (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()
    with open_atomic(out) as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(_header(INDEX, len(content)), io.BytesIO(content))
        for member, segment in files:
            with (store.root / member.name).open("rb") as source:
                hashed = _Hashed(source)
                tar.addfile(_header(member.name, member.size), hashed)
            if hashed.hexdigest() != member.sha256:
                raise segment.corrupt("it does not match its checksum")
    return moved


def import_archive(store: ExpertStore, path: Path) -> list[Moved]:
    """Put the segments of an archive that a store lacks into it.

    Args:
        store: Where they go.
        path: An archive that :func:`export_buffers` wrote.

    Returns:
        What was moved of each buffer; segments that are there already are not read.

    Raises:
        DataError: There is no such file.
        CorruptFileError: It is not a whole archive of this format; the store is as it was.
    """
    if not path.is_file():
        raise DataError(f"there is no archive at {path}; write one with `ddnl experts export`")
    with _staging(store.root) as staging, _refusing(path), tarfile.open(path, "r:") as tar:
        buffers, listed = _read_index(tar)
        headers = _read_headers(tar, listed)
        segments = _check_names(buffers, listed)
        new = {segment for segment in segments if not store.holds(_within(store.root, segment))}
        for segment in sorted(new):
            _stage(tar, headers, listed, _within(staging, segment))
        for segment in new:
            (store.root / segment.folder).mkdir(parents=True, exist_ok=True)
            _within(staging, segment).data.replace(_within(store.root, segment).data)
            store.folder.publish(_name(segment.data))
        for key, about in buffers.items():
            if not store.folder.exists(f"{key}/{DESCRIPTION}"):
                store.describe_key(key, about)
            store.touch(key)
        for segment in new:
            _within(staging, segment).manifest.replace(_within(store.root, segment).manifest)
            store.folder.publish(_name(segment.manifest))
    return [_moved(key, segments, new, listed) for key in buffers]


class _Refused(Exception):
    """Why an archive is refused."""


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what is wrong with an archive into the error that a user sees."""
    try:
        yield
    except (_Refused, tarfile.TarError, ValueError, OverflowError) as error:
        raise CorruptFileError(
            f"archive {path} is refused: {error}. Nothing was imported; copy it again, or write it again with "
            "`ddnl experts export`"
        ) from error


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """Give a folder beside the buffers, and remove it."""
    folder = root / f"{STAGING}{uuid.uuid4().hex[:8]}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._sum.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        return self._sum.hexdigest()


def _members_of(segment: Segment) -> list[Member]:
    """Return the two files of a segment as its manifest, which is checked, describes them."""
    manifest, content = read_manifest(segment), segment.manifest.read_bytes()
    if segment.data.stat().st_size != manifest["bytes"]:
        raise segment.corrupt(f"it has {segment.data.stat().st_size} bytes instead of {manifest['bytes']}")
    return [
        Member(_name(segment.manifest), len(content), sha256(content)),
        Member(_name(segment.data), manifest["bytes"], manifest["sha256"]),
    ]


def _name(path: Path) -> str:
    """Return the name of a segment's file in an archive."""
    return f"{path.parent.name}/{path.name}"


def _header(name: str, size: int) -> tarfile.TarInfo:
    """Return a header without owner and time, so that equal buffers give equal archives."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def _within(root: Path, segment: Segment) -> Segment:
    """Return a segment of an archive as it is named below a folder of buffers."""
    return Segment(root / segment.folder.name, segment.expert, segment.first, segment.last)


def _read_index(tar: tarfile.TarFile) -> tuple[dict[str, Any], dict[str, Member]]:
    """Read the first member: what each buffer is made of by key, and the other members by name."""
    first = tar.next()
    if first is None or first.name != INDEX or not first.isreg():
        raise _Refused(f"its first member is not {INDEX}, so it was not written by `ddnl experts export`")
    file = tar.extractfile(first)
    assert file is not None
    try:
        index = json.loads(file.read())
        versions = index["format_version"], index["segment_format_version"]
        if versions != (ARCHIVE_VERSION, FORMAT_VERSION):
            raise _Refused(
                f"it has format version {versions[0]} with segments of version {versions[1]}; this ddnl reads "
                f"{ARCHIVE_VERSION} and {FORMAT_VERSION}"
            )
        members = [Member(str(one["name"]), int(one["size"]), str(one["sha256"])) for one in index["members"]]
        keys = {key: key_of(about) for key, about in index["buffers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Refused(f"its {INDEX} cannot be read ({error!r})") from error
    for key, made_of in keys.items():
        if key != made_of:
            raise _Refused(f"buffer {key!r} is not made of what {INDEX} says, which is buffer {made_of}")
    listed = {member.name: member for member in members}
    if len(listed) != len(members):
        raise _Refused(f"its {INDEX} lists a member twice")
    return index["buffers"], listed


def _read_headers(tar: tarfile.TarFile, listed: dict[str, Member]) -> dict[str, tarfile.TarInfo]:
    """Return the headers of the members by name, checked against the list."""
    found: dict[str, tarfile.TarInfo] = {}
    for info in tar.getmembers()[1:]:
        if info.name not in listed:
            raise _Refused(f"it holds {info.name!r}, which {INDEX} does not list")
        if info.name in found:
            raise _Refused(f"it holds {info.name!r} twice")
        if info.type != tarfile.REGTYPE or info.issparse():
            raise _Refused(f"{info.name!r} is not a plain file")
        if info.size != listed[info.name].size:
            raise _Refused(f"{info.name!r} has {info.size} bytes, but {INDEX} says {listed[info.name].size}")
        found[info.name] = info
    for name in listed:
        if name not in found:
            raise _Refused(f"{name!r}, which {INDEX} lists, is missing: the file is not whole")
    return found


def _check_names(buffers: dict[str, Any], listed: dict[str, Member]) -> list[Segment]:
    """Check that the names are those of both files of segments of the buffers; return the segments."""
    segments = set()
    for name in listed:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _Refused(f"{name!r} leads out of the store")
        segment = Segment.of_file(Path(name))
        if segment is None or name not in (_name(segment.data), _name(segment.manifest)):
            raise _Refused(f"{name!r} is not the name of a file of an expert segment")
        if segment.folder.name not in buffers:
            raise _Refused(f"{name!r} belongs to no buffer that {INDEX} describes")
        for part in (_name(segment.data), _name(segment.manifest)):
            if part not in listed:
                raise _Refused(f"{name!r} is there without {part!r}")
        segments.add(segment)
    return list(segments)


def _stage(
    tar: tarfile.TarFile, headers: dict[str, tarfile.TarInfo], listed: dict[str, Member], staged: Segment
) -> None:
    """Copy both files of a segment into the staging folder and check them."""
    staged.folder.mkdir(parents=True, exist_ok=True)
    for path in (staged.manifest, staged.data):
        member = listed[_name(path)]
        source = tar.extractfile(headers[member.name])
        assert source is not None
        hashed = _Hashed(source)
        with path.open("xb") as file:
            shutil.copyfileobj(hashed, file, CHUNK)
            file.flush()
            os.fsync(file.fileno())
        if hashed.hexdigest() != member.sha256:
            raise _Refused(f"{member.name!r} does not match its checksum")
    try:
        manifest = json.loads(staged.manifest.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _Refused(f"{_name(staged.manifest)!r} is not valid JSON ({error})") from error
    fault = manifest_fault(manifest, staged)
    if fault is None and manifest["sha256"] != listed[_name(staged.data)].sha256:
        fault = "its manifest is that of another file"
    if fault is not None:
        raise _Refused(f"{_name(staged.data)!r} is corrupt: {fault}")


def _moved(key: str, segments: list[Segment], new: set[Segment], listed: dict[str, Member]) -> Moved:
    """Return what was moved of one buffer."""
    own = [segment for segment in segments if segment.folder.name == key]
    fresh = [segment for segment in own if segment in new]
    size = sum(listed[_name(path)].size for segment in fresh for path in (segment.data, segment.manifest))
    return Moved(key, len({segment.expert for segment in fresh}), len(fresh), size, len(own) - len(fresh))
