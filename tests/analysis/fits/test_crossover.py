from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.fits.crossover import crossovers, first_reached

CurveFrame = Callable[..., pd.DataFrame]
POINTS = {1: 0.3, 10: 0.5, 100: 0.7}


def test_first_reached_by_hand() -> None:
    heights = np.array(
        [
            [-0.1, 0.3, 0.5],  # a quarter of the way from log 1 to log 10
            [-0.3, -0.1, 0.1],  # half way from log 10 to log 100
            [0.0, -0.2, 0.5],  # already there
            [-0.2, -0.1, -0.01],  # never
            [-0.2, 0.0, -0.5],  # on a point, although it falls afterwards
            [-0.1, math.nan, 0.1],  # half way from log 1 to log 100
            [math.nan, math.nan, math.nan],
        ]
    )
    places = first_reached([1, 10, 100], heights)
    ten = math.log(10)
    assert places[:2].tolist() == pytest.approx([0.25 * ten, 1.5 * ten])
    assert places[2:4].tolist() == [-math.inf, math.inf]
    assert places[4:6].tolist() == pytest.approx([ten, ten])
    assert math.isnan(places[6])


def test_crossover_is_where_the_distilled_accuracy_reaches_the_baseline(curve_frame: CurveFrame) -> None:
    frame = curve_frame({0.4: POINTS}, {0.4: 0.55}, shifts=(0.0, 0.1, -0.1))
    (found,) = crossovers(frame)
    assert found.rate == 0.4
    assert found.setting.ipc is None
    # A quarter of the way from 10 to 100 in log IPC; draws that shift both sides alike leave no spread.
    for value in (found.crossover.value, found.crossover.low, found.crossover.high):
        assert value == pytest.approx(10 * 10**0.25)
    assert (found.crossover.censored, found.crossover.n) == ("none", 3)
    assert found.crossover.is_measured
    assert found.crossover.reason == "With 3 noise draws a bootstrap interval covers 75 % at most, not 95 %."
    many = crossovers(curve_frame({0.4: POINTS}, {0.4: 0.55}, shifts=(0.0,) * 6))
    assert many[0].crossover.reason == ""


def test_crossovers_beyond_the_ipcs_are_censored(curve_frame: CurveFrame) -> None:
    curves = {0.2: POINTS, 0.4: POINTS}
    below, above = crossovers(curve_frame(curves, {0.2: 0.2, 0.4: 0.9}, shifts=(0.0, 0.01)))
    left, right = below.crossover, above.crossover
    assert (left.value, left.censored, left.low, left.high) == (1, "left", 0, 1)
    assert (right.value, right.censored, right.low, right.high) == (100, "right", 100, math.inf)
    assert left.is_known
    assert not left.is_measured


def test_the_interval_is_censored_where_its_resamples_are(curve_frame: CurveFrame) -> None:
    frame = curve_frame({0.4: POINTS}, {0.4: 0.5}, shifts=(0.0,) * 3, offsets=(-0.25, 0.0, 0.25))
    (found,) = crossovers(frame)
    assert found.crossover.value == pytest.approx(10)
    assert (found.crossover.low, found.crossover.high) == (0, math.inf)


def test_bootstrap_does_not_depend_on_other_settings(curve_frame: CurveFrame) -> None:
    offsets = tuple(np.random.default_rng(0).normal(0, 0.05, 6))
    both = curve_frame({0.2: POINTS, 0.4: POINTS}, {0.2: 0.5, 0.4: 0.5}, shifts=(0.0,) * 6, offsets=offsets)
    alone = both[both["noise_rate"] == 0.4]
    (single,) = crossovers(alone)
    assert crossovers(both)[1] == single
    assert single.crossover.low < single.crossover.value < single.crossover.high
    assert crossovers(alone, seed=1)[0].crossover != single.crossover


def test_the_interval_covers_the_truth(curve_frame: CurveFrame) -> None:
    rng = np.random.default_rng(3)
    inside = []
    for i in range(25):
        offsets = tuple(rng.normal(0, 0.03, 8))
        frame = curve_frame({0.4: POINTS}, {0.4: 0.5}, shifts=(0.0,) * 8, offsets=offsets)
        (found,) = crossovers(frame, num_resamples=400, seed=i)
        inside.append(found.crossover.low <= 10 <= found.crossover.high)
    assert np.mean(inside) >= 0.84


def test_one_replicate_has_a_value_without_an_interval(curve_frame: CurveFrame) -> None:
    (found,) = crossovers(curve_frame({0.4: POINTS}, {0.4: 0.5}))
    assert found.crossover.value == pytest.approx(10)
    assert math.isnan(found.crossover.low)
    assert found.crossover.reason == "One replicate only: no interval."


def test_one_draw_of_several_seeds_covers_that_draw_only(curve_frame: CurveFrame) -> None:
    first = curve_frame({0.4: POINTS}, {0.4: 0.55})
    second = curve_frame({0.4: {ipc: value + 0.05 for ipc, value in POINTS.items()}}, seed=1)
    (found,) = crossovers(pd.concat([first, second.assign(cell=second["cell"] + "s")], ignore_index=True))
    assert found.crossover.n == 2
    assert found.crossover.low < found.crossover.value < found.crossover.high
    assert found.crossover.reason == (
        "One noise draw only: the interval covers distillation on that draw. "
        "With 2 seeds a bootstrap interval covers 50 % at most, not 95 %."
    )


def test_draws_without_a_baseline_are_left_out(curve_frame: CurveFrame) -> None:
    frame = curve_frame({0.4: POINTS}, {0.4: 0.55}, shifts=(0.0, 0.0, 0.0), offsets=(0.0, 0.0, 0.3))
    kept = frame[~((frame["base_method"] == "full") & (frame["noise_seed"] == 2))]
    (found,) = crossovers(kept)
    assert found.crossover.value == pytest.approx(10 * 10**0.25)
    assert found.crossover.reason.endswith("1 noise draw(s) without a baseline left out.")
    (nothing,) = crossovers(kept[(kept["base_method"] == "full") | (kept["noise_seed"] == 2)])
    assert not nothing.crossover.is_known
    assert nothing.crossover.reason == "No noise draw has both a distilled set and a full-data baseline."


def test_a_failed_cell_shifts_no_other_draw(curve_frame: CurveFrame) -> None:
    frame = curve_frame({0.4: POINTS}, {0.4: 0.55}, shifts=(0.0, 0.2))
    failed = frame[~((frame["ipc"] == 10) & (frame["noise_seed"] == 1))]
    (found,) = crossovers(failed)
    assert found.crossover.value == pytest.approx(10 * 10**0.25)


def test_without_a_baseline_the_result_says_so(curve_frame: CurveFrame, sweep: pd.DataFrame) -> None:
    (found,) = crossovers(curve_frame({0.4: POINTS}))
    assert math.isnan(found.crossover.value)
    assert found.crossover.n == 0
    assert found.crossover.reason == "No full-data baseline has the same data, noise and evaluation network."
    assert crossovers(sweep.iloc[:0]).reason.startswith("The result table is empty")


def test_the_early_stopped_rival_is_harder(sweep: pd.DataFrame) -> None:
    def at(rival: str) -> str:
        found = crossovers(sweep, rival=rival)
        return next(
            it.crossover.censored for it in found if it.setting.method == "datm" and it.setting.noise_rate == 0.6
        )

    assert (at("none"), at("early_stopped")) == ("left", "right")
