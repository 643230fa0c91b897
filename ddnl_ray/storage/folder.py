"""A folder whose files appear whole or not at all, on a local disk, on NFS or in an object store.

Files are written below ``path`` by renaming (:func:`ddnl_ray.files.open_atomic`) and become visible by ``publish``. A
local folder is itself: there ``path`` is the folder, publishing does nothing, and nothing is ever copied. For a remote
folder ``path`` is a working copy on this machine; an object of S3 or GCS is there when its upload has ended, and a
process that dies before leaves nothing that a reader can see.

On NFS, as on a disk, a rename within the folder is atomic on the server, and the files of other nodes are seen when
they are opened (close-to-open consistency). The lock (:mod:`ddnl_ray.storage.locks`) says what it needs there.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ddnl_ray.errors import RequestError
from ddnl_ray.storage.locks import FileLock


@dataclass(frozen=True, order=True)
class Entry:
    """A file of a folder.

    Attributes:
        name: Its name below the folder, parts joined by ``/``.
        num_bytes: Its size.
        changed_at: When it was written, seconds since the epoch, by the clock of what stores it.
    """

    name: str
    num_bytes: int
    changed_at: float


def any_name(name: str) -> bool:
    """Want every file."""
    return True


class Folder(ABC):
    """A folder.

    Attributes:
        path: The folder of this machine in which its files are written, and read after :meth:`fetch` or :meth:`pull`.
    """

    path: Path
    is_remote = False

    @property
    @abstractmethod
    def address(self) -> str:
        """What opens it from another process or node."""

    @abstractmethod
    def named(self, name: str = "") -> str:
        """Return how a person is told of the folder, or of a file in it."""

    @abstractmethod
    def check(self, write: bool = False) -> None:
        """Ask whether it can be read, and written where asked for.

        Raises:
            RequestError: It refuses.
            StorageError: It does not answer.
        """

    @abstractmethod
    def publish(self, *names: str) -> None:
        """Make files that lie below ``path`` visible, one after the other, each as a whole."""

    @abstractmethod
    def fetch(self, name: str, checksum: str | None = None) -> Path:
        """Bring a file as it is now; return where it lies.

        Raises:
            FileNotFoundError: There is none.
            CorruptFileError: It was brought and does not have the SHA-256 ``checksum``.
        """

    @abstractmethod
    def keep(self, name: str, checksum: str | None = None) -> Path:
        """Bring a file that never changes, unless it was brought before (see :meth:`fetch`)."""

    @abstractmethod
    def pull(self, below: str = "", wanted: Callable[[str], bool] = any_name) -> None:
        """Make what lies at ``path`` below a name like what is visible, for the names that are wanted."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether a file is visible."""

    @abstractmethod
    def entries(self, below: str = "") -> list[Entry]:
        """Return the visible files below a name, by name; those that start with a dot are left out."""

    @abstractmethod
    def children(self) -> list[str]:
        """Return the names of the files and folders in it, by name; those that start with a dot are left out."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Remove files in this order; those that are not there are passed over."""

    @abstractmethod
    def forget(self, name: str) -> None:
        """Drop this machine's copy of a file or folder; a local folder has none."""

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the folder; given up when the process ends, however it ends.

        Raises:
            Held: Another process holds it.
        """

    @abstractmethod
    def is_locked(self, name: str) -> bool:
        """Return whether a living process holds the folder."""

    @abstractmethod
    def private(self) -> AbstractContextManager[Folder]:
        """Give the folder with a working copy of its own, empty at first and removed at the end."""


class LocalFolder(Folder):
    """A folder of this machine or of NFS."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> str:
        """Its absolute path."""
        return str(self.path.resolve())

    def named(self, name: str = "") -> str:
        """Return its path."""
        return str(self.path / name)

    def check(self, write: bool = False) -> None:
        """Ask whether it is a folder; one that does not exist is made when it is first written to.

        Raises:
            RequestError: It is a file, or lies below one.
        """
        there = next((place for place in (self.path, *self.path.parents) if place.exists()), None)
        if there is not None and not there.is_dir():
            raise RequestError(f"{there} is a file, where a folder should be; name another one")

    def publish(self, *names: str) -> None:
        """Do nothing: what was renamed into place is visible."""

    def fetch(self, name: str, checksum: str | None = None) -> Path:
        """Return where a file is."""
        return self.path / name

    keep = fetch

    def pull(self, below: str = "", wanted: Callable[[str], bool] = any_name) -> None:
        """Do nothing."""

    def exists(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.path / name).is_file()

    def entries(self, below: str = "") -> list[Entry]:
        """Return the files below a name."""
        return files_below(self.path, below)

    def children(self) -> list[str]:
        """Return what is in it."""
        return sorted(path.name for path in self.path.iterdir() if path.name[0] != ".") if self.path.is_dir() else []

    def delete(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Do nothing."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Lock a file in it (see :class:`FileLock`)."""
        return FileLock(self.path / name).hold()

    def is_locked(self, name: str) -> bool:
        """Return whether that file is locked."""
        return FileLock(self.path / name).is_held()

    @contextmanager
    def private(self) -> Iterator[Folder]:
        """Give itself: trials have folders of their own."""
        yield self


def files_below(root: Path, below: str) -> list[Entry]:
    """Return the files of a local folder below a name."""
    found = []
    for folder, folders, files in os.walk(root / below):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # removed since it was listed
                    stat = path.stat()
                    found.append(Entry(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime))
    return sorted(found)
