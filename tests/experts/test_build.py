"""Which experts train together, and what of them is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.data import PrepareConfig, PreparedData, load, prepare
from ddnl_ray.experts import BufferId, ExpertRecipe, ExpertStore, build, build_experts, groups
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise

RECIPE = ExpertRecipe(network=NetworkSpec("convnet1", 4), batch_size=32, momentum=0.9)
BUFFER = BufferId("data", "labels", RECIPE, 0)


@pytest.fixture(scope="module")
def digits() -> tuple[PreparedData, NoisyLabels]:
    dataset = load("digits")
    labels = apply_noise(
        NoiseConfig(), dataset.train_labels, dataset="digits", num_classes=10, seed=0, clean=dataset.clean_labels
    )
    return prepare(dataset, PrepareConfig(subset=100)), labels


def test_experts_train_with_those_that_are_as_far() -> None:
    reach = dict(enumerate([-1, 4, 2, -1, -1, 2, 5, -1]))
    assert groups(reach, 4, 2) == [[0, 3], [4, 7], [2, 5]]
    assert groups(reach, 4, 8) == [[0, 3, 4, 7], [2, 5]]
    assert groups(reach, 5, 1) == [[0], [3], [4], [7], [1], [2], [5]]
    assert groups(reach, -1, 8) == groups({}, 4, 8) == []


def test_each_expert_is_trained_from_where_it_is(tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, whole = ExpertStore(tmp_path / "parts"), ExpertStore(tmp_path / "whole")
    build_experts(*digits, BUFFER, [1, 3], 2, store)
    build_experts(*digits, BUFFER, [2], 4, store)
    trained = []
    original = build.train_experts

    def note(*arguments: Any) -> Any:
        trained.append((len(arguments[4]), arguments[5][0].epoch if arguments[5] else None))
        return original(*arguments)

    monkeypatch.setattr(build, "train_experts", note)
    build_experts(*digits, BUFFER, [0, 1, 2, 3], 4, store)
    assert trained == [(1, None), (2, 2)]
    assert store.reach(BUFFER.key, 4) == [4, 4, 4, 4]
    for index in range(4):
        build_experts(*digits, BUFFER, [index], 4, whole)
        mine, alone = (each.load(BUFFER.key, index) for each in (store, whole))
        np.testing.assert_allclose(mine, alone, rtol=1e-4, atol=1e-5)
        end, expected = (each.end(BUFFER.key, index) for each in (store, whole))
        assert end is not None
        assert expected is not None
        torch.testing.assert_close(end.velocity, expected.velocity, rtol=1e-3, atol=1e-4)
    build_experts(*digits, BUFFER, [0, 1, 2, 3], 4, store)
    assert len(trained) == 2 + 4
