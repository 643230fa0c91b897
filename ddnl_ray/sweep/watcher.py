"""Who is told what a sweep does."""

from __future__ import annotations

from typing import Protocol

from ddnl_ray.sweep.studies import Studies


class Watcher(Protocol):
    """Told what a sweep does, to show it."""

    def stage(self, text: str) -> None:
        """Note that a stage of the sweep starts."""

    def experts(self, done: int, total: int) -> None:
        """Note how many experts are there."""

    def trials(self, studies: Studies, running: int) -> None:
        """Note that trials have started or ended."""


class Silent:
    """Shows nothing (implements :class:`Watcher`)."""

    def stage(self, text: str) -> None:
        """Ignore it (see :class:`Watcher`)."""

    def experts(self, done: int, total: int) -> None:
        """Ignore it (see :class:`Watcher`)."""

    def trials(self, studies: Studies, running: int) -> None:
        """Ignore it (see :class:`Watcher`)."""
