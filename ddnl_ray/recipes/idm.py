"""IDM's settings: its authors' command file."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import Recipe, dc_recipe, is_digits, nearest_setting

SOURCE = "IDM (Zhao et al. 2023), authors' command file; meters start again where their evaluation resets them"

COLUMNS = ("ce_weight", "model_train_steps", "net_generate_interval", "batch_real", "meter_reset_interval")
_TABLE: dict[tuple[str, int], tuple[Any, ...]] = {
    ("cifar10", 1): (0.5, 10, 5, 5000, 100),
    ("cifar10", 10): (0.5, 10, 30, 256, 100),
    ("cifar10", 50): (0.1, 10, 30, 256, 500),
    ("cifar100", 1): (0.5, 10, 5, 5000, 100),
    ("cifar100", 10): (0.1, 50, 30, 256, 100),
    ("cifar100", 50): (0.1, 10, 30, 256, 500),
    ("tinyimagenet", 1): (0.5, 10, 30, 256, 100),
    ("tinyimagenet", 10): (0.5, 10, 30, 256, 500),
    ("tinyimagenet", 50): (0.8, 50, 30, 256, 1000),
}
_DIGITS = {
    "iterations": 200,
    "lr_img": 0.5,
    "ce_weight": 0.1,
    "model_train_steps": 5,
    "net_generate_interval": 10,
    "net_num": 20,
    "batch_real": 64,
    "batch_train": 64,
    "lr_net": 0.05,
}


def idm(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return IDM's setting for a data set and IPC; it has none that depends on the noise."""
    if is_digits(dataset):
        return dc_recipe(dataset, dict(_DIGITS))
    row, which = nearest_setting(_TABLE, dataset, ipc, "cifar10")
    return dc_recipe(dataset, dict(zip(COLUMNS, row, strict=True)) | {"iterations": 20_000}, f"{SOURCE}: {which}")
