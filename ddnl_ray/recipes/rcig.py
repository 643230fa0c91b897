"""RCIG's settings: its authors' configuration files, as far as they differ between data sets."""

from __future__ import annotations

from typing import Any

from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import Recipe, is_digits, nearest_key

SOURCE = "RCIG (Loo et al. 2023), authors' configuration files"
EVAL_AUGMENT = "each:flip_color_crop_rotate_translate_cutout"
EVAL_BATCH, EVAL_STEPS, EVAL_STEPS_FEW, EVAL_WARM_UP_STEPS = 256, 2000, 1000, 500
CLASSES = {"cifar10": 10, "cifar100": 100, "tinyimagenet": 200, "digits": 10}
DIGITS_CLASSES = 10

COLUMNS = ("iterations", "softplus", "flip", "batch_pool")
_TABLE: dict[tuple[str, int], tuple[Any, ...]] = {
    # depth_3: 15000 iterations made the released set, 10000 the others.
    ("cifar10", 1): (15_000, 60.0, True, None),
    ("cifar10", 10): (10_000, 60.0, True, None),
    ("cifar10", 50): (10_000, 60.0, True, None),
    ("cifar100", 1): (10_000, 60.0, True, None),
    ("cifar100", 10): (10_000, 60.0, True, None),
    # cifar100_50: no mirrored copies. As released it lacks the batch of the pool; 2000 is what it means.
    ("cifar100", 50): (10_000, 60.0, False, 2000),
    # depth_4_200, and depth_4_big with 256 likewise.
    ("tinyimagenet", 1): (5_000, 0.0, True, None),
    ("tinyimagenet", 10): (5_000, 0.0, False, 256),
}
_DIGITS: dict[str, Any] = {
    "iterations": 60,
    "flip": False,
    "batch_real": 256,
    "inner_steps": 10,
    "hessian_steps": 10,
    "pool_size": 5,
    "lr_img": 0.01,
    "lr_net": 5e-4,
    "ema_decay": 0.9,
}


def rcig(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return RCIG's setting for a data set and IPC; it has none that depends on the noise.

    The learning rates of the inner systems are tuned by the method itself. The ridge is 5e-4 per image everywhere.
    """
    if is_digits(dataset):
        return Recipe(
            params=dict(_DIGITS),
            network=NetworkSpec("doubling2", 32),
            zca=False,
            augment=None,
            evaluation=evaluation(DIGITS_CLASSES, ipc, mirrored=False, lr=1e-3, steps=600, augment=None),
            source=f"{SOURCE}; made small for digits",
        )
    key = nearest_key(_TABLE, dataset, ipc, "cifar10")
    which = f"{key[0]} ipc {key[1]}" + ("" if key == (dataset, ipc) else f" (nearest to {dataset} ipc {ipc})")
    params = dict(zip(COLUMNS, _TABLE[key], strict=True))
    classes = CLASSES.get(dataset, CLASSES["cifar10"])
    few = classes * ipc <= CLASSES["cifar10"]
    return Recipe(
        params=params,
        network=NetworkSpec("doubling4" if dataset == "tinyimagenet" else "doubling3"),
        zca="relative",
        augment=None,
        evaluation=evaluation(classes, ipc, params["flip"], 1e-4, EVAL_STEPS_FEW if few else EVAL_STEPS, EVAL_AUGMENT),
        source=f"{SOURCE}: {which}",
    )


def evaluation(classes: int, ipc: int, mirrored: bool, lr: float, steps: int, augment: str | None) -> EvalRecipe:
    """Return the authors' evaluation: a number of steps of Adam, on all images at once where there are few.

    The warm-up takes 500 steps of 2000 or of 1000.
    """
    size = max(1, classes * ipc)
    images = 2 * size if mirrored else size
    batch = images if size <= EVAL_BATCH else EVAL_BATCH
    warm_up = min(0.5, EVAL_WARM_UP_STEPS / steps)
    return EvalRecipe(
        epochs=-(-steps // -(-images // batch)),
        batch_size=batch,
        lr=lr,
        weight_decay=0.0,
        augment=augment,
        schedule="cosine",
        warm_up=warm_up,
        optimizer="adam",
        loss="squared",
    )
