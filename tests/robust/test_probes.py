"""Probes, their losses, and anchors of every base method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddnl_ray.distill import METHODS
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, Trajectory, train_experts
from ddnl_ray.experts.policy import Plain
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.robust.probes import distil_anchors, early_config, probe_losses, sample_losses, train_probes
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)
NETWORK = NetworkSpec("convnet1", 4)
RECIPE = ExpertRecipe(network=NETWORK, epochs=4, batch_size=8, lr=0.1, augment=None)
COMMON = {"syn_steps": 2, "expert_epochs": 2, "max_start_epoch": 40, "lr_img": 10.0, "lr_lr": 1e-5}
PARAMS: dict[str, dict[str, Any]] = {
    "mtt": COMMON,
    "ftd": COMMON | {"ema_decay": 0.9999},
    "att": COMMON | {"ema_decay": 0.9999},
    "tesla": COMMON | {"teacher_label": True},
    "datm": COMMON | {"lr_y": 1.0, "min_start_epoch": 20, "current_max_start_epoch": 30, "threshold": 100.0},
}


def network() -> Flat:
    return Flat(build(NETWORK, (1, 4, 4), 3, SEED.torch()))


@pytest.fixture
def probes(images: Callable[..., tuple[Tensor, Tensor]]) -> list[Trajectory]:
    x, y = images()
    return train_probes(x, y, 3, RECIPE, [SEED.child(index) for index in range(2)], Plain(y))


def test_probes_are_experts(images: Callable[..., tuple[Tensor, Tensor]], probes: list[Trajectory]) -> None:
    x, y = images()
    for index, probe in enumerate(probes):
        (expected,) = train_experts(x, y, 3, RECIPE, [SEED.child(index)])
        assert torch.equal(probe.snapshots, expected.snapshots)


def test_losses_are_means_over_the_last_epochs_of_all_probes(
    images: Callable[..., tuple[Tensor, Tensor]], probes: list[Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = images()
    weights = [probe.snapshots[epoch] for probe in probes for epoch in (3, 4)]
    double = [network()(theta.double(), x.double()).log_softmax(1).numpy() for theta in weights]
    expected = -np.mean([logs[np.arange(30), y.numpy()] for logs in double], axis=0)
    found = probe_losses(probes, network(), x, y, 2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("ddnl_ray.robust.probes.part_size", lambda *_: 7)
    torch.testing.assert_close(sample_losses(network(), weights, x, y), found)


def test_every_method_that_matches_trajectories_can_make_anchors() -> None:
    assert set(PARAMS) == {name for name, kind in METHODS.items() if kind.method.matches_trajectories}


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize(("length", "expected"), [(2, (2, 3)), (3, (3, 2)), (4, (4, 1)), (6, (4, 1))])
def test_no_epoch_past_the_early_ones_is_matched(name: str, length: int, expected: tuple[int, int]) -> None:
    config = early_config(name, PARAMS[name] | {"expert_epochs": length}, 7, 4)
    assert (config.expert_epochs, config.max_start_epoch) == expected
    assert config.iterations == 7
    assert config.last_epoch == 4
    assert config.lr_img == 10.0


def test_anchors_are_the_last_images_with_hard_labels() -> None:
    assert early_config("ftd", PARAMS["ftd"], 7, 4).export == "last"
    assert early_config("tesla", PARAMS["tesla"], 7, 4).teacher_label is False


def test_a_window_that_is_early_already_stays() -> None:
    assert early_config("mtt", COMMON | {"max_start_epoch": 2}, 7, 4).max_start_epoch == 2


@pytest.mark.parametrize("name", ["random", "mttt"])
def test_a_base_method_without_trajectories_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=rf"unknown base method '{name}': .*mtt"):
        early_config(name, {}, 7, 4)


@pytest.mark.parametrize("name", PARAMS)
def test_anchors_start_as_images_of_their_class_and_move(
    name: str, images: Callable[..., tuple[Tensor, Tensor]], probes: list[Trajectory]
) -> None:
    x, y = images()

    def anchors(iterations: int) -> tuple[Tensor, Tensor]:
        config = early_config(name, PARAMS[name] | {"lr_img": 10.0 * (iterations > 1)}, iterations, 4)
        return distil_anchors(x, y, 3, network(), probes, name, config, 4, None, SEED)

    first, classes = anchors(1)
    assert classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for image, label in zip(first, classes, strict=True):
        assert int(y[(x == image).flatten(1).all(1).nonzero().item()]) == label
    moved, _ = anchors(3)
    assert (moved - first).flatten(1).norm(dim=1).min() > 1e-4
    assert torch.equal(anchors(3)[0], moved)


def test_the_smallest_class_limits_the_anchors(
    images: Callable[..., tuple[Tensor, Tensor]], probes: list[Trajectory]
) -> None:
    x, y = images()
    y = torch.where(torch.arange(30) == 2, 2, y % 2)
    config = early_config("mtt", COMMON, 1, 4)
    anchors, classes = distil_anchors(x, y, 3, network(), probes, "mtt", config, 50, None, SEED)
    assert anchors.shape == (3, 1, 4, 4)
    assert classes.tolist() == [0, 1, 2]
    with pytest.raises(RequestError, match=r"class 2 has no training image with that label.*lower the noise rate"):
        distil_anchors(x, y % 2, 3, network(), probes, "mtt", config, 50, None, SEED)
