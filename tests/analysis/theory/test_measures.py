from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike
from sklearn.metrics import mutual_info_score

from analysis.theory.measures import entropy, fano, infonce_terms, mutual_information

TABLES = arrays(np.int64, (3, 4), elements=st.integers(0, 20)).filter(lambda table: table.sum() > 0)
SQUARES = arrays(np.int64, (4, 4), elements=st.integers(0, 20)).filter(lambda table: table.sum() > 0)


def test_entropy_takes_zero_log_zero_as_zero() -> None:
    assert entropy([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]) == pytest.approx([math.log(2), 0.0])


@given(TABLES)
def test_plug_in_information_agrees_with_a_second_implementation(table: np.ndarray) -> None:
    oracle = mutual_info_score(None, None, contingency=table)
    assert mutual_information(table, is_corrected=False) == pytest.approx(oracle, abs=1e-12)


def test_information_of_tables_of_known_answer() -> None:
    assert mutual_information(10 * np.eye(5), is_corrected=False) == pytest.approx(math.log(5))
    assert mutual_information(np.full((5, 5), 7), is_corrected=False) == pytest.approx(0.0, abs=1e-12)
    # full 2 x 2 table of 8: 2 + 2 - 4 - 1 cells over 16
    assert mutual_information([[3, 1], [1, 3]]) - mutual_information([[3, 1], [1, 3]], is_corrected=False) == (
        pytest.approx(-1 / 16)
    )
    # identity of 3: 3 + 3 - 3 - 1 cells over 6
    assert mutual_information(np.eye(3)) == pytest.approx(math.log(3) + 2 / 6)


def test_tables_are_taken_over_leading_axes() -> None:
    tables = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4))
    together = mutual_information(tables)
    assert together.shape == (2, 3)
    assert together[1, 2] == mutual_information(tables[1, 2])


def test_the_correction_removes_the_bias_of_independence() -> None:
    tables = np.random.default_rng(3).multinomial(400, np.full(25, 1 / 25), 500).reshape(-1, 5, 5)
    # the bias of the plug-in is (C - 1)^2 / 2N = 0.02
    assert mutual_information(tables, is_corrected=False).mean() == pytest.approx(0.02, abs=0.002)
    assert mutual_information(tables).mean() == pytest.approx(0.0, abs=0.001)


@pytest.mark.parametrize("counts", [[[0.5, 1.0], [1.0, 1.0]], [[-1, 2], [1, 1]], [[math.nan, 1], [1, 1]], [1, 2]])
def test_information_of_what_is_no_table_of_counts_is_refused(counts: ArrayLike) -> None:
    with pytest.raises(ValueError, match="pass counts, not rates"):
        mutual_information(counts)


def test_information_of_an_empty_table_is_refused() -> None:
    with pytest.raises(ValueError, match="one is empty"):
        mutual_information([[[1, 0], [0, 1]], [[0, 0], [0, 0]]])


@given(SQUARES)
def test_fano_bounds_the_information_from_below(table: np.ndarray) -> None:
    shares = table / table.sum()
    bound = fano(float(np.clip(1 - np.trace(shares), 0, 1)), 4, float(entropy(shares.sum(axis=1))))
    assert bound <= mutual_information(table, is_corrected=False) + 1e-12


def test_fano_is_tight_for_the_symmetric_channel() -> None:
    counts = np.full((5, 5), 10) + 60 * np.eye(5)
    assert fano(40 / 110, 5) == pytest.approx(float(mutual_information(counts, is_corrected=False)))
    assert fano(0.0, 5) == pytest.approx(math.log(5))
    assert fano(0.8, 5) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("error", "classes"), [(40.0, 10), (-0.1, 10), (math.nan, 10), (0.5, 1)])
def test_fano_out_of_range_is_refused(error: float, classes: int) -> None:
    with pytest.raises(ValueError, match="Fano's bound is of"):
        fano(error, classes)


@given(arrays(np.float64, (4, 4), elements=st.floats(-50, 50)))
def test_no_infonce_term_exceeds_log_batch(scores: np.ndarray) -> None:
    assert infonce_terms(scores).max() <= math.log(4) + 1e-12


def test_infonce_of_hand_made_scores() -> None:
    # an indifferent critic gives 0, one that sees only its own pair log B
    assert infonce_terms(np.full((3, 3), 2.0)) == pytest.approx(np.zeros(3))
    with np.errstate(divide="ignore"):
        assert infonce_terms(np.log(np.eye(3))) == pytest.approx(np.full(3, math.log(3)))
    # e / ((e + 1) / 2)
    assert infonce_terms(np.eye(2)) == pytest.approx(np.full(2, math.log(2 * math.e / (math.e + 1))))


def test_infonce_does_not_see_a_function_of_x_alone() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 5, 5))
    assert infonce_terms(scores + np.arange(5.0)[:, None]) == pytest.approx(infonce_terms(scores))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 3)), "square score matrices"),
        (np.zeros((1, 1)), "at least 2 pairs"),
        ([[-np.inf, 0.0], [0.0, 0.0]], "finite on the diagonal"),
        ([[0.0, np.nan], [0.0, 0.0]], "drop that pair"),
    ],
)
def test_infonce_of_what_are_no_scores_is_refused(scores: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infonce_terms(scores)
