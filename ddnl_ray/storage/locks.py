"""The lock of a local folder: a file that the operating system locks for as long as a process lives."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddnl_ray.errors import RequestError


class Held(Exception):
    """Another process holds a folder; the text says which, where that is known."""


class FileLock:
    """An exclusive ``flock``.

    On NFS Linux makes it a lock of the server, seen by all clients, unless the mount says ``nolock`` or
    ``local_lock=flock``: then it is seen on its own node only. Where the server keeps no locks, it is refused.

    Args:
        path: The file; it is made, and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold it (see :meth:`ddnl_ray.storage.Folder.lock`).

        Raises:
            Held: Another process holds it.
            RequestError: The file system has no locks.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Held from error
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                raise RequestError(
                    f"{self.path.parent} is on a file system without locks ({error.strerror}): start the lock service "
                    "of the NFS server, or choose another --out"
                ) from error
            yield

    def is_held(self) -> bool:
        """Return whether another process holds it."""
        try:
            with self.hold():
                return False
        except Held:
            return True
