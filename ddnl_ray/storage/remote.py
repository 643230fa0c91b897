"""A folder in an object store, with a working copy on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ddnl_ray.errors import CorruptFileError, RequestError, StorageError
from ddnl_ray.files import open_atomic
from ddnl_ray.storage.folder import Entry, Folder, any_name, files_below
from ddnl_ray.storage.lease import Lease, Timing
from ddnl_ray.storage.retry import Patience

CHUNK = 2**23
TRANSFERS = 8
REPLACED = 20
"""How often a file is read that is replaced while it is read."""


class RemoteFolder(Folder):
    """A folder of an object store.

    Uploads hand each file over in one piece, from a memory map: a stream of pyarrow that is left by an exception
    between two writes would be completed, half as it is.

    Args:
        address: What opens it again.
        shown: How a person is told of it.
        filesystem: The pyarrow file system.
        prefix: Its place there.
        path: The working copy.
        patience: How long storage may stay away.
        timing: How its lease is watched.
    """

    is_remote = True

    def __init__(
        self,
        address: str,
        shown: str,
        filesystem: Any,
        prefix: str,
        path: Path,
        patience: Patience | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._address, self._shown, self._prefix, self.path = address, shown, prefix, path
        self.filesystem, self.patience, self.timing = filesystem, patience or Patience(), timing or Timing()
        self._lease: Lease | None = None
        self._is_away = False

    @property
    def address(self) -> str:
        """Its address with all options."""
        return self._address

    def named(self, name: str = "") -> str:
        """Return its address without options."""
        return f"{self._shown}/{name}".rstrip("/")

    def check(self, write: bool = False) -> None:
        """List it, and write an object and remove it again (see :meth:`Folder.check`)."""
        from pyarrow.fs import FileType

        bucket = self._prefix.split("/", 1)[0]
        (info,) = self._do("look for its bucket", lambda: self.filesystem.get_file_info([bucket]))
        if info.type is FileType.NotFound:
            raise RequestError(
                f"{self._shown} is in a bucket that is not there, {bucket!r}: make it, or correct the address"
            )
        self._do("be listed", lambda: self._infos("", recursive=False))
        if write:
            probe = f".probe-{os.urandom(8).hex()}"
            self.put(probe, b"")
            self.remove(probe)

    def put(self, name: str, data: Any) -> None:
        """Write an object as a whole from bytes or an Arrow buffer.

        Raises:
            StorageError: Storage does not answer, or another driver has taken over the folder.
        """
        if self._lease is not None:
            self._lease.require()

        def upload() -> None:
            stream = self.filesystem.open_output_stream(self._full(name), compression=None)
            stream.write(data)
            stream.close()

        # Ctrl-C reaches the main thread only: in a thread of its own an upload is never cut in two.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._do, f"write {name}", upload).result()

    def get(self, name: str) -> bytes:
        """Return the content of an object.

        Raises:
            FileNotFoundError: There is none.
        """

        def download() -> bytes:
            with self.filesystem.open_input_stream(self._full(name), compression=None) as stream:
                return bytes(stream.read())

        content: bytes = self._do(f"read {name}", download)
        return content

    def publish(self, *names: str) -> None:
        """Upload files."""
        import pyarrow as pa

        for name in names:
            local = self.path / name
            if not local.stat().st_size:
                self.put(name, b"")
                continue
            with pa.memory_map(str(local)) as source:
                self.put(name, source.read_buffer())

    def fetch(self, name: str, checksum: str | None = None) -> Path:
        """Download a file; its time becomes that of the object, by which :meth:`pull` knows it again.

        An object comes in pieces: one that was replaced meanwhile is read again, so that no mixture is seen.
        """
        info = self._info(name)
        for _ in range(REPLACED):
            if info is None:
                raise FileNotFoundError(f"there is no {self.named(name)}")
            path, before = self._download(name, info.mtime_ns, checksum), info
            info = self._info(name)
            if info is not None and _version(info) == _version(before) and path.stat().st_size == info.size:
                return path
        raise StorageError(f"{self.named(name)} was replaced {REPLACED} times while it was read; try again")

    def keep(self, name: str, checksum: str | None = None) -> Path:
        """Download a file once."""
        path = self.path / name
        return path if path.is_file() else self.fetch(name, checksum)

    def pull(self, below: str = "", wanted: Callable[[str], bool] = any_name) -> None:
        """Download what is new or has another size or time, and drop what is not there any more."""
        infos = {name: info for name, info in self._files(below) if wanted(name) and not _is_hidden(name)}
        for entry in files_below(self.path, below):
            if entry.name not in infos and wanted(entry.name):
                (self.path / entry.name).unlink(missing_ok=True)
        stale = [(name, info.mtime_ns) for name, info in infos.items() if not _same(self.path / name, info)]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda item: self._download(*item), stale))

    def exists(self, name: str) -> bool:
        """Return whether there is such an object."""
        return self._info(name) is not None

    def entries(self, below: str = "") -> list[Entry]:
        """List objects."""
        found = (Entry(name, info.size, (info.mtime_ns or 0) / 1e9) for name, info in self._files(below))
        return sorted(entry for entry in found if not _is_hidden(entry.name))

    def children(self) -> list[str]:
        """List what is in it, one request for a thousand names."""
        infos = self._do("be listed", lambda: self._infos("", recursive=False))
        return sorted(info.base_name for info in infos if not _is_hidden(info.base_name))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects, and this machine's copies."""
        for name in names:
            self.remove(name)
            (self.path / name).unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Drop the copy of a file or folder."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Take a lease (see :class:`Lease`); whatever is written while it is held needs it."""
        lease = Lease(self, name, self.timing)
        with lease.hold():
            self._lease = lease
            try:
                yield
            finally:
                self._lease = None

    def is_locked(self, name: str) -> bool:
        """Return whether the lease is renewed; that takes a while to see."""
        return Lease(self, name, self.timing).is_held()

    @contextmanager
    def private(self) -> Iterator[Folder]:
        """Give the folder with a working copy in the folder for temporary files."""
        with tempfile.TemporaryDirectory(prefix="ddnl-", ignore_cleanup_errors=True) as path:
            own = self._address, self._shown, self.filesystem, self._prefix, Path(path), self.patience, self.timing
            yield RemoteFolder(*own)

    def _full(self, name: str) -> str:
        return f"{self._prefix}/{name}" if name else self._prefix

    def _do(self, doing: str, action: Callable[[], Any]) -> Any:
        """Do something, patiently; where storage has been given up before, its absence is not waited for again."""
        patience = replace(self.patience, total_s=0.0) if self._is_away else self.patience
        try:
            done = patience.persist(self._shown, doing, action)
        except StorageError:
            self._is_away = True
            raise
        self._is_away = False
        return done

    def _infos(self, below: str, recursive: bool = True) -> Any:
        from pyarrow.fs import FileSelector

        return self.filesystem.get_file_info(FileSelector(self._full(below), recursive=recursive, allow_not_found=True))

    def _files(self, below: str) -> Iterator[tuple[str, Any]]:
        """Yield the objects below a name, each with what is known of it."""
        start = len(self._prefix) + 1
        for info in self._do(f"list {below}".strip(), lambda: self._infos(below)):
            if info.is_file:
                yield info.path[start:], info

    def _info(self, name: str) -> Any:
        """Return what is known of an object; None: it is not there."""
        (info,) = self._do(f"look for {name}", lambda: self.filesystem.get_file_info([self._full(name)]))
        return info if info.is_file else None

    def _download(self, name: str, mtime_ns: int | None, checksum: str | None = None) -> Path:
        path = self.path / name

        def download() -> str:
            found = sha256()
            with (
                self.filesystem.open_input_stream(self._full(name), compression=None) as source,
                open_atomic(path) as file,
            ):
                while chunk := source.read(CHUNK):
                    found.update(chunk)
                    file.write(chunk)
                if checksum is not None and found.hexdigest() != checksum:
                    raise CorruptFileError(f"{self.named(name)} does not match its checksum")
            return found.hexdigest()

        self._do(f"read {name}", download)
        if mtime_ns is not None:
            os.utime(path, ns=(mtime_ns, mtime_ns))
        return path

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is passed over."""
        try:
            self._do(f"remove {name}", lambda: self.filesystem.delete_file(self._full(name)))
        except FileNotFoundError:
            return


def _version(info: Any) -> tuple[int, int | None]:
    return info.size, info.mtime_ns


def _same(path: Path, info: Any) -> bool:
    """Return whether a copy has the size and time of its object."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return bool(stat.st_size == info.size and stat.st_mtime_ns == info.mtime_ns)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
