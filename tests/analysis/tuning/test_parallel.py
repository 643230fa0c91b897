from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.tuning import parallel_plot, searches

MakeCells = Callable[..., Any]
SPACE = {"w": {"log_uniform": [0.01, 1.0]}, "k": {"choice": [1, 2]}}


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_every_scored_trial_is_a_line_through_its_values(make_cells: MakeCells) -> None:
    trials = [({"w": 0.1, "k": 1}, 0.4, 0.4), ({"w": 1.0, "k": 2}, 0.6, 0.6), ({"w": 0.01, "k": 2}, None, None)]
    (search,) = searches(make_cells([trials]), SPACE, "val_noisy")
    plot = parallel_plot(search)
    assert plot is not None
    assert [axis.name for axis in plot.axes] == ["w", "k", "val_noisy, %"]
    ticks = [[text for _, text in axis.ticks] for axis in plot.axes]
    assert ticks == [["0.01", "0.1", "1"], ["1", "2"], ["40.0", "50.0", "60.0"]]
    low, best = plot.lines
    assert (low.level, low.is_best, best.level, best.is_best) == (0, False, 1, True)
    middle = (plot.top + plot.bottom) / 2
    assert points(low.points)[0][1] == pytest.approx(middle, abs=0.1)
    assert points(low.points)[1][1] > middle > points(best.points)[1][1]
    assert points(low.points)[-1][1] == pytest.approx(plot.bottom)
    assert [points(best.points)[i] for i in (0, 2)] == [(plot.axes[0].x, plot.top), (plot.axes[2].x, plot.top)]
    assert best.title == "noise seed 0, seed 0, trial 1: 60.0 %; w = 1, k = 2"
    assert plot.summary.startswith("2 trials as lines through w, k and their score. Best: noise seed 0")


def test_pooled_cells_are_drawn_from_their_means(make_cells: MakeCells) -> None:
    one = [({"w": 0.1, "k": 1}, 0.40, 0.4), ({"w": 1.0, "k": 2}, 0.42, 0.6)]
    two = [({"w": 0.1, "k": 1}, 0.80, 0.4), ({"w": 0.5, "k": 2}, 0.90, 0.6)]
    (search,) = searches(make_cells([one, two]), SPACE, "val_noisy")
    plot = parallel_plot(search)
    assert plot is not None
    assert [text for _, text in plot.axes[-1].ticks] == ["−5.0", "0.0", "+5.0"]
    assert [line.level for line in plot.lines] == pytest.approx([0, 0.4, 0.6, 1])
    assert [line.is_chosen for line in plot.lines] == [False, False, True, True]


def test_one_scored_trial_or_equal_scores_lie_in_the_middle(make_cells: MakeCells) -> None:
    trials = [({"w": 0.1, "k": 1}, 0.4, 0.4), ({"w": 1.0, "k": 2}, None, None)]
    (search,) = searches(make_cells([trials]), SPACE, "val_noisy")
    plot = parallel_plot(search)
    assert plot is not None
    assert [points(line.points)[-1][1] for line in plot.lines] == [pytest.approx((plot.top + plot.bottom) / 2)]


def test_without_a_score_there_is_no_plot(make_cells: MakeCells) -> None:
    trials = [({"w": 0.1, "k": 1}, None, None), ({"w": 1.0, "k": 2}, None, None)]
    (search,) = searches(make_cells([trials]), SPACE, "val_noisy")
    assert parallel_plot(search) is None


def test_lines_stay_between_the_ends_of_their_axes(make_cells: MakeCells) -> None:
    trials = [({"w": 10 ** (-i / 10), "k": 1 + i % 2}, 0.02 * i, 0.4) for i in range(21)]
    (search,) = searches(make_cells([trials]), SPACE, "val_noisy")
    plot = parallel_plot(search)
    assert plot is not None
    heights = [y for line in plot.lines for _, y in points(line.points)]
    assert plot.top <= min(heights) <= max(heights) <= plot.bottom
    assert len({points(line.points)[0][1] for line in plot.lines}) == 21
