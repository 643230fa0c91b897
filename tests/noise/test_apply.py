from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ddnl_ray.errors import DataError, RequestError
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise, nominal_transition
from ddnl_ray.noise.symmetric import symmetric

# Row-normalised counts of CIFAR-10N (Wei et al. 2022), rounded to three digits.
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
DIAGONALS = {
    "aggre": [0.943, 0.948, 0.931, 0.825, 0.831, 0.892, 0.900, 0.955, 0.974, 0.899],
    "random1": [0.848, 0.847, 0.840, 0.743, 0.760, 0.823, 0.827, 0.895, 0.879, 0.814],
    "random2": [0.842, 0.831, 0.835, 0.738, 0.752, 0.806, 0.826, 0.882, 0.873, 0.802],
    "random3": [0.848, 0.843, 0.843, 0.744, 0.742, 0.820, 0.825, 0.892, 0.873, 0.806],
}
GOLDEN = [0, 1, 2, 3, 4, 5, 3, 7, 8, 9, 0, 1, 9, 8, 4, 5, 0, 1, 8, 3]
WRONG = {"aggre": 4505, "random1": 8617, "random2": 9061, "random3": 8820, "worse": 20104}


def _clean(count: int = 2000, num_classes: int = 10) -> torch.Tensor:
    return torch.arange(count) % num_classes


def _apply(config: NoiseConfig, seed: int = 0, dataset: str = "cifar10") -> NoisyLabels:
    return apply_noise(config, _clean(), dataset=dataset, num_classes=10, seed=seed, clean=_clean())


@pytest.mark.parametrize(
    "config",
    [
        NoiseConfig("symmetric", 0.4),
        NoiseConfig("asymmetric", 0.4),
        NoiseConfig("pairflip", 0.4),
        NoiseConfig("transition", matrix=tuple(map(tuple, symmetric(0.4, 10).tolist()))),
    ],
)
def test_same_seed_same_labels_and_other_seed_other_labels(config: NoiseConfig) -> None:
    first, again, other = _apply(config), _apply(config), _apply(config, seed=1)
    assert torch.equal(first.labels, again.labels)
    assert first.sha256 == again.sha256
    assert not torch.equal(first.labels, other.labels)
    assert first.sha256 != other.sha256
    assert first.labels.dtype == torch.int64
    expected = 0.2 if config.kind == "asymmetric" else 0.4
    assert first.rate_realised == pytest.approx(expected, abs=5 * math.sqrt(0.24 / 2000))


def test_golden_draw() -> None:
    """The labels of a seed are part of every cached expert: they never change between versions."""
    assert _apply(NoiseConfig("symmetric", 0.4)).labels[:20].tolist() == GOLDEN


def test_the_draw_does_not_touch_the_global_generators() -> None:
    before, state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    _apply(NoiseConfig("symmetric", 0.4))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_different_rates_have_independent_draws() -> None:
    low, high = _apply(NoiseConfig("pairflip", 0.4)), _apply(NoiseConfig("pairflip", 0.41))
    both = ((low.labels != _clean()) & (high.labels != _clean())).double().mean()
    assert both == pytest.approx(0.4 * 0.41, abs=5 * math.sqrt(0.14 / 2000))


def test_naming_the_default_map_changes_nothing() -> None:
    named, unnamed = (_apply(NoiseConfig("asymmetric", 0.4, map=name)) for name in ("ddlnl", None))
    assert torch.equal(named.labels, unnamed.labels)


def test_provenance() -> None:
    noisy = _apply(NoiseConfig("symmetric", 0.4), seed=7)
    assert noisy.seed == 7
    assert noisy.config == NoiseConfig("symmetric", 0.4)
    assert noisy.sha256 == hashlib.sha256(np.array(noisy.labels.tolist(), dtype="<i8").tobytes()).hexdigest()
    np.testing.assert_allclose(noisy.transition, symmetric(0.4, 10))
    realised = noisy.transition_realised
    np.testing.assert_allclose(realised.sum(axis=1), 1)
    assert realised[3, 3] == ((noisy.labels == 3) & (_clean() == 3)).sum() / 200
    assert 1 - realised.trace() / 10 == pytest.approx(noisy.rate_realised)


def test_realised_row_of_an_absent_class_is_nan() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    noisy = NoisyLabels(labels, torch.tensor([0, 0, 0, 2]), NoiseConfig(), 0, 3)
    expected = [[2 / 3, 1 / 3, 0], [np.nan] * 3, [0, 0, 1]]
    np.testing.assert_allclose(noisy.transition_realised, expected)
    assert noisy.rate_realised == 0.25


def test_select_restricts_every_row() -> None:
    noisy = _apply(NoiseConfig("symmetric", 0.4))
    index = torch.tensor([5, 3, 11])
    part = noisy.select(index)
    assert torch.equal(part.labels, noisy.labels[index])
    assert part.clean is not None
    assert torch.equal(part.clean, _clean()[index])
    assert part.transition is noisy.transition
    assert torch.equal(noisy.select(noisy.labels == 4).labels.unique(), torch.tensor([4]))


def test_unknown_truth_stays_unknown() -> None:
    labels = _clean()
    noisy = apply_noise(NoiseConfig(), labels, dataset="folder:x", num_classes=10, seed=0, clean=None)
    assert torch.equal(noisy.labels, labels)
    assert noisy.labels.data_ptr() != labels.data_ptr()
    assert noisy.clean is noisy.rate_realised is noisy.transition_realised is noisy.transition is None
    assert noisy.select(torch.tensor([1, 2])).clean is None
    with pytest.raises(RequestError, match=r"symmetric noise is added to true labels, .* use kind: none"):
        apply_noise(NoiseConfig("symmetric", 0.2), labels, dataset="folder:x", num_classes=10, seed=0, clean=None)


def test_labels_as_given_keep_a_known_truth() -> None:
    noisy = apply_noise(NoiseConfig(), (_clean() + 1) % 10, dataset="digits", num_classes=10, seed=0, clean=_clean())
    assert noisy.rate_realised == 1.0


def test_a_matrix_file_gives_the_draw_of_its_content(tmp_path: Path) -> None:
    matrix = symmetric(0.3, 10).tolist()
    (tmp_path / "a.json").write_text(json.dumps(matrix))
    np.save(tmp_path / "b.npy", matrix)
    inline = _apply(NoiseConfig("transition", matrix=tuple(map(tuple, matrix))))
    for name in ("a.json", "b.npy"):
        from_file = _apply(NoiseConfig("transition", file=str(tmp_path / name)))
        assert torch.equal(from_file.labels, inline.labels)
        np.testing.assert_array_equal(from_file.transition, matrix)


def test_nominal_transition_refuses_what_does_not_fit_before_any_label_is_read(tmp_path: Path) -> None:
    two = NoiseConfig("transition", matrix=((0.9, 0.1), (0.1, 0.9)))
    with pytest.raises(RequestError, match="is for 2 classes, but the data set has 10"):
        nominal_transition(two, dataset="digits", num_classes=10)
    with pytest.raises(RequestError, match=re.escape("use kind: pairflip")):
        nominal_transition(NoiseConfig("asymmetric", 0.2), dataset="tinyimagenet", num_classes=200)
    with pytest.raises(RequestError, match="at least 2 classes, but the data set has 1"):
        nominal_transition(NoiseConfig("symmetric", 0.2), dataset="folder:x", num_classes=1)
    missing = NoiseConfig("transition", file=str(tmp_path / "t.csv"))
    with pytest.raises(DataError, match="does not exist"):
        nominal_transition(missing, dataset="digits", num_classes=10)
    assert nominal_transition(NoiseConfig(), dataset="digits", num_classes=10) is None


@pytest.mark.parametrize("label_set", list(WRONG))
def test_human_labels_of_cifar10(real_data: Path, label_set: str) -> None:
    table = pq.read_table(real_data / "cifar10" / "cifar10n_labels.parquet", columns=["clean_label"])
    clean = torch.tensor(table.column("clean_label").to_numpy(), dtype=torch.int64)
    noisy = apply_noise(
        NoiseConfig("natural", labels=label_set),
        clean,
        dataset="cifar10",
        num_classes=10,
        seed=0,
        root=real_data,
        clean=clean,
    )
    assert noisy.rate_realised == pytest.approx(WRONG[label_set] / 50_000, abs=1e-12)
    realised = noisy.transition_realised
    assert realised is not None
    if label_set == "worse":
        published = np.array([row.split() for row in WORSE.strip().splitlines()], dtype=float)
        np.testing.assert_allclose(realised, published, rtol=0, atol=5.01e-4)
    else:
        np.testing.assert_allclose(np.diag(realised), DIAGONALS[label_set], rtol=0, atol=5.01e-4)
