"""Accuracy per label set at a fixed IPC: at the best and at the last epoch of the networks that score.

Reproduces figure 8 of "Dataset Distillers Are Good Label Denoisers".

Differs from the original:

- Best: the epoch that the selection split chose, not the one with the highest test accuracy, unless the run was told
  to select on the test set.
- Label sets stand apart from one another as categories, in the order of the annotations' rates; the lines between
  them only guide the eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.accuracy import place_of
from analysis.figures.rates import draw_line, reference
from analysis.figures.style import (
    DISTILLED,
    EARLY,
    FULL,
    LIGHT,
    MAX_IPC_COLUMNS,
    Theme,
    accuracy_limits,
    dress,
    legend,
    panel_grid,
)
from analysis.names import CORESETS, EARLY_STOPPED, rate_name, split_name
from analysis.panels import Series, series_name, series_order
from analysis.scores import Score, Setting, best_scores, full_data_score, scores
from analysis.statistics import Interval, nested

BySet = dict[Series, Interval]


@dataclass(frozen=True)
class LabelSetPanel:
    """One method at one IPC on one data set.

    Attributes:
        key: The setting without label set and rate.
        last: Accuracy at the last epoch, by label set.
        best: Accuracy at the epoch that the selection split chose.
        full_last: Full-data training at its last epoch.
        full_best: Full-data training, early stopped.
    """

    key: Setting
    last: BySet
    best: BySet
    full_last: BySet
    full_best: BySet

    @property
    def values(self) -> list[BySet]:
        """All four."""
        return [self.last, self.best, self.full_last, self.full_best]


def label_set_panels(frame: pd.DataFrame, split: str = "test", confidence: float = 0.95) -> list[LabelSetPanel]:
    """Return one panel per method and IPC that has a score under annotators' labels.

    What was run without noise stands beside the label sets as another set.
    """
    found, best = scores(frame, split), {score.setting: score for score in best_scores(frame, split)}
    distilled = [score for score in found if score.setting.base_method not in ("full", *CORESETS)]
    panels: dict[Setting, LabelSetPanel] = {}
    for score in distilled:
        if score.setting.noise == "natural":
            key = _key(score.setting)
            panels.setdefault(key, LabelSetPanel(key, {}, {}, {}, {}))
    for score in distilled:
        panel = panels.get(_key(score.setting))
        if panel is None or score.setting.noise not in ("none", "natural"):
            continue
        series = (score.setting.noise, score.setting.noise_rate, score.setting.label_set)
        own = [
            (panel.last, score),
            (panel.best, best.get(score.setting)),
            (panel.full_last, full_data_score(found, score.setting, "none")),
            (panel.full_best, full_data_score(found, score.setting, EARLY_STOPPED)),
        ]
        for values, one in own:
            _put(values, series, one, confidence)
    return sorted(panels.values(), key=lambda panel: panel.key.order)


def no_label_sets(split: str) -> str:
    """Return the sentence for runs without such a panel."""
    return f"No distilled set of annotators' labels (natural noise) has a score on {split_name(split)}."


def label_sets_figure(panels: Sequence[LabelSetPanel], *, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
    """Draw accuracy per label set, one panel per data set, method and IPC.

    Args:
        panels: Of :func:`label_set_panels`, at least one.
        theme: Colours.
        columns: Panels per row; by default one column per IPC, at most four.
    """
    grid = panel_grid(len(panels), columns or min(MAX_IPC_COLUMNS, len({panel.key.ipc for panel in panels})), theme)
    best, last = (theme.palette[0], "o"), (theme.palette[1], "s")
    for panel, axis in zip(panels, grid.axes, strict=True):
        dress(axis, f"{panel.key.method} · IPC {panel.key.ipc}", place_of(panel.key), theme)
        sets = sorted(panel.last, key=series_order)
        place = {series: float(i) for i, series in enumerate(sets)}
        axis.set_xticks(range(len(sets)), [_tick(series) for series in sets])
        axis.set_xlim(-0.4, len(sets) - 0.6)
        axis.set_xlabel("label set (share of wrong labels)", color=theme.muted)
        for values, colour, look in ((panel.full_last, last[0], FULL), (panel.full_best, best[0], EARLY)):
            reference(axis, {place[series]: it for series, it in values.items()}, look, colour)
        for values, style in ((panel.best, best), (panel.last, last)):
            if values:
                draw_line(axis, {place[series]: it for series, it in values.items()}, style, theme, linewidth=1.2)
    grid.label_rows("accuracy (%)", theme)
    for dataset in {panel.key.dataset for panel in panels}:
        group = [(panel, axis) for panel, axis in zip(panels, grid.axes, strict=True) if panel.key.dataset == dataset]
        accuracy_limits([axis for _, axis in group], [value for panel, _ in group for value in _extent(panel)])
    _draw_legends(grid.figure, panels, best, last, theme)
    return grid.figure


def _key(setting: Setting) -> Setting:
    return replace(setting, noise="natural", noise_rate=None, label_set=None)


def _put(values: BySet, series: Series, score: Score | None, confidence: float) -> None:
    if score is not None:
        values[series] = nested(score.sample, confidence)


def _tick(series: Series) -> str:
    name = series_name(series)
    return name if series[1] is None or series[0] == "none" else f"{name}\n{rate_name(series[1])}"


def _extent(panel: LabelSetPanel) -> list[float]:
    intervals = [it for values in panel.values for it in values.values()]
    own = [it for values in (panel.last, panel.best) for it in values.values() if it.is_bounded]
    return [100 * value for value in [it.mean for it in intervals] + [end for it in own for end in (it.low, it.high)]]


def _draw_legends(
    figure: Figure, panels: Sequence[LabelSetPanel], best: tuple[str, str], last: tuple[str, str], theme: Theme
) -> None:
    marked = {"markeredgecolor": theme.paper, **DISTILLED, "linewidth": 1.2}
    distilled = [
        Line2D([], [], color=colour, marker=marker, label=name, **marked)
        for name, (colour, marker), on in (
            ("distilled, best epoch", best, any(panel.best for panel in panels)),
            ("distilled, last epoch", last, any(panel.last for panel in panels)),
        )
        if on
    ]
    full = [
        Line2D([], [], color=colour, label=name, **look)
        for name, colour, look, on in (
            ("full data, last epoch", last[0], FULL, any(panel.full_last for panel in panels)),
            ("full data, early stopped", best[0], EARLY, any(panel.full_best for panel in panels)),
        )
        if on
    ]
    legend(figure, distilled, "upper", theme)
    legend(figure, full, "lower", theme)
