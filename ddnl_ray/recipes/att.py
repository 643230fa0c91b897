"""ATT's settings: the table of its repository, and its buffer script for the experts."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DIGITS_SOURCE, Recipe, nearest_setting
from ddnl_ray.recipes.matching import matching_recipe

SOURCE = "ATT (Liu et al. 2024), its repository's table"

COLUMNS = (
    *("syn_steps", "expert_epochs", "max_start_epoch", "batch_syn", "zca", "lr_img", "lr_lr", "lr_teacher"),
    *("ema_decay", "iterations"),
)
TABLE: dict[tuple[str, int], tuple[Any, ...]] = {
    ("cifar10", 1): (80, 4, 2, None, True, 1e2, 1e-7, 1e-2, 0.9999, 6000),
    ("cifar10", 10): (30, 2, 20, None, True, 1e4, 1e-4, 1e-2, 0.9999, 60000),
    ("cifar10", 50): (50, 2, 40, None, False, 1e2, 1e-5, 1e-3, 0.999, 1000000),
    ("cifar100", 1): (50, 4, 20, None, True, 5e2, 1e-5, 1e-2, 0.9995, 3000),
    ("cifar100", 10): (20, 2, 40, None, False, 1e3, 1e-5, 1e-2, 0.9995, 200000),
    ("cifar100", 50): (80, 2, 40, 1200, True, 1e3, 1e-5, 1e-2, 0.999, 100000),
    ("tinyimagenet", 1): (30, 2, 10, None, False, 1e4, 1e-4, 1e-2, 0.999, 10000),
    # Its command has lr_lr 1e-6 and lr_teacher 1e-3 instead; these are the table's.
    ("tinyimagenet", 10): (20, 2, 40, None, False, 1e4, 1e-5, 1e-4, 0.999, 80000),
    ("digits", 1): (10, 4, 8, None, False, 3e1, 1e-4, 5e-2, 0.9, 100),
    ("digits", 10): (10, 4, 8, 50, False, 1e2, 1e-4, 5e-2, 0.9, 100),
}


def att(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return ATT's setting for a data set and IPC; it has none that depends on the noise."""
    row, which = nearest_setting(TABLE, dataset, ipc, "cifar10")
    setting = dict(zip(COLUMNS, row, strict=True))
    if dataset == "digits":
        return matching_recipe(dataset, setting, f"{DIGITS_SOURCE}: {which}")
    return matching_recipe(dataset, setting, f"{SOURCE}: {which}", batch_size=512)
