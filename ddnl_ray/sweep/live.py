"""What a person sees while a sweep runs: one quiet live status on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ddnl_ray.sweep.studies import Studies

LINES_EVERY_S = 15.0
FRAMES_EVERY_S = 0.25
MAX_ROWS = 12


class StatusWatcher:
    """Shows a sweep (implements :class:`ddnl_ray.sweep.watcher.Watcher`).

    Args:
        console: Where to write.
        clock: The time in seconds that is shown, and by which lines are spaced.
        lines_every_s: Seconds between lines where the console is no terminal.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, lines_every_s: float = LINES_EVERY_S
    ) -> None:
        self.console, self.clock, self.lines_every_s = console, clock, lines_every_s
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.started = clock()
        self.last_line = -math.inf
        self.last_frame = -math.inf
        self.studies: tuple[Studies, int] | None = None
        self.seen = 0
        self.ran_s = 0.0

    def __enter__(self) -> StatusWatcher:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            if self.studies is not None:
                self.live.update(self._frame(*self.studies), refresh=True)
            self.live.stop()

    def stage(self, text: str) -> None:
        """Note that a stage starts (see :class:`ddnl_ray.sweep.watcher.Watcher`)."""
        self._show(f"{self._clock()} {text}", force=True)

    def experts(self, done: int, total: int) -> None:
        """Note how many experts are there."""
        self._show(f"{self._clock()} experts {done}/{total}", force=done in (0, total))

    def trials(self, studies: Studies, running: int) -> None:
        """Note that trials have started or ended."""
        self.studies = studies, running
        for result in itertools.islice(studies.log, self.seen, None):
            self.seen += 1
            self.ran_s += result.wall_s
            if result.outcome.is_failure:
                self._line(f"{result.outcome}: {result.trial}: {result.message}")
        over = studies.is_exhausted and running == 0
        if self.live is not None:
            now = time.monotonic()
            if over or now - self.last_frame > FRAMES_EVERY_S:
                self.last_frame = now
                self.live.update(self._frame(studies, running), refresh=True)
        elif over or self.clock() - self.last_line > self.lines_every_s:
            self._line(f"{self._clock()} {self._counts(studies, running)}")

    def _frame(self, studies: Studies, running: int) -> Group:
        return Group(Text(f"{self._clock()} {self._counts(studies, running)}"), self._best(studies))

    def _counts(self, studies: Studies, running: int) -> str:
        total, ended = studies.plan.num_trials, len(studies.ended)
        parts = [
            f"cells {studies.cells_done}/{len(studies.plan.cells)}",
            f"trials {ended}/{total}",
            f"running {running}",
            f"failed {studies.failed}",
        ]
        if studies.cached:
            parts.append(f"cached {studies.cached}")
        left = total - ended
        if self.seen and left:
            seconds = self.ran_s / self.seen * left / max(1, running)
            parts.append(f"about {_duration(seconds)} left")
        return ", ".join(parts)

    def _best(self, studies: Studies) -> Table:
        """Return the best trial so far of the last cells that have one, on the selection split."""
        table = Table(box=None, padding=(0, 1), header_style="dim")
        table.add_column("cell")
        table.add_column(f"best {studies.plan.sweep.search.select_on}", justify="right")
        table.add_column("trials", justify="right")
        begun = (study for study in reversed(studies.studies.values()) if study.ended)
        for study in reversed(list(itertools.islice(begun, MAX_ROWS))):
            best = f"{study.best:.3f}" if study.best is not None else ""
            table.add_row(study.cell.name.rsplit("-", 1)[0], best, str(study.ended))
        return table

    def _show(self, text: str, force: bool) -> None:
        if self.live is not None:
            self.live.update(Text(text), refresh=True)
        elif force or self.clock() - self.last_line > self.lines_every_s:
            self._line(text)

    def _line(self, text: str) -> None:
        self.last_line = self.clock()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            sys.stdout.flush()

    def _clock(self) -> str:
        return f"[{_duration(self.clock() - self.started)}]"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
