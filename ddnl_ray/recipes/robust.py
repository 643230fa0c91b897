"""Settings of TAD, SGR and TIAT (RDC's: :mod:`ddnl_ray.recipes.rdc`), and of the extractor, by data set.

The papers give few of them; the defaults of the configuration classes are the choices that their docstrings explain.
Here is what differs between data sets.
"""

from __future__ import annotations

from typing import Any

from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.rdc import rdc

_MANY_CLASSES = ("cifar100", "tinyimagenet")

_PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "tad": {
        "many": {"anchors_per_class": 10, "top_k": 10},
        "digits": {
            "probes": 3,
            "probe_epochs": 10,
            "anchors_per_class": 10,
            "anchor_iterations": 30,
            "top_k": 20,
            "pca_dim": 32,
        },
    },
    "sgr": {
        "digits": {
            "forgetting_networks": 2,
            "forgetting_first_epochs": 20,
            "forgetting_second_epochs": 20,
            "forgetting_lr": 0.05,
            "forgetting_batch_size": 64,
        },
    },
    "tiat": {},
}


def part_settings(part: str, base: str, dataset: str, noise: NoiseConfig) -> dict[str, Any]:
    """Return the settings of a part that are a data set's own, with its prefix, and what it changes in the base's."""
    if part == "rdc":
        return rdc(base, dataset, noise)
    kind = "many" if dataset in _MANY_CLASSES else dataset
    return {f"{part}.{name}": value for name, value in _PARTS[part].get(kind, {}).items()}


def extractor_of(dataset: str) -> SimclrConfig:
    """Return how the extractor of a data set is trained: a ResNet-18 for 500 epochs, for digits a ConvNet for 30."""
    if dataset == "digits":
        return SimclrConfig(network=NetworkSpec("convnet2", 32), epochs=30, batch_size=256, flip=False)
    return SimclrConfig()
