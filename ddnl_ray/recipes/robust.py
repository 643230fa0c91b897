"""Settings of what is added to a method by data set: those of TAD, SGR and TIAT, and where the others' are.

RDC's are in :mod:`ddnl_ray.recipes.rdc`, those of cleaners in :mod:`ddnl_ray.recipes.denoise`.

The papers give few of them; the defaults of the configuration classes are the choices that their docstrings explain.
Here is what differs between data sets.
"""

from __future__ import annotations

from typing import Any

from ddnl_ray.denoise import CLEANERS
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.denoise import cleaner_recipe
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
    """Return the settings of a part or a cleaner that are a data set's own, with its prefix; RDC changes the base."""
    if part == "rdc":
        return rdc(base, dataset, noise)
    if part in CLEANERS:
        return {f"{part}.{name}": value for name, value in cleaner_recipe(part, dataset, noise).settings.items()}
    kind = "many" if dataset in _MANY_CLASSES else dataset
    return {f"{part}.{name}": value for name, value in _PARTS[part].get(kind, {}).items()}
