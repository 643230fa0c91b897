from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.fits.nested import LEVELS, bootstrap_mean, optimism, setting_components, variance_components
from analysis.statistics import Sample
from ddnl_ray.errors import RequestError

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]
TWO = ("draw", "evaluation")


def raws(paths: list[tuple[Any, ...]], values: list[float], levels: tuple[str, ...] = TWO) -> list[float]:
    return [component.raw for component in variance_components(paths, values, levels).components]


def test_balanced_one_way_by_hand() -> None:
    # Group means 2, 4 and 6 of two values each: within 2 (1 on either side of the mean), between (2 * 4 - 2) / 2.
    found = variance_components([("a",), ("a",), ("b",), ("b",), ("c",), ("c",)], [1, 3, 3, 5, 5, 7], TWO)
    between, within = found.components
    assert (between.raw, within.raw) == pytest.approx((3, 2))
    assert (between.share, within.share) == pytest.approx((0.6, 0.4))
    assert (between.freedom, within.freedom, between.num_groups, found.n) == (2, 3, 3, 6)
    assert (found.mean, found.reason) == (4, "")


def test_unbalanced_one_way_by_hand() -> None:
    # Groups {0, 2}, {5}: MSW = 2; SSB = 2 * (1 - 7/3)^2 + (5 - 7/3)^2 = 32/3; n0 = 3 - 5/3 = 4/3.
    assert raws([(0,), (0,), (1,)], [0, 2, 5]) == pytest.approx([(32 / 3 - 2) / (4 / 3), 2])


def test_a_negative_estimate_is_kept_and_cut() -> None:
    between, within = variance_components([(0,), (0,), (1,), (1,)], [0, 4, 1, 3], TWO).components
    assert between.raw == pytest.approx(-2.5)
    assert (between.variance, between.share, within.share) == (0, 0, 1)


def simulated(rng: np.random.Generator, sizes: list[list[list[int]]], deviations: tuple[float, ...]) -> list[float]:
    """Raw estimates of one simulated sample; ``sizes`` holds evaluations by draw, experts and distillation."""
    paths, values = [], []
    for i, draw in enumerate(sizes):
        at_draw = rng.normal(0, deviations[0])
        for j, buffer in enumerate(draw):
            at_buffer = at_draw + rng.normal(0, deviations[1])
            for k, evaluations in enumerate(buffer):
                at_set = at_buffer + rng.normal(0, deviations[2])
                for noise in rng.normal(0, deviations[3], evaluations):
                    paths.append((i, j, k))
                    values.append(at_set + noise)
    return raws(paths, values, LEVELS)


@pytest.mark.parametrize(
    "sizes",
    [[[[2] * 2] * 2] * 5, [[[1, 3], [2]], [[2, 2, 1]], [[4], [1], [2, 1]], [[1, 1]]]],
    ids=["balanced", "unbalanced"],
)
def test_moment_estimates_are_unbiased_on_simulated_nested_data(sizes: list[list[list[int]]]) -> None:
    rng = np.random.default_rng(1)
    deviations = (2.0, 1.5, 1.0, 0.5)
    found = np.array([simulated(rng, sizes, deviations) for _ in range(800)])
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - np.square(deviations)) < 4 * error).all()
    assert (error < 0.3).all()


def test_levels_that_cannot_be_told_apart_are_named() -> None:
    paths = [(draw, "key", 0) for draw in (0, 1, 2) for _ in (0, 1)]
    found = variance_components(paths, [1, 3, 3, 5, 5, 7])
    assert [component.raw for component in found.components] == pytest.approx([3, math.nan, math.nan, 2], nan_ok=True)
    assert found.reason == (
        "Every noise draw has one expert buffer and one distillation, so their variances are one number."
    )
    one_draw = variance_components([(0, "key", seed) for seed in (0, 0, 1, 1)], [1, 3, 5, 7])
    assert one_draw.reason == "There is one noise draw and one expert buffer only, so its variance is not in the data."
    single = variance_components([(0, 0, 0)], [0.5])
    assert all(math.isnan(component.raw) for component in single.components)
    assert single.reason.startswith("There is one noise draw, one expert buffer, one distillation and one evaluation")
    assert variance_components([], []).reason == "There is no value, so no variance."


def test_paths_must_fit_the_levels() -> None:
    with pytest.raises(RequestError, match=r"one path of 3 labels per value, but got 1 paths of \[1\] labels"):
        variance_components([(0,)], [0.5])


def test_components_of_a_frame(make_frame: MakeFrame, row: MakeRow) -> None:
    rng = np.random.default_rng(0)
    rows = [
        row(
            cell=f"c{draw}{seed}",
            base_method="datm",
            ipc=1,
            noise_seed=draw,
            expert_key=f"e{draw}",
            seed=seed,
            eval_seed=repeat,
            accuracy=0.5 + rng.normal(0, 0.02),
        )
        for draw, seed, repeat in itertools.product(range(3), range(2), range(2))
    ]
    (item,) = setting_components(make_frame(rows))
    assert [component.num_groups for component in item.components.components] == [3, 3, 6, 12]
    assert item.components.reason == "Every noise draw has one expert buffer, so their variances are one number."
    assert setting_components(make_frame(rows).iloc[:0]).reason == "The result table is empty, so it has no variance."


def test_bootstrap_mean_holds_or_resamples_the_draws() -> None:
    sample: Sample = {(0, 0): [0.4, 0.6], (0, 1): [0.52], (1, 0): [0.7], (1, 1): [0.72]}
    held = bootstrap_mean(sample, np.random.default_rng(0))
    drawn = bootstrap_mean(sample, np.random.default_rng(0), over="draws")
    assert (held.n, held.mean) == (4, pytest.approx(0.61))
    assert (held.low, held.high) == pytest.approx((0.60, 0.62))
    assert (drawn.n, drawn.low, drawn.high) == pytest.approx((2, 0.51, 0.71))
    assert not held.within
    assert bootstrap_mean({(0, 0): [0.4], (0, 1): [0.5]}, np.random.default_rng(0)).within


def test_bootstrap_mean_of_little() -> None:
    one_each = bootstrap_mean({(0, 0): [0.4], (1, 0): [0.6]}, np.random.default_rng(0))
    assert one_each.mean == 0.5
    assert not one_each.is_bounded
    assert bootstrap_mean({}, np.random.default_rng(0)).n == 0


def test_a_stratified_interval_covers_the_mean_of_its_draws() -> None:
    rng = np.random.default_rng(4)
    effects = [0.0, 3.0, -1.0]
    inside = []
    for _ in range(200):
        sample = {(i, j): [effect + rng.normal(0, 0.5)] for i, effect in enumerate(effects) for j in range(5)}
        found = bootstrap_mean(sample, rng, num_resamples=500)
        inside.append(found.low <= np.mean(effects) <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.04)


def test_optimism_is_the_gain_over_replicates(make_frame: MakeFrame, row: MakeRow) -> None:
    gains = (0.01, 0.02, 0.06)
    rows = [
        row(cell=f"c{i}", base_method="datm", ipc=1, noise_seed=i, accuracy=0.5, accuracy_best=0.5 + gain)
        for i, gain in enumerate(gains)
    ]
    (found,) = optimism(make_frame(rows, "test"))
    assert (found.gain.n, found.gain.mean, found.reason) == (3, pytest.approx(0.03), "")
    (honest,) = optimism(make_frame(rows))
    assert honest.reason.endswith("(held-out data with noisy labels): the gain of early stopping, not optimism.")
    (single,) = optimism(make_frame(rows[:1], "test"))
    assert single.reason == "One value only: no interval."
    frame = make_frame([{**rows[0], "accuracy_best": None}], "test")
    assert optimism(frame).reason == "No chosen epoch has a score on the test set."
    assert optimism(frame.iloc[:0]).reason == "The result table is empty, so nothing was chosen."
