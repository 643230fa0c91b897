from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from analysis.theory import (
    C_EFF_ESTIMATORS,
    FORM_OF,
    asymmetric_bounds,
    average_entropy,
    average_rate,
    effective_modes,
    kappa,
    row_normalised,
)
from ddnl_ray.errors import RequestError
from ddnl_ray.noise.asymmetric import asymmetric
from ddnl_ray.noise.pairflip import pairflip
from ddnl_ray.noise.symmetric import symmetric

Matrix = NDArray[np.float64]
MEETING_A6 = ("entropy_complement", "spectral", "mutual_information")

# Empirical transition matrices of CIFAR-10N (Wei et al., ICLR 2022), to three decimals.
AGGRE = """
0.943 0.006 0.015 0.000 0.001 0.000 0.000 0.000 0.032 0.003
0.010 0.948 0.000 0.000 0.000 0.000 0.000 0.000 0.005 0.036
0.016 0.012 0.931 0.006 0.008 0.006 0.007 0.002 0.009 0.003
0.020 0.017 0.044 0.825 0.006 0.057 0.009 0.002 0.010 0.010
0.018 0.016 0.038 0.015 0.831 0.021 0.005 0.038 0.011 0.007
0.010 0.008 0.021 0.052 0.004 0.892 0.001 0.004 0.004 0.004
0.013 0.011 0.027 0.020 0.009 0.005 0.900 0.000 0.011 0.005
0.006 0.003 0.005 0.005 0.010 0.011 0.000 0.955 0.003 0.001
0.010 0.008 0.001 0.001 0.000 0.000 0.001 0.000 0.974 0.006
0.016 0.073 0.000 0.000 0.000 0.000 0.000 0.000 0.011 0.899
"""
WORSE = """
0.650 0.066 0.072 0.019 0.019 0.023 0.019 0.017 0.085 0.031
0.043 0.592 0.015 0.026 0.017 0.015 0.014 0.014 0.016 0.247
0.055 0.037 0.632 0.046 0.059 0.048 0.050 0.033 0.024 0.017
0.040 0.034 0.079 0.487 0.043 0.206 0.047 0.024 0.021 0.019
0.039 0.033 0.070 0.040 0.488 0.106 0.039 0.152 0.021 0.012
0.033 0.028 0.053 0.183 0.040 0.580 0.027 0.029 0.012 0.013
0.038 0.038 0.084 0.076 0.051 0.058 0.594 0.029 0.020 0.013
0.040 0.028 0.024 0.022 0.051 0.062 0.023 0.722 0.017 0.011
0.082 0.073 0.022 0.014 0.021 0.019 0.016 0.022 0.683 0.048
0.042 0.282 0.017 0.021 0.018 0.018 0.012 0.014 0.026 0.551
"""


def table(text: str) -> Matrix:
    return row_normalised([line.split() for line in text.strip().splitlines()])


def modes(transition: Matrix) -> dict[str, float]:
    return {name: effective_modes(transition, name) for name in C_EFF_ESTIMATORS}


@st.composite
def transitions(draw: st.DrawFn, max_classes: int = 8) -> Matrix:
    size = draw(st.integers(2, max_classes))
    weights = draw(hnp.arrays(np.float64, (size, size), elements=st.floats(0, 1).map(lambda x: round(x, 6))))
    return row_normalised(weights + 1e-6 * np.eye(size))


@st.composite
def doubly_stochastic(draw: st.DrawFn) -> Matrix:
    """A mixture of permutations, which every doubly stochastic matrix is (Birkhoff)."""
    size = draw(st.integers(2, 7))
    orders = draw(st.lists(st.permutations(range(size)), min_size=1, max_size=5))
    weights = np.array(draw(st.lists(st.floats(0.01, 1), min_size=len(orders), max_size=len(orders))))
    return np.tensordot(weights / weights.sum(), np.eye(size)[np.array(orders)], 1)


@pytest.mark.parametrize("size", [2, 10, 100])
def test_identity_and_uniform_matrices(size: int) -> None:
    identity, uniform = np.eye(size), np.full((size, size), 1 / size)
    all_of_them = {"entropy_complement": size, "spectral": size, "mutual_information": size}
    assert modes(identity) == pytest.approx({"entropy": 1, **all_of_them}, rel=1e-12)
    assert modes(uniform) == pytest.approx({"entropy": size, **dict.fromkeys(all_of_them, 1)}, rel=1e-12)
    assert (kappa(identity), average_rate(identity)) == (1, 0)
    assert kappa(uniform) == pytest.approx(size, rel=1e-12)
    assert average_rate(uniform) == pytest.approx(1 - 1 / size, rel=1e-12)


def test_a_matrix_by_hand() -> None:
    # row entropies log 2 and 0; observed P(Y~) = (1/4, 3/4)
    matrix = np.array([[0.5, 0.5], [0.0, 1.0]])
    observed = 2 * math.log(2) - 0.75 * math.log(3)
    assert average_entropy(matrix) == pytest.approx(math.log(2) / 2)
    assert average_rate(matrix) == pytest.approx(0.25)
    golden = (1 + math.sqrt(5)) / 2  # singular values golden / sqrt 2 and 1 / (golden sqrt 2)
    shares = np.array([golden, 1 / golden]) / (golden + 1 / golden)
    assert modes(matrix) == pytest.approx(
        {
            "entropy": math.sqrt(2),
            "entropy_complement": math.sqrt(2),
            "spectral": math.exp(-(shares @ np.log(shares))),
            "mutual_information": math.exp(observed - math.log(2) / 2),
        },
        rel=1e-12,
    )


def test_counts_are_normalised_by_row() -> None:
    counts = [[6, 2], [1, 1]]
    np.testing.assert_allclose(row_normalised(counts), [[0.75, 0.25], [0.5, 0.5]], rtol=1e-15)
    assert kappa(counts) == pytest.approx(kappa(row_normalised(counts)), rel=1e-15)


@pytest.mark.parametrize(
    ("matrix", "entropy", "perplexity", "spectral", "information"),
    [
        (symmetric(0.2, 10), 0.940, 2.560, 9.968, 3.907),
        (symmetric(0.4, 10), 1.552, 4.720, 9.792, 2.118),
        (symmetric(0.6, 10), 1.991, 7.325, 9.118, 1.365),
        (symmetric(0.8, 10), 2.258, 9.566, 6.000, 1.045),
        (symmetric(0.2, 100), 1.419, 4.135, 99.97, 24.19),
        (symmetric(0.8, 100), 4.177, 65.137, 95.96, 1.535),
        (asymmetric(0.2, "cifar10"), 0.250, 1.284, 9.847, 7.693),
        (asymmetric(0.4, "cifar10"), 0.337, 1.400, 9.188, 6.799),
        (pairflip(0.2, 100), 0.500, 1.649, None, 60.63),
        (pairflip(0.4, 100), 0.673, 1.960, None, 51.02),
    ],
)
def test_synthetic_noise_has_its_reference_values(
    matrix: Matrix, entropy: float, perplexity: float, spectral: float | None, information: float
) -> None:
    digits = {"rel": 1e-3, "abs": 6e-4}
    assert average_entropy(matrix) == pytest.approx(entropy, **digits)
    assert kappa(matrix) == pytest.approx(perplexity, **digits)
    assert effective_modes(matrix, "mutual_information") == pytest.approx(information, **digits)
    if spectral is not None:
        assert effective_modes(matrix, "spectral") == pytest.approx(spectral, **digits)


@pytest.mark.parametrize(
    ("text", "rate", "perplexity", "spectral", "information"),
    [(AGGRE, 0.09010, 1.549, 9.973, 6.438), (WORSE, 0.40208, 4.090, 9.430, 2.427)],
)
def test_rounded_cifar10n_matrices_have_their_reference_values(
    text: str, rate: float, perplexity: float, spectral: float, information: float
) -> None:
    matrix = table(text)
    assert average_rate(matrix) == pytest.approx(rate, abs=5e-4)
    assert kappa(matrix) == pytest.approx(perplexity, rel=5e-3)
    assert effective_modes(matrix, "spectral") == pytest.approx(spectral, rel=1e-3)
    assert effective_modes(matrix, "mutual_information") == pytest.approx(information, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "rate", "entropy", "perplexity", "spectral", "information"),
    [
        ("aggre_label", 0.09010, 0.4375, 1.549, 9.973, 6.438),
        ("random_label1", 0.17234, 0.7648, 2.149, 9.933, 4.644),
        ("random_label2", 0.18122, 0.8011, 2.228, 9.930, 4.480),
        ("random_label3", 0.17640, 0.7828, 2.188, 9.932, 4.561),
        ("worse_label", 0.40208, 1.4086, 4.090, 9.430, 2.427),
    ],
)
def test_cifar10n_label_sets_have_their_reference_values(
    real_data: Path,
    name: str,
    rate: float,
    entropy: float,
    perplexity: float,
    spectral: float,
    information: float,
) -> None:
    file = real_data / "cifar10" / "cifar10n_labels.parquet"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    labels = pq.read_table(file, columns=["clean_label", name])
    counts = np.zeros((10, 10))
    np.add.at(counts, (labels["clean_label"].to_numpy(), labels[name].to_numpy()), 1)
    matrix = row_normalised(counts)
    assert average_rate(matrix) == pytest.approx(rate, abs=1e-12)
    assert average_entropy(counts) == pytest.approx(entropy, abs=6e-5)
    assert kappa(counts) == pytest.approx(perplexity, abs=6e-4)
    assert effective_modes(matrix, "spectral") == pytest.approx(spectral, abs=6e-4)
    assert effective_modes(matrix, "mutual_information") == pytest.approx(information, abs=6e-4)


@given(matrix=doubly_stochastic())
@settings(deadline=None)
def test_a_doubly_stochastic_complement_is_the_mutual_information(matrix: Matrix) -> None:
    found = modes(matrix)
    assert found["entropy_complement"] == pytest.approx(found["mutual_information"], rel=1e-9)


@given(matrix=transitions())
@settings(deadline=None)
def test_modes_lie_between_one_and_the_number_of_classes(matrix: Matrix) -> None:
    size = len(matrix)
    for name, value in modes(matrix).items():
        assert 1 <= value <= size * (1 + 1e-9), name
        asymmetric_bounds(n=100, tau=0.1, r=1, c_eff=value, i_min=1, i_clean=1)
    assert 1 <= kappa(matrix) <= size * (1 + 1e-9)
    assert 0 <= average_rate(matrix) <= 1


def test_rounding_takes_no_estimator_below_one() -> None:
    for size in range(2, 101):
        assert min(modes(np.full((size, size), 1 / size)).values()) >= 1, size


@given(matrix=transitions())
@settings(deadline=None)
def test_the_entropy_forms_are_reciprocal(matrix: Matrix) -> None:
    found = modes(matrix)
    assert found["entropy"] * found["entropy_complement"] == pytest.approx(len(matrix), rel=1e-9)
    assert found["entropy"] == pytest.approx(kappa(matrix), rel=1e-12)


@given(size=st.integers(2, 20), one=st.floats(0, 1), other=st.floats(0, 1))
@settings(deadline=None)
def test_three_estimators_fall_as_confusion_grows_and_the_published_entropy_grows(
    size: int, one: float, other: float
) -> None:
    low, high = (share * (1 - 1 / size) for share in sorted((one, other)))
    before, after = modes(symmetric(low, size)), modes(symmetric(high, size))
    for name in MEETING_A6:
        assert after[name] <= before[name] * (1 + 1e-9), name
    assert after["entropy"] >= before["entropy"] * (1 - 1e-9)


@given(matrix=transitions(max_classes=6), data=st.data())
@settings(deadline=None)
def test_the_names_of_classes_do_not_matter(matrix: Matrix, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(matrix))))
    renamed = matrix[np.ix_(order, order)]
    assert modes(renamed) == pytest.approx(modes(matrix), rel=1e-9)
    assert average_rate(renamed) == pytest.approx(average_rate(matrix), abs=1e-12)


def test_estimators_order_two_matrices_differently() -> None:
    worse, flips = modes(table(WORSE)), modes(asymmetric(0.4, "cifar10"))
    assert worse["mutual_information"] < flips["mutual_information"]
    assert worse["spectral"] > flips["spectral"]


def test_a_prior_weighs_the_classes_of_the_mutual_information() -> None:
    matrix = np.array([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.3, 0.3, 0.4]])
    prior = np.array([0.5, 0.2, 0.3])
    joint = prior[:, None] * matrix
    product = prior[:, None] * joint.sum(axis=0)
    seen = joint > 0
    information = (joint[seen] * np.log(joint[seen] / product[seen])).sum()
    assert effective_modes(matrix, "mutual_information", prior) == pytest.approx(math.exp(information), rel=1e-12)
    uniform = effective_modes(matrix, "mutual_information", np.full(3, 1 / 3))
    assert uniform == pytest.approx(effective_modes(matrix, "mutual_information"), rel=1e-12)
    assert effective_modes(np.eye(3), "mutual_information", [0.5, 0.5, 0]) == pytest.approx(2, rel=1e-12)
    assert effective_modes(matrix, "mutual_information", [0, 1, 0]) == pytest.approx(1, rel=1e-12)
    nearly = effective_modes(matrix, "mutual_information", prior * (1 + 5e-7))
    assert nearly == pytest.approx(math.exp(information), rel=1e-12)


def test_estimators_say_which_form_they_are() -> None:
    assert set(FORM_OF) == set(C_EFF_ESTIMATORS)
    assert [name for name, form in FORM_OF.items() if form == "derived"] == ["entropy_complement"]


def test_arguments_are_left_as_they_are() -> None:
    matrix = symmetric(0.4, 4)
    copy = matrix.copy()
    average_rate(matrix)
    modes(matrix)
    np.testing.assert_array_equal(matrix, copy)


@pytest.mark.parametrize("function", [kappa, average_entropy, row_normalised])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 2, 3], [4, 5, 6]], r"a confusion matrix must be square but got shape \(2, 3\)"),
        ([1, 2], r"must be square but got shape \(2,\)"),
        (np.zeros((0, 0)), r"must be square but got shape \(0, 0\)"),
        ([[1, 0], [0, -1]], "must be finite and not negative, but row 1 holds -1.0"),
        ([[np.nan, 0], [0, 1]], "must be finite and not negative, but row 0 holds nan"),
        ([[1, 0], [0, np.inf]], "must be finite and not negative, but row 1 holds inf"),
        ([[1, 1, 0], [0, 0, 0], [1, 0, 1]], "every row of a confusion matrix needs a count, but row 1 has none"),
    ],
)
def test_a_confusion_matrix_that_is_none_names_its_row(
    function: Callable[[Any], Any], matrix: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(matrix)


@pytest.mark.parametrize("function", [average_rate, *C_EFF_ESTIMATORS.values()])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 0, 0], [0, 1, 0]], r"a transition matrix must be square but got shape \(2, 3\)"),
        ([[1, 0], [1.1, -0.1]], "must be finite and not negative, but row 1 holds -0.1"),
        ([[1, 0], [0.5, 0.500002]], "must sum to 1, but row 1 sums to 1.000002"),
        ([[0, 0], [0, 1]], "must sum to 1, but row 0 sums to 0"),
        ([[4500, 500], [500, 4500]], r"row 0 sums to 5000; of counts, pass row_normalised\(counts\)"),
    ],
)
def test_a_transition_matrix_that_is_none_names_its_row(
    function: Callable[[Any], float], matrix: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(matrix)


def test_rows_within_a_millionth_of_one_are_a_transition_matrix() -> None:
    nearly = np.eye(3) * (1 + 5e-7)
    assert modes(nearly) == pytest.approx(modes(np.eye(3)), rel=1e-12)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], r"one entry for each of 3 classes but got \(2,\)"),
        ([0.5, 0.6, -0.1], r"not negative and sum to 1 but got \[0.5, 0.6, -0.1\]"),
        ([0.5, 0.3, 0.3], r"not negative and sum to 1 but got \[0.5, 0.3, 0.3\]"),
        ([np.nan, 0.5, 0.5], "not negative and sum to 1"),
    ],
)
def test_a_prior_that_is_no_distribution_is_refused(prior: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        effective_modes(np.eye(3), "mutual_information", prior)


def test_an_estimator_without_a_prior_refuses_one() -> None:
    with pytest.raises(ValueError, match=r"only the estimator 'mutual_information' has a prior, .* 'spectral'"):
        effective_modes(np.eye(2), "spectral", [0.5, 0.5])


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(RequestError, match="unknown C_eff estimator 'spectrum': did you mean 'spectral'"):
        effective_modes(np.eye(2), "spectrum")
