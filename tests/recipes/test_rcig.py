"""RCIG's published settings, number by number."""

from __future__ import annotations

import pytest

from ddnl_ray.data import augmentation
from ddnl_ray.data.each import Each
from ddnl_ray.distill.rcig_config import RcigConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, Recipe

CLEAN = NoiseConfig()


def recipe(dataset: str, ipc: int) -> Recipe:
    return RECIPES["rcig"](dataset, ipc, CLEAN)


@pytest.mark.parametrize(
    ("dataset", "ipc", "iterations", "softplus", "flip", "batch_pool"),
    [
        ("cifar10", 1, 15_000, 60, True, None),
        ("cifar10", 10, 10_000, 60, True, None),
        ("cifar10", 50, 10_000, 60, True, None),
        ("cifar100", 1, 10_000, 60, True, None),
        ("cifar100", 10, 10_000, 60, True, None),
        ("cifar100", 50, 10_000, 60, False, 2000),
        ("tinyimagenet", 1, 5_000, 0, True, None),
        ("tinyimagenet", 10, 5_000, 0, False, 256),
    ],
)
def test_the_table(
    dataset: str, ipc: int, iterations: int, softplus: float, flip: bool, batch_pool: int | None
) -> None:
    made = recipe(dataset, ipc)
    config = RcigConfig(**made.params)
    found = config.iterations, config.softplus, config.flip, config.batch_pool
    assert found == (iterations, softplus, flip, batch_pool)
    assert made.network == NetworkSpec("doubling4" if dataset == "tinyimagenet" else "doubling3")
    assert (made.zca, made.augment, made.experts) == ("relative", None, None)


def test_what_all_settings_share() -> None:
    config = RcigConfig()
    assert (config.l2_rate, config.batch_real, config.inner_steps, config.hessian_steps) == (5e-4, 1024, 20, 20)
    assert (config.pool_size, config.max_age, config.pool_steps, config.lr_net) == (30, 100, 15, 5e-5)
    assert (config.lr_img, config.lr_temperature, config.ema_decay, config.adapt_every) == (3e-3, 3e-2, 0.99, 50)
    assert (config.solver, config.hessian, config.clip, config.margin) == ("adam", "exact", True, True)
    assert (config.lr_inner, config.lr_hessian) == (None, None)


@pytest.mark.parametrize(
    ("dataset", "ipc", "steps", "warm_up", "batch"),
    [
        ("cifar10", 1, 1000, 0.5, 20),
        ("cifar10", 10, 2000, 0.25, 200),
        ("cifar10", 50, 2000, 0.25, 256),
        ("cifar100", 1, 2000, 0.25, 200),
        ("cifar100", 50, 2000, 0.25, 256),
        ("tinyimagenet", 1, 2000, 0.25, 400),
        ("tinyimagenet", 10, 2000, 0.25, 256),
    ],
)
def test_the_evaluation_takes_the_published_steps(
    dataset: str, ipc: int, steps: int, warm_up: float, batch: int
) -> None:
    made = recipe(dataset, ipc)
    evaluation, classes = made.evaluation, {"cifar10": 10, "cifar100": 100, "tinyimagenet": 200}[dataset]
    images = classes * ipc * (2 if made.params["flip"] else 1)
    per_epoch = -(-images // evaluation.batch_size)
    assert steps <= evaluation.epochs * per_epoch < steps + per_epoch
    assert (evaluation.warm_up, evaluation.batch_size) == (warm_up, batch)
    assert (evaluation.optimizer, evaluation.loss, evaluation.schedule) == ("adam", "squared", "cosine")
    assert (evaluation.lr, evaluation.weight_decay, evaluation.cutmix) == (1e-4, 0.0, 0.0)
    assert isinstance(augmentation(evaluation.augment), Each)
    assert str(evaluation.augment).endswith("flip_color_crop_rotate_translate_cutout")


def test_the_nearest_setting_is_named() -> None:
    assert recipe("cifar10", 20).source.endswith(": cifar10 ipc 10 (nearest to cifar10 ipc 20)")
    assert recipe("my-photos", 1).source.endswith(": cifar10 ipc 1 (nearest to my-photos ipc 1)")
    assert recipe("cifar100", 50).source.endswith(": cifar100 ipc 50")
