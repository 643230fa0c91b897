"""Trials as lines through parallel axes, one per parameter, the last one their score: inline SVG without a script."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.names import NOT_AVAILABLE, percent
from analysis.tuning.searches import Axis, Search, Searched, value_text

HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 320.0, 62.0, 18.0, 84.0, 76.0
WIDTH, MIN_SPACING = 960.0, 132.0
CHARACTER = 8.0
"""Width of a character of a name."""
SCATTER = 0.5
"""Lines through one value of a choice are spread over this part of its step, so that none hides another."""
GOLDEN = 0.6180339887


@dataclass(frozen=True, slots=True)
class AxisLine:
    """One drawn axis.

    Attributes:
        x: Its place.
        name: Its name.
        name_at: Place and anchor of the name.
        ticks: Heights and texts.
    """

    x: float
    name: str
    name_at: tuple[float, float, str]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One drawn trial.

    Attributes:
        points: ``x,y`` pairs as SVG has them.
        level: The score on the colour scale, 0 for the lowest and 1 for the highest of the search.
        title: The trial in words.
        is_best: The best of all that are drawn.
        is_chosen: The best of its cell.
        ends: Centre of the mark at the score.
    """

    points: str
    level: float
    title: str
    is_best: bool
    is_chosen: bool
    ends: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing of all trials that have a score, the best one last so that it lies on top."""

    width: float
    height: float
    top: float
    bottom: float
    axes: list[AxisLine]
    lines: list[TrialLine]
    summary: str


def parallel_plot(search: Search) -> Plot | None:
    """Return the drawing of a search; None if no trial has a score.

    Trials of several cells are compared by their score minus the mean of their cell, because cells differ in their
    noise draw; the trials of one cell by the score itself.
    """
    trials = search.scored
    if not trials:
        return None
    values = [_value(search, trial) for trial in trials]
    low, high = _padded(min(values), max(values))
    spacing = max(MIN_SPACING, (WIDTH - LEFT - RIGHT) / len(search.axes))
    base = HEIGHT - BOTTOM
    places = [LEFT + spacing * i for i in range(len(search.axes) + 1)]
    axes = [_axis(axis, x, i) for i, (axis, x) in enumerate(zip(search.axes, places, strict=False))]
    ticks = [(_y((value - low) / (high - low)), _score_text(search, value)) for value in _three(low, high)]
    name = f"{search.select_on}, points from mean" if search.is_pooled else f"{search.select_on}, %"
    name_at = (places[-1] + RIGHT - 2, _name_y(len(search.axes)), "end")
    axes.append(AxisLine(places[-1], name, name_at, ticks))
    best = max(range(len(trials)), key=lambda i: values[i])
    lines = []
    for i in sorted(range(len(trials)), key=lambda i: values[i]):
        points = [(x, _y(_scattered(a, trials[i], i))) for a, x in zip(search.axes, places, strict=False)]
        points.append((places[-1], _y((values[i] - low) / (high - low))))
        span = max(values) - min(values)
        level = (values[i] - min(values)) / span if span else 1.0
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(TrialLine(text, level, trial_text(trials[i]), i == best, trials[i].is_best, points[-1]))
    names = ", ".join(axis.name for axis in search.axes)
    summary = f"{len(trials)} trials as lines through {names} and their score. Best: {trial_text(trials[best])}."
    return Plot(places[-1] + RIGHT, HEIGHT, TOP, base, axes, lines, summary)


def trial_text(trial: Searched) -> str:
    """Return one trial in words: its cell, number, scores and parameters."""
    params = ", ".join(f"{name} = {value_text(value)}" for name, value in trial.params.items())
    score = NOT_AVAILABLE if trial.score is None else f"{percent(trial.score)} %"
    return f"{trial.cell.replicate}, trial {trial.number}: {score}; {params}"


def _axis(axis: Axis, x: float, i: int) -> AxisLine:
    fits = len(axis.name) * CHARACTER / 2 < x
    name_at = (x, _name_y(i), "middle") if fits else (2.0, _name_y(i), "start")
    return AxisLine(x, axis.name, name_at, [(_y(at), text) for at, text in axis.ticks])


def _name_y(i: int) -> float:
    """Return the height of the name of an axis: neighbours take turns, so that long names do not meet."""
    return TOP - (18 if i % 2 == 0 else 38)


def _scattered(axis: Axis, trial: Searched, i: int) -> float:
    shift = (GOLDEN * (i + 1)) % 1 - 0.5
    width = SCATTER * axis.step
    inner = axis.place(trial.params[axis.name]) + shift * width
    return min(1.0, max(0.0, inner))


def _value(search: Search, trial: Searched) -> float:
    value = trial.relative if search.is_pooled else trial.score
    return math.nan if value is None else value


def _score_text(search: Search, value: float) -> str:
    return percent(value, signed=search.is_pooled and abs(value) >= 0.0005)


def _padded(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.005, high + 0.005)


def _three(low: float, high: float) -> list[float]:
    return [low, (low + high) / 2, high]


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
