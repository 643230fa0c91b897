"""A trial on a few digits that ends within a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.data import PrepareConfig, PreparedData, load, prepare
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.experts import ArrayExperts, ExpertRecipe, train_expert
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise
from ddnl_ray.seeds import SeedTree
from ddnl_ray.trial import Options, TrialConfig, TrialInputs, run_trial

NETWORK = NetworkSpec("convnet1", 4)
EXPERTS = ExpertRecipe(network=NETWORK, epochs=5, batch_size=32, lr=0.05, augment=None)
NOISE = NoiseConfig("symmetric", rate=0.2)
MATCHING = {"iterations": 6, "syn_steps": 2, "max_start_epoch": 3, "lr_img": 1.0, "lr_lr": 1e-4, "lr_teacher": 0.05}
PARAMS: dict[str, dict[str, Any]] = {
    "mtt": {**MATCHING, "batch_syn": 6},
    "datm": {**MATCHING, "lr_y": 1.0, "threshold": 10.0, "current_max_start_epoch": 1, "expansion_end_epoch": 4},
    "random": {},
    "full": {},
}


def noisy(data: PreparedData, noise: NoiseConfig = NOISE) -> NoisyLabels:
    return apply_noise(noise, data.observed_labels, dataset="digits", num_classes=10, seed=0, clean=data.clean_labels)


@pytest.fixture(scope="session")
def digits() -> PreparedData:
    """160 digits to fit on, 40 to choose on, 50 to test on."""
    return prepare(load("digits"), PrepareConfig(subset=200, test_subset=50, val_fraction=0.2))


@pytest.fixture(scope="session")
def inputs(digits: PreparedData) -> TrialInputs:
    """The digits with a fifth of the labels flipped, and two experts trained on them."""
    labels = noisy(digits)
    observed = labels.labels[digits.train_index]
    trained = [
        train_expert(digits.train_images, observed, 10, EXPERTS, SeedTree.root(0).child("expert", index))
        for index in range(2)
    ]
    experts = ArrayExperts([each.snapshots.numpy() for each in trained], tuple(range(6)), 5)
    return TrialInputs(digits, labels, experts, "0123456789abcdef")


@pytest.fixture
def config(digits: PreparedData) -> Callable[..., TrialConfig]:
    """Make the configuration of a method's trial; ``params`` are changes to the method's."""

    def make(method: str, params: dict[str, Any] | None = None, **changes: Any) -> TrialConfig:
        learns = method in ("mtt", "datm")
        return replace(
            TrialConfig(
                data=digits.fingerprint,
                dataset="digits",
                noise=NOISE,
                method=method,
                params={**PARAMS[method], **(params or {})},
                ipc=None if method == "full" else 1,
                network=NETWORK,
                augment="flip_crop",
                experts=EXPERTS if learns else None,
                num_experts=2 if learns else 0,
                evaluation=EvalRecipe(
                    epochs=4, batch_size=64, augment=None, checkpoints=2, lr=None if learns else 0.05
                ),
                eval_networks=(NETWORK,),
                repeats=2,
            ),
            **changes,
        )

    return make


@dataclass
class Runner:
    """Runs a trial in a folder of its own."""

    inputs: TrialInputs
    folder: Path

    def __call__(self, config: TrialConfig, name: str = "trial", **options: Any) -> list[dict[str, Any]]:
        given = options.pop("inputs", self.inputs)
        settings = Options(**{"run": "run", "cell": "cell", "trial": "trial-1", **options})
        return run_trial(config, given, self.folder / "trials" / name, settings)


@pytest.fixture
def run(inputs: TrialInputs, tmp_path: Path) -> Runner:
    """Run a trial in ``tmp_path/trials/NAME``."""
    return Runner(inputs, tmp_path)
