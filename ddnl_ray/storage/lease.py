"""The lock of a remote folder: an object that its owner rewrites with a growing counter.

Object stores, as pyarrow offers them, have no compare-and-swap. A lease is therefore taken by writing one's own name,
waiting, and reading it again; the last writer wins. It is alive while it changes: an observer watches it for as long
as its own monotonic clock says, so that wrong clocks of other nodes do not matter.

What holds: of several that start at the same time at most one goes on, as long as no write takes longer than the wait
(``settle_s``); a driver that was cut off for longer than ``stale_s`` may be taken for dead and replaced, notices that
when it sees another's name at its next beat, and stops at its next look (:meth:`Lease.require`). For that moment both
may work. That costs time and nothing else: results are published whole, under the name of their trial, and the same
trial gives the same result.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ddnl_ray.errors import DdnlError, StorageError
from ddnl_ray.storage.locks import Held


@dataclass(frozen=True)
class Timing:
    """How a lease is kept and watched, in seconds.

    Attributes:
        beat_s: Between two beats of its owner.
        stale_s: Without a change after which it is taken for dead.
        settle_s: Between writing one's name and reading it again.
        clock: Monotonic seconds.
        sleep: Waits for some seconds.
    """

    beat_s: float = 5.0
    stale_s: float = 20.0
    settle_s: float = 2.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Objects(Protocol):
    """What a lease needs of a remote folder."""

    def get(self, name: str) -> bytes:
        """Return the content of an object."""

    def put(self, name: str, data: Any) -> None:
        """Write an object."""

    def remove(self, name: str) -> None:
        """Remove an object."""

    def named(self, name: str = "") -> str:
        """Return how a person is told of it."""


class Lease:
    """A lease on a remote folder.

    Args:
        objects: The folder.
        name: The object.
        timing: How it is kept and watched.
    """

    def __init__(self, objects: Objects, name: str, timing: Timing) -> None:
        self.objects, self.name, self.timing = objects, name, timing
        self.owner = os.urandom(16).hex()
        self.beats = 0
        self.lost = False
        self._ended = threading.Event()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold it, and renew it from a thread.

        Raises:
            Held: Another owner keeps renewing it.
        """
        self._take()
        thread = threading.Thread(target=self._renew, daemon=True, name="ddnl lease")
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            with suppress(DdnlError, OSError):
                if self._is_own(self._read()):
                    self.objects.remove(self.name)

    def is_held(self) -> bool:
        """Return whether an owner renews it; takes ``stale_s`` at most."""
        return self._watched(self._read()) is not None

    def require(self) -> None:
        """Check that it is still ours.

        Raises:
            StorageError: Another driver has taken over.
        """
        if self.lost:
            raise StorageError(
                f"{self.objects.named()} was taken over by another `ddnl sweep`, because this one could not be seen "
                f"for {self.timing.stale_s:g} s; it goes on there, and this one ends"
            )

    def _take(self) -> None:
        there = self._watched(self._read())
        if there is not None:
            raise Held(f"on {there['host']}")
        self._write()
        self.timing.sleep(self.timing.settle_s)
        there = self._read()
        if not self._is_own(there):
            raise Held(f"on {there['host']}" if there is not None else "")

    def _watched(self, there: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the lease of a living owner; None: there is none, or it has stopped changing."""
        began = self.timing.clock()
        while there is not None and self.timing.clock() - began < self.timing.stale_s:
            self.timing.sleep(self.timing.beat_s / 2)
            now = self._read()
            if now is not None and now != there:
                return now
            there = now
        return None

    def _renew(self) -> None:
        """Beat until the end; storage that does not answer is asked again at the next beat."""
        while not self._ended.wait(self.timing.beat_s):
            with suppress(DdnlError, OSError):
                there = self._read()
                if there is not None and not self._is_own(there):
                    self.lost = True
                    return
                self._write()

    def _is_own(self, there: dict[str, Any] | None) -> bool:
        return there is not None and there["owner"] == self.owner

    def _write(self) -> None:
        self.beats += 1
        about = {"owner": self.owner, "beat": self.beats, "host": socket.gethostname()}
        self.objects.put(self.name, json.dumps(about).encode())

    def _read(self) -> dict[str, Any] | None:
        """Return the lease; None: there is none (or it is none of ours)."""
        try:
            found = json.loads(self.objects.get(self.name))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and {"owner", "beat", "host"} <= set(found) else None
