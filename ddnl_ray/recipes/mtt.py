"""MTT's settings: its authors' table, and its buffer script for the experts."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DIGITS_SOURCE, Recipe, nearest_setting
from ddnl_ray.recipes.matching import matching_recipe

SOURCE = (
    "MTT (Cazenavette et al. 2022), authors' table; CIFAR-10 ipc 10 after FTD's script (the printed lr_img diverges)"
)

COLUMNS = ("syn_steps", "expert_epochs", "max_start_epoch", "batch_syn", "zca", "lr_img", "lr_lr", "lr_teacher")
TABLE: dict[tuple[str, int], tuple[Any, ...]] = {
    ("cifar10", 1): (50, 2, 2, None, True, 1e2, 1e-7, 1e-2),
    ("cifar10", 10): (30, 2, 20, None, True, 1e2, 1e-5, 1e-3),
    ("cifar10", 50): (30, 2, 40, None, False, 1e3, 1e-5, 1e-3),
    ("cifar100", 1): (20, 3, 20, None, True, 1e3, 1e-5, 1e-2),
    ("cifar100", 10): (20, 2, 20, None, False, 1e3, 1e-5, 1e-2),
    ("cifar100", 50): (80, 2, 40, 125, True, 1e3, 1e-5, 1e-2),
    ("tinyimagenet", 1): (10, 2, 10, None, False, 1e4, 1e-4, 1e-2),
    ("tinyimagenet", 10): (20, 2, 40, 200, False, 1e4, 1e-4, 1e-2),
    ("tinyimagenet", 50): (20, 2, 40, 300, False, 1e4, 1e-4, 1e-2),
    ("digits", 1): (10, 4, 8, None, False, 3e1, 1e-4, 5e-2),
    ("digits", 10): (10, 4, 8, 50, False, 1e2, 1e-4, 5e-2),
}


def mtt(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return MTT's setting for a data set and IPC; it has none that depends on the noise."""
    row, which = nearest_setting(TABLE, dataset, ipc, "cifar10")
    digits = dataset == "digits"
    setting = dict(zip(COLUMNS, row, strict=True)) | {"iterations": 100 if digits else 5000}
    return matching_recipe(dataset, setting, f"{DIGITS_SOURCE if digits else SOURCE}: {which}")
