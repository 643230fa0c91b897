"""The optimism of choosing: what picking the trial on the scored split would have added to its accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.names import counted, percent
from analysis.scores import Setting
from analysis.statistics import Interval, Replicate, nested
from analysis.trials import Cell
from analysis.tuning.searches import mean_score

HELD_OUT = ("val_noisy", "val_clean")


@dataclass(frozen=True, slots=True)
class Choosing:
    """How much better the best trial on the scored split is there than the one that another split chose.

    Attributes:
        gain: Over replicates (noise draw and seed); the cells of one replicate are averaged first. No gain is
            negative, so the sentence cuts the Student interval at 0.
        num_cells: Searched cells behind it.
        trials: The fewest and the most trials of such a cell.
        chosen_on: The split that chose.
        split: The split that was scored.
    """

    gain: Interval
    num_cells: int
    trials: tuple[int, int]
    chosen_on: str
    split: str

    @property
    def sentence(self) -> str:
        """The finding in words."""
        low, high = self.trials
        each = f"{low}" if low == high else f"{low} to {high}"
        what = (
            f"The optimism of choosing: had the best of the {each} trials of each cell been picked on {self.split} and "
            f"not on {self.chosen_on}, the accuracy reported would be {percent(self.gain.mean)} points higher"
        )
        if self.gain.within or not self.gain.is_bounded:
            of = f"{counted(self.num_cells, 'cell')} of one replicate, no interval"
        else:
            ends = f"{percent(max(0.0, self.gain.low))} to {percent(self.gain.high)}"
            of = f"95 % interval {ends}, n = {counted(self.gain.n, 'replicate')}, {counted(self.num_cells, 'cell')}"
        return f"{what} ({of}); an upper bound, because {self.split} may also choose better."


def choosing(found: Iterable[Cell], select_on: str | None, split: str = "test") -> Choosing | None:
    """Return what choosing on ``split`` would have added; None where no cell has two trials scored on both splits.

    A run that chose on ``split`` itself is measured against the trial that held-out data would have chosen.

    Args:
        found: The cells of a run.
        select_on: The split on which trials were chosen; None if it is not known.
        split: The split that the report is about.
    """
    cells = list(found)
    candidates = [select_on] if select_on not in (None, split) else list(HELD_OUT)
    for other in candidates:
        gains = {} if other == split or other is None else _gains(cells, other, split)
        if gains and other is not None:
            sample = {replicate: [gain for gain, _ in own.values()] for replicate, own in gains.items()}
            sizes = [size for own in gains.values() for _, size in own.values()]
            return Choosing(nested(sample), len(sizes), (min(sizes), max(sizes)), other, split)
    return None


def _gains(
    cells: Iterable[Cell], chosen_on: str, split: str
) -> dict[Replicate, dict[tuple[Setting, int], tuple[float, int]]]:
    gains: dict[Replicate, dict[tuple[Setting, int], tuple[float, int]]] = {}
    for i, cell in enumerate(cells):
        scores = [(mean_score(rows, chosen_on), mean_score(rows, split)) for rows in cell.trials.values()]
        both = [(one, other) for one, other in scores if one is not None and other is not None]
        if len(both) > 1:
            own = max(both, key=lambda pair: pair[0])[1]
            gain = max(other for _, other in both) - own
            gains.setdefault((cell.noise_seed, cell.seed), {})[cell.setting, i] = (gain, len(both))
    return gains
