from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddnl_ray.errors import DataError, RequestError
from ddnl_ray.noise.asymmetric import CIFAR100_SUPERCLASSES, MAPS, asymmetric
from ddnl_ray.noise.pairflip import pairflip
from ddnl_ray.noise.symmetric import symmetric
from ddnl_ray.noise.transition import read_transition, sample, validate_transition

RATES = st.floats(0, 0.999)


@given(rate=RATES, num_classes=st.integers(2, 30))
@settings(deadline=None, max_examples=30)
def test_every_kind_gives_a_transition_matrix(rate: float, num_classes: int) -> None:
    matrices = [symmetric(rate, num_classes), pairflip(rate, num_classes)]
    matrices += [asymmetric(rate, dataset, name) for name, (dataset, _) in MAPS.items()]
    for matrix in matrices:
        assert matrix.dtype == np.float64
        validate_transition(matrix)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)


def test_symmetric_by_hand() -> None:
    expected = [[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4]]
    np.testing.assert_allclose(symmetric(0.6, 3), expected, rtol=1e-15)


def test_pairflip_by_hand() -> None:
    np.testing.assert_allclose(pairflip(0.4, 3), [[0.6, 0.4, 0], [0, 0.6, 0.4], [0.4, 0, 0.6]], rtol=1e-15)


@pytest.mark.parametrize(
    ("map_name", "expected", "share"),
    [
        (None, {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}, 0.5),
        ("ddlnl", {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}, 0.5),
        ("tad", {9: 1, 2: 0, 3: 5, 4: 7}, 0.4),
    ],
)
def test_cifar10_maps(map_name: str | None, expected: dict[int, int], share: float) -> None:
    matrix = asymmetric(0.3, "cifar10", map_name)
    golden = np.eye(10)
    for source, target in expected.items():
        golden[source, source] = 0.7
        golden[source, target] = 0.3
    np.testing.assert_allclose(matrix, golden, rtol=1e-15)
    assert 1 - matrix.trace() / 10 == pytest.approx(0.3 * share)


def test_superclasses_partition_the_hundred_classes_in_ascending_order() -> None:
    assert len(CIFAR100_SUPERCLASSES) == 20
    assert {len(group) for group in CIFAR100_SUPERCLASSES} == {5}
    assert sorted(fine for group in CIFAR100_SUPERCLASSES for fine in group) == list(range(100))
    assert all(list(group) == sorted(group) for group in CIFAR100_SUPERCLASSES)


def test_cifar100_map_goes_round_each_superclass() -> None:
    matrix = asymmetric(0.4, "cifar100")
    flipped = matrix.copy()
    np.fill_diagonal(flipped, 0)
    np.testing.assert_allclose(np.diag(matrix), 0.6)
    np.testing.assert_allclose(flipped.max(axis=1), 0.4)
    assert sorted(flipped.argmax(axis=1)) == list(range(100))
    steps = {4: 30, 95: 4, 36: 50, 50: 65, 80: 36, 88: 97, 97: 3, 69: 81, 56: 59, 99: 26}
    assert {source: int(flipped[source].argmax()) for source in steps} == steps


def test_mouse_is_corrupted_unless_the_defect_is_asked_for() -> None:
    mouse, hamster, rabbit = 50, 36, 65
    assert asymmetric(0.4, "cifar100")[mouse, rabbit] == 0.4
    assert asymmetric(0.4, "cifar100")[hamster, mouse] == 0.4
    compat = asymmetric(0.4, "cifar100", "ddlnl_compat")
    np.testing.assert_array_equal(compat[mouse], np.eye(100)[mouse])
    np.testing.assert_array_equal(compat[:, mouse], np.eye(100)[mouse])
    assert compat[hamster, rabbit] == 0.4
    assert 1 - compat.trace() / 100 == pytest.approx(0.99 * 0.4)
    others = [c for c in range(100) if c not in (mouse, hamster)]
    np.testing.assert_array_equal(compat[others], asymmetric(0.4, "cifar100")[others])


@pytest.mark.parametrize(
    ("dataset", "map_name", "message"),
    [
        (
            "digits",
            None,
            "only cifar10 and cifar100 have one, but the data set is 'digits'; use kind: pairflip",
        ),
        (
            "cifar100",
            "tad",
            "map 'tad' is for cifar10, but the data set is cifar100; its maps are superclass",
        ),
        ("cifar10", "superclass", "is for cifar100, but the data set is cifar10; its maps are ddlnl, tad"),
    ],
)
def test_maps_of_other_data_sets_are_refused(dataset: str, map_name: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        asymmetric(0.4, dataset, map_name)


@pytest.mark.parametrize(
    ("matrix", "num_classes", "message"),
    [
        ([[1.0, 0.0]], None, "must be square, but got shape (1, 2)"),
        ([[1.0, 0.0], [1.0]], None, "is a square table of numbers"),
        ([["a", "b"], ["c", "d"]], None, "is a square table of numbers"),
        ([], None, "must be square, but got shape (0,)"),
        ([[1.0, 0.0], [0.0, 1.0]], 3, "is for 2 classes, but the data set has 3"),
        ([[1.0, 0.0], [-0.5, 1.5]], None, "must be probabilities, but row 1 holds -0.5"),
        ([[1.0, 0.0], [math.nan, 1.0]], None, "must be probabilities, but row 1 holds nan"),
        ([[1.0, 0.0], [0.5, 0.50001]], None, "must sum to 1, but row 1 sums to 1.00001"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(matrix: object, num_classes: int, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        validate_transition(matrix, num_classes)  # type: ignore[arg-type]


def test_rows_that_sum_to_one_up_to_rounding_are_accepted() -> None:
    matrix = [[1 / 3, 1 / 3, 1 / 3 + 5e-7], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(validate_transition(matrix, 3), matrix)


def test_matrix_files(tmp_path: Path) -> None:
    matrix = symmetric(0.3, 4)
    (tmp_path / "t.json").write_text(json.dumps(matrix.tolist()))
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(repr, row)) for row in matrix.tolist()) + "\n\n")
    np.save(tmp_path / "t.npy", matrix)
    for name in ("t.json", "t.csv", "t.npy"):
        np.testing.assert_array_equal(read_transition(tmp_path / name), matrix)


def test_unreadable_matrix_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1")
    (tmp_path / "t.json").write_text("[[1, 0")
    (tmp_path / "t.csv").write_text("truck,automobile\n1,0\n")
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"is read from \.json, \.csv, \.npy, but got"):
        read_transition(tmp_path / "t.txt")
    with pytest.raises(DataError, match="does not exist"):
        read_transition(tmp_path / "missing.csv")
    for name in ("t.json", "t.csv", "t.npy"):
        with pytest.raises(DataError, match="is not readable as a transition matrix"):
            read_transition(tmp_path / name)


class _Fixed(np.random.Generator):
    """A generator whose uniform numbers are given."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(np.random.PCG64(0))
        self.values = values

    def random(self, size: int) -> NDArray[np.float64]:  # type: ignore[override]
        assert size == len(self.values)
        return np.array(self.values)


def test_sample_looks_the_uniform_up_in_the_cumulative_row() -> None:
    matrix = np.array([[0.25, 0.5, 0.25], [0, 1, 0], [0.5, 0, 0.5]])
    uniform = [0.0, 0.2499, 0.25, 0.7499, 0.75, 0.999, 0.0, 0.999, 0.4999, 0.5]
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    drawn = sample(labels, matrix, _Fixed(uniform))
    np.testing.assert_array_equal(drawn, [0, 0, 1, 1, 2, 2, 1, 1, 0, 2])
    assert drawn.dtype == np.int64


def test_rounding_goes_to_the_last_possible_class_and_never_to_an_impossible_one() -> None:
    short = np.array([[0.1] * 10 + [0.0]] * 11)
    below_one = float(np.nextafter(1, 0))
    assert short[0].cumsum()[-1] < 1
    np.testing.assert_array_equal(sample(np.array([0]), short, _Fixed([below_one])), [9])
    one_sided = np.array([[0.0, 1 - 9e-7], [0.5, 0.5]])
    np.testing.assert_array_equal(sample(np.array([0, 0]), one_sided, _Fixed([0.0, below_one])), [1, 1])


@given(rate=st.floats(0.01, 0.95), num_classes=st.integers(2, 12), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_symmetric_rate_is_the_share_of_wrong_labels(rate: float, num_classes: int, seed: int) -> None:
    count = 20_000
    labels = np.arange(count) % num_classes
    drawn = sample(labels, symmetric(rate, num_classes), np.random.default_rng(seed))
    assert drawn.min() >= 0
    assert drawn.max() < num_classes
    deviation = math.sqrt(rate * (1 - rate) / count)
    assert abs((drawn != labels).mean() - rate) < 6 * deviation


def test_symmetric_flips_reach_all_wrong_classes_equally_and_never_the_true_one() -> None:
    count, rate = 120_000, 0.9
    labels = np.arange(count) % 4
    drawn = sample(labels, symmetric(rate, 4), np.random.default_rng(0))
    offsets = np.bincount((drawn - labels) % 4, minlength=4) / count
    np.testing.assert_allclose(offsets, [0.1, 0.3, 0.3, 0.3], atol=5 * math.sqrt(0.25 / count))


def test_pairflip_only_goes_to_the_next_class() -> None:
    labels = np.arange(10_000) % 5
    drawn = sample(labels, pairflip(0.4, 5), np.random.default_rng(0))
    assert set(np.unique((drawn - labels) % 5)) == {0, 1}


def test_rate_zero_changes_nothing() -> None:
    labels = np.arange(1000) % 7
    np.testing.assert_array_equal(sample(labels, symmetric(0, 7), np.random.default_rng(0)), labels)


def test_draws_of_different_samples_are_independent_of_the_other_labels() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    changed = np.array([0, 1, 2, 2, 2, 2])
    first = sample(labels, symmetric(0.5, 3), np.random.default_rng(1))
    second = sample(changed, symmetric(0.5, 3), np.random.default_rng(1))
    np.testing.assert_array_equal(first[[0, 1, 2, 5]], second[[0, 1, 2, 5]])


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("symmetric", {0.2: 0.20076, 0.4: 0.40084, 0.6: 0.60024, 0.8: 0.79742}),
        ("asymmetric", {0.2: 0.09878, 0.4: 0.19746, 0.6: 0.30204, 0.8: 0.40202}),
    ],
)
def test_a_legacy_random_state_reproduces_the_ddlnl_benchmark(
    real_data: Path, kind: str, rates: dict[float, float]
) -> None:
    table = pq.read_table(real_data / "cifar10" / "cifar10n_labels.parquet", columns=["clean_label"])
    labels = table.column("clean_label").to_numpy().astype(np.int64)
    for rate, realised in rates.items():
        matrix = symmetric(rate, 10) if kind == "symmetric" else asymmetric(rate, "cifar10")
        drawn = sample(labels, matrix, np.random.RandomState(0))
        assert (drawn != labels).mean() == pytest.approx(realised, abs=1e-9)
