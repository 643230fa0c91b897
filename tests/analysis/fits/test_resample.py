from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.fits.resample import Size, counts, ends, generator, means, shortfall, size
from analysis.statistics import Replicate
from ddnl_ray.errors import RequestError

NESTED: list[Replicate] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]


def test_draws_are_taken_whole() -> None:
    taken = counts(NESTED, "draws", 200, generator(0))
    assert (taken[:, 0] == taken[:, 1]).all()
    assert (taken[:, 3] == taken[:, 4]).all()
    assert (taken[:, 0] + taken[:, 3] + taken[:, 5] == 3).all()
    assert len(np.unique(taken[:, 5])) == 4


def test_seeds_are_taken_within_their_draw() -> None:
    taken = counts(NESTED, "seeds", 200, generator(0))
    assert (taken[:, :3].sum(axis=1) == 3).all()
    assert (taken[:, 3:5].sum(axis=1) == 2).all()
    assert (taken[:, 5] == 1).all()


def test_seeds_of_a_single_draw_are_resampled() -> None:
    taken = counts([(4, 0), (4, 1)], "draws", 50, generator(0))
    assert set(map(tuple, taken.tolist())) == {(0, 2), (1, 1), (2, 0)}


def test_size_counts_what_is_resampled() -> None:
    assert size(NESTED) == Size(3, 2, False)
    assert size(NESTED, "seeds") == Size(6, 3, False)
    assert size([(0, 0), (0, 1)]) == Size(2, 1, True)
    assert size([(0, 0)]).freedom == size([]).freedom == 0


def test_an_unknown_unit_is_named() -> None:
    with pytest.raises(RequestError, match=r"unknown bootstrap unit 'draw'.*Known: draws, seeds"):
        counts(NESTED, "draw", 1, generator(0))


def test_means_leave_out_what_was_not_run() -> None:
    values = np.array([[1.0, math.nan], [3.0, 8.0]])
    found = means(values, np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert found[0].tolist() == [2.0, 8.0]
    assert found[1, 0] == 1.0
    assert math.isnan(found[1, 1])


def test_ends_are_order_statistics_with_infinities() -> None:
    samples = np.array([-math.inf] * 10 + list(np.arange(80.0)) + [math.inf] * 10)
    assert ends(samples, Size(10, 9, False), 0.95) == (-math.inf, math.inf)
    low, high = ends(samples, Size(10**6, 10**6 - 1, False), 0.5)
    assert (low, high) == (14.0, 65.0)


def test_three_values_lie_on_one_side_of_their_median_in_a_quarter_of_cases() -> None:
    assert shortfall(Size(3, 2, False), 0.95).endswith("covers 75 % at most, not 95 %.")
    assert shortfall(Size(6, 5, False), 0.95) == shortfall(Size(1, 0, True), 0.95) == ""
    assert shortfall(Size(6, 3, False), 0.95) == ""  # seeds within held draws


def test_without_degrees_of_freedom_there_are_no_ends() -> None:
    assert all(math.isnan(end) for end in ends(np.arange(5.0), Size(1, 0, True), 0.95))
    assert all(math.isnan(end) for end in ends(np.array([math.nan]), Size(3, 2, False), 0.95))


@pytest.mark.parametrize("num_draws", [6, 12])
def test_expanded_percentiles_cover_a_normal_mean_at_their_level(num_draws: int) -> None:
    rng = np.random.default_rng(5)
    replicates: list[Replicate] = [(i, 0) for i in range(num_draws)]
    taken = counts(replicates, "draws", 1000, rng)
    samples = rng.normal(0, 1, (600, num_draws, 1))
    bounds = [ends(means(sample, taken)[:, 0], size(replicates), 0.95) for sample in samples]
    assert np.mean([low <= 0 <= high for low, high in bounds]) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("seed", "name"), [(0, ""), (7, "a"), (2**31, "\x1f")])
def test_generators_are_addressed_by_seed_and_name(seed: int, name: str) -> None:
    assert generator(seed, name).random() == generator(seed, name).random()
    assert generator(seed, name).random() != generator(seed + 1, name).random()
    assert generator(seed, name).random() != generator(seed, name, "x").random()
