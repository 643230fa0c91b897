"""TESLA's settings: the commands that its repository prints, and MTT's where it prints none."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DIGITS_SOURCE, Recipe, nearest_setting
from ddnl_ray.recipes.matching import matching_recipe
from ddnl_ray.recipes.mtt import COLUMNS
from ddnl_ray.recipes.mtt import SOURCE as MTT_SOURCE
from ddnl_ray.recipes.mtt import TABLE as MTT_TABLE

SOURCE = (
    "TESLA (Cui et al. 2023), its repository's commands, lr_img halved: the printed one was chosen with an image "
    "gradient that is half of the formula's"
)

_PRINTED: dict[tuple[str, int], tuple[Any, ...]] = {
    ("cifar10", 1): (50, 2, 5, None, False, 1e3 / 2, 1e-7, 1e-2),
    ("cifar100", 50): (80, 2, 40, 125, True, 1e3 / 2, 1e-5, 1e-2),
}
_DIGITS: dict[tuple[str, int], tuple[Any, ...]] = {
    ("digits", 1): (10, 4, 8, None, False, 3e1, 1e-4, 5e-2),
    ("digits", 10): (10, 4, 8, 50, False, 1e2, 1e-4, 5e-2),
}
_TABLE = (
    {key: (row, f"TESLA prints no setting for it: {MTT_SOURCE}") for key, row in MTT_TABLE.items()}
    | {key: (row, SOURCE) for key, row in _PRINTED.items()}
    | {key: (row, DIGITS_SOURCE) for key, row in _DIGITS.items()}
)


def tesla(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return TESLA's setting for a data set and IPC; it has none that depends on the noise."""
    (row, source), which = nearest_setting(_TABLE, dataset, ipc, "cifar10")
    setting = dict(zip(COLUMNS, row, strict=True)) | {"iterations": 100 if dataset == "digits" else 10000}
    return matching_recipe(dataset, setting, f"{source}: {which}")
