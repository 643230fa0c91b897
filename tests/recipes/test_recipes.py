"""Published settings, pinned against the tables of the papers and of their code bases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ddnl_ray.data import Dsa
from ddnl_ray.distill import METHODS
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, Recipe

DATASETS = ("digits", "cifar10", "cifar100", "tinyimagenet", "my-photos")
CLEAN = NoiseConfig()
SHAPES = {"digits": (1, 8, 8), "tinyimagenet": (3, 64, 64)}

MTT_COLUMNS = ("syn_steps", "expert_epochs", "max_start_epoch", "batch_syn", "zca", "lr_img", "lr_lr", "lr_teacher")
MTT = {
    ("cifar10", 1): (50, 2, 2, None, True, 1e2, 1e-7, 1e-2),
    ("cifar10", 10): (30, 2, 20, None, True, 1e2, 1e-5, 1e-3),
    ("cifar10", 50): (30, 2, 40, None, False, 1e3, 1e-5, 1e-3),
    ("cifar100", 1): (20, 3, 20, None, True, 1e3, 1e-5, 1e-2),
    ("cifar100", 10): (20, 2, 20, None, False, 1e3, 1e-5, 1e-2),
    ("cifar100", 50): (80, 2, 40, 125, True, 1e3, 1e-5, 1e-2),
    ("tinyimagenet", 1): (10, 2, 10, None, False, 1e4, 1e-4, 1e-2),
    ("tinyimagenet", 10): (20, 2, 40, 200, False, 1e4, 1e-4, 1e-2),
    ("tinyimagenet", 50): (20, 2, 40, 300, False, 1e4, 1e-4, 1e-2),
}

DATM_COLUMNS = (
    *("syn_steps", "expert_epochs", "batch_syn", "lr_img", "lr_y", "lr_lr", "min_start_epoch"),
    *("current_max_start_epoch", "max_start_epoch", "expansion_end_epoch", "pix_init", "threshold"),
)
SPC = "samples_predicted_correctly"
DATM = {
    ("cifar10", 1): (80, 2, 10, 100, 5, 1e-7, 0, None, 4, None, SPC, 1.1),
    ("cifar10", 10): (80, 2, 100, 100, 2, 1e-5, 0, 10, 20, 1000, SPC, 1),
    ("cifar10", 50): (80, 2, 500, 1000, 2, 1e-5, 0, 20, 40, 2000, SPC, 1),
    ("cifar10", 500): (40, 2, 1000, 50, 10, 1e-5, 40, None, 60, None, SPC, 1),
    ("cifar10", 1000): (100, 2, 1000, 50, 10, 1e-5, 40, None, 60, None, SPC, 1),
    ("cifar100", 1): (40, 3, 1000, 1000, 10, 1e-5, 0, 10, 20, 1000, SPC, 1),
    ("cifar100", 10): (80, 2, 1000, 1000, 10, 1e-5, 0, 30, 50, 2000, SPC, 1),
    ("cifar100", 50): (80, 2, 1000, 1000, 10, 1e-5, 20, None, 70, None, "real", 1),
    ("cifar100", 100): (80, 2, 1000, 50, 10, 1e-5, 30, None, 70, None, SPC, 1),
    ("tinyimagenet", 1): (40, 2, 1000, 10000, 10, 1e-4, 0, 15, 20, 2000, SPC, 1),
    ("tinyimagenet", 10): (40, 2, 500, 100, 10, 1e-4, 10, None, 50, None, SPC, 1),
    ("tinyimagenet", 50): (20, 2, 1000, 100, 10, 1e-4, 40, None, 70, None, SPC, 1),
}


def recipe(method: str, dataset: str = "cifar10", ipc: int = 10, noise: NoiseConfig = CLEAN) -> Recipe:
    return RECIPES[method](dataset, ipc, noise)


def cases(table: dict[tuple[str, int], Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("dataset", "ipc"), list(table), ids=[f"{name}-{ipc}" for name, ipc in table])


@cases(MTT)
def test_mtt_has_its_authors_table(dataset: str, ipc: int) -> None:
    """The table of the authors; CIFAR-10 at 10 is FTD's, because the printed learning rate diverges."""
    made = recipe("mtt", dataset, ipc)
    assert {**made.params, "zca": made.zca} == {
        **dict(zip(MTT_COLUMNS, MTT[dataset, ipc], strict=True)),
        "iterations": 5000,
    }


@cases(DATM)
def test_datm_has_its_configuration_files(dataset: str, ipc: int) -> None:
    made = recipe("datm", dataset, ipc)
    expected = dict(zip(DATM_COLUMNS, DATM[dataset, ipc], strict=True))
    if expected["current_max_start_epoch"] is None:  # no sequential generation: its end means nothing
        del expected["expansion_end_epoch"]
    assert {name: made.params[name] for name in expected} == expected
    assert (made.params["iterations"], made.params["lr_teacher"]) == (10000, 0.01)
    assert made.zca


def test_experts_are_the_published_ones() -> None:
    mtt, datm = recipe("mtt").experts, recipe("datm").experts
    assert mtt is not None
    assert datm is not None
    assert (mtt.epochs, mtt.optimizer, datm.epochs, datm.optimizer) == (50, "sgd", 100, "gsam")
    assert (datm.rho, datm.alpha) == (0.01, 0.3)
    for each in (mtt, datm):
        assert (each.lr, each.momentum, each.weight_decay, each.batch_size) == (0.01, 0.0, 0.0, 256)
        assert each.augment == "color_crop_cutout_flip_scale_rotate"
    assert recipe("mtt").num_experts == recipe("datm").num_experts == 100


def test_evaluation_is_the_published_one() -> None:
    for method, batch_size in (("mtt", 256), ("datm", 128), ("random", 256)):
        made = recipe(method).evaluation
        assert (made.epochs, made.batch_size, made.momentum, made.weight_decay) == (1001, batch_size, 0.9, 5e-4)
        assert made.drop_epoch == 502
        assert made.lr == (0.01 if method == "random" else None)


@pytest.mark.parametrize(
    ("dataset", "network"),
    [("cifar10", "convnet3"), ("cifar100", "convnet3"), ("tinyimagenet", "convnet4"), ("digits", "convnet2")],
)
def test_backbones_are_the_fields(dataset: str, network: str) -> None:
    for method in RECIPES:
        assert recipe(method, dataset).network == NetworkSpec(network, 32 if dataset == "digits" else None)


@pytest.mark.parametrize(
    ("method", "dataset", "ipc", "chosen"),
    [
        ("datm", "cifar10", 10, "cifar10 ipc 10"),
        ("datm", "cifar10", 9, "cifar10 ipc 1 (nearest to cifar10 ipc 9)"),
        ("datm", "cifar10", 499, "cifar10 ipc 50 (nearest to cifar10 ipc 499)"),
        ("datm", "cifar10", 5000, "cifar10 ipc 1000 (nearest to cifar10 ipc 5000)"),
        ("datm", "my-photos", 20, "cifar10 ipc 10 (nearest to my-photos ipc 20)"),
        ("datm", "my-photos", 10, "cifar10 ipc 10 (nearest to my-photos ipc 10)"),
        ("mtt", "tinyimagenet", 100, "tinyimagenet ipc 50 (nearest to tinyimagenet ipc 100)"),
        ("mtt", "cifar100", 2, "cifar100 ipc 1 (nearest to cifar100 ipc 2)"),
    ],
)
def test_the_nearest_published_setting_is_named(method: str, dataset: str, ipc: int, chosen: str) -> None:
    made = recipe(method, dataset, ipc)
    assert made.source.endswith(f": {chosen}")
    name, size = chosen.split(" (")[0].split(" ipc ")
    assert made.params == recipe(method, name, int(size)).params


def changed(noise: NoiseConfig, dataset: str = "cifar10", ipc: int = 10) -> dict[str, Any]:
    clean, noisy = recipe("datm", dataset, ipc).params, recipe("datm", dataset, ipc, noise).params
    return {name: value for name, value in noisy.items() if value != clean[name]}


@pytest.mark.parametrize(
    ("kind", "rate", "ipc"), list(itertools.product(["symmetric", "asymmetric"], [0.2, 0.6], [1, 10, 50]))
)
def test_noise_slows_the_students_first_step_on_cifar10(kind: str, rate: float, ipc: int) -> None:
    assert changed(NoiseConfig(kind, rate=rate), ipc=ipc) == {"lr_teacher": 0.001}


@pytest.mark.parametrize(
    ("kind", "ipc", "slow"),
    [
        ("symmetric", 1, False),
        ("symmetric", 10, True),
        ("symmetric", 50, False),
        ("asymmetric", 1, False),
        ("asymmetric", 10, True),
        ("asymmetric", 50, True),
    ],
)
def test_heavy_noise_slows_the_step_sizes_learning_too(kind: str, ipc: int, slow: bool) -> None:
    expected = {"lr_teacher": 0.001} | ({"lr_lr": 1e-6} if slow else {})
    assert changed(NoiseConfig(kind, rate=0.8), ipc=ipc) == expected


@pytest.mark.parametrize(
    ("noise", "dataset", "ipc", "expected"),
    [
        (NoiseConfig("natural", labels="worse"), "cifar10", 10, {"lr_teacher": 0.001}),
        (NoiseConfig("natural", labels="worse"), "cifar10", 1, {}),
        (NoiseConfig("natural", labels="worse"), "cifar10", 50, {}),
        (NoiseConfig("natural", labels="aggre"), "cifar10", 10, {}),
        (NoiseConfig("natural", labels="fine"), "cifar100", 10, {}),
        (NoiseConfig("symmetric", rate=0.8), "cifar100", 10, {}),
        (NoiseConfig("symmetric", rate=0.8), "tinyimagenet", 10, {}),
        (NoiseConfig("symmetric", rate=0.4), "cifar10", 500, {}),
        (NoiseConfig("symmetric", rate=0.8), "digits", 10, {}),
    ],
)
def test_other_settings_of_the_noisy_benchmark(
    noise: NoiseConfig, dataset: str, ipc: int, expected: dict[str, Any]
) -> None:
    assert changed(noise, dataset, ipc) == expected


def test_a_noisy_setting_says_what_was_changed_and_by_whom() -> None:
    noisy = recipe("datm", noise=NoiseConfig("symmetric", rate=0.8)).source
    assert "lr_teacher, lr_lr after the noisy benchmark" in noisy
    assert "noisy benchmark" not in recipe("datm").source


@pytest.mark.parametrize("method", RECIPES)
def test_every_recipe_is_a_valid_configuration(method: str) -> None:
    noises = [CLEAN, NoiseConfig("symmetric", rate=0.8), NoiseConfig("natural", labels="worse")]
    for dataset, ipc, noise in itertools.product(DATASETS, (1, 2, 10, 50, 100, 500, 1000), noises):
        made = recipe(method, dataset, ipc, noise)
        config = METHODS[method].config(**made.params)
        assert made.source
        shape = SHAPES.get(dataset, (3, 32, 32))
        made.network.require_fits(shape)
        for strategy in (made.augment, made.evaluation.augment):
            assert strategy is None or Dsa(strategy)
        assert METHODS[method].method.needs_experts == (made.experts is not None) == (made.num_experts > 0)
        if made.experts is not None:
            assert made.experts.network == made.network
            assert config.last_epoch <= made.experts.epochs


def test_recipes_are_those_of_the_methods() -> None:
    assert set(RECIPES) == set(METHODS)


def test_full_trains_until_it_has_memorised_and_is_scored_at_every_epoch() -> None:
    for dataset in DATASETS:
        made = RECIPES["full"](dataset, None, CLEAN).evaluation  # type: ignore[arg-type]
        assert made.checkpoints == made.epochs >= 60
