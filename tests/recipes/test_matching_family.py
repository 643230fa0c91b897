"""The published settings of the matching family and of RDC, number by number."""

from __future__ import annotations

from typing import Any

import pytest

from ddnl_ray.distill import METHODS
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, part_settings
from ddnl_ray.recipes.rdc import unlabelled_weight
from ddnl_ray.robust import compose

CLEAN = NoiseConfig()


def settings(method: str, dataset: str, ipc: int) -> Any:
    return METHODS[method].config(**RECIPES[method](dataset, ipc, CLEAN).params)


@pytest.mark.parametrize(
    ("dataset", "ipc", "row"),
    [
        ("cifar10", 1, (0.5, 10, 5, 5000, 100)),
        ("cifar10", 10, (0.5, 10, 30, 256, 100)),
        ("cifar10", 50, (0.1, 10, 30, 256, 500)),
        ("cifar100", 1, (0.5, 10, 5, 5000, 100)),
        ("cifar100", 10, (0.1, 50, 30, 256, 100)),
        ("cifar100", 50, (0.1, 10, 30, 256, 500)),
        ("tinyimagenet", 1, (0.5, 10, 30, 256, 100)),
        ("tinyimagenet", 10, (0.5, 10, 30, 256, 500)),
        ("tinyimagenet", 50, (0.8, 50, 30, 256, 1000)),
    ],
)
def test_idm(dataset: str, ipc: int, row: tuple[float, ...]) -> None:
    own = settings("idm", dataset, ipc)
    found = own.ce_weight, own.model_train_steps, own.net_generate_interval, own.batch_real, own.meter_reset_interval
    assert found == row
    assert (own.iterations, own.lr_img, own.lr_net, own.net_num, own.fetch_net_num) == (20_000, 0.2, 0.01, 100, 2)


@pytest.mark.parametrize(("ipc", "lr"), [(1, 1.0), (10, 1.0), (50, 1.0), (100, 10.0)])
def test_dm(ipc: int, lr: float) -> None:
    own = settings("dm", "cifar10", ipc)
    assert (own.iterations, own.lr_img, own.momentum, own.batch_real) == (20_000, lr, 0.5, 256)


@pytest.mark.parametrize(("ipc", "outer", "inner"), [(1, 1, 1), (10, 10, 50), (20, 20, 25), (50, 50, 10)])
def test_dsa(ipc: int, outer: int, inner: int) -> None:
    own = settings("dsa", "cifar10", ipc)
    assert (own.iterations, own.outer, own.inner, own.lr_img) == (1000 * outer, outer, inner, 0.1)


def test_accdd_and_its_early_networks() -> None:
    recipe, own = RECIPES["accdd"]("cifar10", 10, CLEAN), settings("accdd", "cifar10", 10)
    assert (own.iterations, own.inner_loop, own.start_epoch, own.batch_real) == (50_000, 100, 2, 64)
    assert (own.perturbation_low, own.perturbation_high, own.batch_syn_max, own.n_data) == (0.01, 0.09, 128, 2000)
    assert own.rate(10, 32) == pytest.approx(2 * 0.01)
    assert own.rate(1, 64) == pytest.approx(2 * 0.01 / 10 * 4)
    experts = recipe.experts
    assert experts is not None
    assert (recipe.num_experts, experts.epochs, experts.schedule, experts.schedule_epochs) == (5, 2, "thirds", 3)
    assert (experts.lr, experts.momentum, experts.weight_decay, experts.batch_size) == (0.01, 0.9, 5e-4, 64)
    assert (experts.cutmix, experts.augment) == (0.5, "diffaug:flip_color_crop_scale_rotate")


@pytest.mark.parametrize(("ipc", "lr"), [(1, 0.01), (10, 0.1), (50, 0.5)])
def test_dance_and_its_experts(ipc: int, lr: float) -> None:
    recipe, own = RECIPES["dance"]("cifar100", ipc, CLEAN), settings("dance", "cifar100", ipc)
    assert own.rate(ipc) == pytest.approx(2 * lr)
    assert (own.iterations, own.batch_real, own.batch_syn_max, own.factor) == (10_000, 128, 200, 2)
    experts = recipe.experts
    assert experts is not None
    assert (recipe.num_experts, experts.epochs, experts.schedule_epochs, experts.augment) == (
        5,
        60,
        60,
        "diffaug:color_crop",
    )


@pytest.mark.parametrize(
    ("method", "epochs", "batch", "schedule", "cutmix"),
    [
        ("dm", 1001, 256, "half", 0.0),
        ("dsa", 1001, 256, "half", 0.0),
        ("idm", 1001, 256, "half", 0.0),
        ("accdd", 1000, 64, "thirds", 0.5),
        ("dance", 1500, 64, "thirds", 0.5),
    ],
)
def test_each_lineage_evaluates_in_its_own_way(
    method: str, epochs: int, batch: int, schedule: str, cutmix: float
) -> None:
    own = RECIPES[method]("cifar10", 10, CLEAN).evaluation
    assert (own.epochs, own.batch_size, own.schedule, own.cutmix, own.lr) == (epochs, batch, schedule, cutmix, 0.01)


@pytest.mark.parametrize(
    ("dataset", "noise", "weight"),
    [
        ("cifar10", CLEAN, 0.0),
        ("cifar10", NoiseConfig("symmetric", 0.2), 0.0),
        ("cifar10", NoiseConfig("symmetric", 0.4), 25.0),
        ("cifar10", NoiseConfig("symmetric", 0.9), 50.0),
        ("cifar10", NoiseConfig("pairflip", 0.4), 0.0),
        ("cifar10", NoiseConfig("natural", labels="random1"), 0.0),
        ("cifar10", NoiseConfig("natural", labels="worse"), 25.0),
        ("cifar100", NoiseConfig("symmetric", 0.2), 25.0),
        ("cifar100", NoiseConfig("pairflip", 0.4), 150.0),
        ("cifar100", NoiseConfig("natural", labels="fine"), 150.0),
        ("tinyimagenet", NoiseConfig("symmetric", 0.4), 25.0),
    ],
)
def test_the_weight_of_unlabelled_images_follows_the_noise(dataset: str, noise: NoiseConfig, weight: float) -> None:
    assert unlabelled_weight(dataset, noise) == weight


@pytest.mark.parametrize(("dataset", "warm_up"), [("cifar10", 5), ("cifar100", 20), ("tinyimagenet", 20)])
def test_rdc_on_idm(dataset: str, warm_up: int) -> None:
    changes = part_settings("rdc", "idm", dataset, CLEAN)
    config = compose("idm+rdc").method({**RECIPES["idm"](dataset, 10, CLEAN).params, **changes}).config
    assert (config.iterations, config.rdc.steps_per_epoch, config.rdc.warm_up) == (150 * 196, 196, warm_up)
    assert (config.lr_net, config.ce_weight, config.net_num) == (0.02, 0.5, 1)
    assert (config.rdc.temperature, config.rdc.mixup, config.rdc.confidence) == (0.07, 0.75, 0.95)


def test_rdc_on_accdd() -> None:
    changes = part_settings("rdc", "accdd", "cifar10", CLEAN)
    rdc = compose("accdd+rdc").method({**RECIPES["accdd"]("cifar10", 10, CLEAN).params, **changes}).config.rdc
    assert (rdc.warm_up, rdc.cycle, rdc.labelled_batch, rdc.cond_real) == (3, 5, 64, "golden")
