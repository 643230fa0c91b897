"""FTD's settings: the table of its repository, and its buffer script for the experts."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DIGITS_SOURCE, Recipe, nearest_setting
from ddnl_ray.recipes.matching import matching_recipe

SOURCE = "FTD (Du et al. 2023), its repository's table 7; whitening and iterations after its scripts"

COLUMNS = (
    *("syn_steps", "expert_epochs", "max_start_epoch", "batch_syn", "zca", "lr_img", "lr_lr", "lr_teacher"),
    *("alpha", "ema_decay"),
)
TABLE: dict[tuple[str, int], tuple[Any, ...]] = {
    ("cifar10", 1): (50, 2, 2, None, True, 1e2, 1e-7, 1e-2, 0.3, 0.9999),
    ("cifar10", 10): (30, 2, 20, None, True, 1e2, 1e-5, 1e-3, 0.3, 0.9995),
    ("cifar10", 50): (30, 2, 40, None, True, 1e3, 1e-5, 1e-2, 1.0, 0.999),
    ("cifar100", 1): (40, 3, 20, None, True, 1e3, 1e-5, 1e-2, 1.0, 0.9995),
    ("cifar100", 10): (20, 2, 40, None, True, 1e3, 1e-5, 1e-2, 1.0, 0.9995),
    ("cifar100", 50): (80, 2, 40, 1000, True, 1e3, 1e-5, 1e-2, 1.0, 0.999),
    ("tinyimagenet", 1): (30, 2, 10, None, False, 1e4, 1e-4, 1e-2, 1.0, 0.999),
    ("tinyimagenet", 10): (20, 2, 40, 500, False, 1e4, 1e-4, 1e-2, 1.0, 0.999),
    ("digits", 1): (10, 4, 8, None, False, 3e1, 1e-4, 5e-2, 0.3, 0.9),
    ("digits", 10): (10, 4, 8, 50, False, 1e2, 1e-4, 5e-2, 0.3, 0.9),
}


def ftd(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return FTD's setting for a data set and IPC; it has none that depends on the noise.

    The experts' radius is 0.01, as in effect in the authors' scripts.
    """
    row, which = nearest_setting(TABLE, dataset, ipc, "cifar10")
    digits = dataset == "digits"
    setting = dict(zip(COLUMNS, row, strict=True)) | {"iterations": 100 if digits else 5000}
    alpha = setting.pop("alpha")
    source = f"{DIGITS_SOURCE if digits else SOURCE}: {which}"
    return matching_recipe(dataset, setting, source, optimizer="gsam", rho=0.01, alpha=alpha)
