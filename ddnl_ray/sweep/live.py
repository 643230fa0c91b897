"""What a person sees while a sweep runs: one quiet live status on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import defaultdict

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ddnl_ray.results import Outcome
from ddnl_ray.sweep.ledger import Finished, trial_name
from ddnl_ray.sweep.studies import Studies

LINES_EVERY_S = 15.0
MAX_ROWS = 12


class StatusWatcher:
    """Shows a sweep (implements :class:`ddnl_ray.sweep.driver.Watcher`).

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.started = time.monotonic()
        self.last_line = 0.0
        self.ran: list[Finished] = []
        self.seen: set[str] | None = None

    def __enter__(self) -> StatusWatcher:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def stage(self, text: str) -> None:
        """Note that a stage starts (see :class:`ddnl_ray.sweep.driver.Watcher`)."""
        self._show(Text(f"{self._clock()} {text}"), force=True)

    def experts(self, done: int, total: int) -> None:
        """Note how many experts are there."""
        self._show(Text(f"{self._clock()} experts {done}/{total}"), force=done in (0, total))

    def trials(self, studies: Studies, running: int) -> None:
        """Note that trials have started or ended."""
        if self.seen is None:
            self.seen = set(studies.ended)
        for name, result in studies.ended.items():
            if name not in self.seen:
                self.seen.add(name)
                self.ran.append(result)
                if result.outcome not in (Outcome.OK, Outcome.STOPPED):
                    self._line(f"{result.outcome}: {name}: {result.message}")
        line = Text(f"{self._clock()} {self._counts(studies, running)}")
        body = Group(line, self._best(studies)) if self.live is not None else line
        self._show(body, force=studies.is_exhausted and running == 0)

    def _counts(self, studies: Studies, running: int) -> str:
        total, ended = studies.plan.num_trials, studies.ended
        failed = sum(result.outcome not in (Outcome.OK, Outcome.STOPPED) for result in ended.values())
        cells = len(studies.plan.cells) - len(studies.remaining())
        parts = [
            f"cells {cells}/{len(studies.plan.cells)}",
            f"trials {len(ended)}/{total}",
            f"running {running}",
            f"failed {failed}",
        ]
        if studies.cached:
            parts.append(f"cached {studies.cached}")
        left = total - len(ended)
        if self.ran and left:
            seconds = sum(result.wall_s for result in self.ran) / len(self.ran) * left / max(1, running)
            parts.append(f"about {_duration(seconds)} left")
        return ", ".join(parts)

    def _best(self, studies: Studies) -> Table:
        """Return the best trial so far of the cells that have one, on the selection split."""
        table = Table(box=None, padding=(0, 1), header_style="dim")
        table.add_column("cell")
        table.add_column(f"best {studies.plan.sweep.search.select_on}", justify="right")
        table.add_column("trials", justify="right")
        rows: dict[str, list[Finished]] = defaultdict(list)
        for cell in studies.plan.cells:
            names = (trial_name(cell.name, number) for number in range(cell.trials))
            rows[cell.name] = [studies.ended[name] for name in names if name in studies.ended]
        scored = [(name, own) for name, own in rows.items() if own]
        for name, own in scored[-MAX_ROWS:]:
            values = [result.value for result in own if result.value is not None]
            table.add_row(name.rsplit("-", 1)[0], f"{max(values):.3f}" if values else "", str(len(own)))
        return table

    def _show(self, body: Text | Group, force: bool) -> None:
        if self.live is not None:
            self.live.update(body, refresh=True)
        elif isinstance(body, Text) and (force or time.monotonic() - self.last_line > LINES_EVERY_S):
            self._line(body.plain)

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            sys.stdout.flush()

    def _clock(self) -> str:
        return f"[{_duration(time.monotonic() - self.started)}]"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
