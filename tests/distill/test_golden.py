"""Golden loss curves on real digits: a change that is not meant to change numbers must leave them as they are.

After a change that is meant to, write them anew with ``pytest tests/distill/test_golden.py --regenerate-golden`` and
say so in the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ddnl_ray.data import Dsa, PrepareConfig, load, prepare
from ddnl_ray.distill import METHODS, Problem
from ddnl_ray.experts import ArrayExperts, ExpertRecipe, train_expert
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

ITERATIONS = 20
SHARED = {
    "iterations": ITERATIONS,
    "syn_steps": 5,
    "max_start_epoch": 4,
    "batch_syn": 8,
    "lr_img": 30.0,
    "lr_lr": 1e-4,
    "lr_teacher": 0.05,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "mtt": SHARED,
    "ftd": SHARED | {"ema_decay": 0.9},
    "att": SHARED | {"ema_decay": 0.9},
    "tesla": SHARED | {"teacher_label": True},
    "datm": SHARED | {"lr_y": 5.0, "threshold": 3.0, "current_max_start_epoch": 2, "expansion_end_epoch": 10},
}
NETWORK = NetworkSpec("convnet2", 8)
GSAM = ("ftd", "datm")
STABLE = (2, 3)
"""Experts none of whose ReLUs meets its kink: on those, rounding of 1e-7 stays 1e-7 (elsewhere it can become 1e-2)."""


def digits(optimizer: str) -> Problem:
    """A tenth of the digits, two experts of six epochs, augmented."""
    data = prepare(load("digits"), PrepareConfig(subset=150, val_fraction=0.1))
    labels = data.observed_labels[data.train_index]
    recipe = ExpertRecipe(network=NETWORK, epochs=6, batch_size=32, lr=0.05, optimizer=optimizer)
    trained = [
        train_expert(data.train_images, labels, 10, recipe, SeedTree.root(0).child("expert", index)) for index in STABLE
    ]
    experts = ArrayExperts([each.snapshots.numpy() for each in trained], tuple(range(7)), 6)
    network = Flat(build(NETWORK, data.input_shape, 10, SeedTree.root(0).torch()))
    return Problem(data.train_images, labels, 10, 1, network, Dsa(), experts)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_loss_curve(name: str, golden: Callable[[str, Sequence[float]], None]) -> None:
    problem, kind, seed = digits("gsam" if name in GSAM else "sgd"), METHODS[name], SeedTree.root(0).child("distill")
    method = kind.method(kind.config(**CONFIGS[name]))
    state, losses = method.init(problem, seed), []
    for _ in range(ITERATIONS):
        state, info = method.step(state, problem, seed)
        assert info.accepted
        losses.append(info.loss)
    golden(name, losses)
