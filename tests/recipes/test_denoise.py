"""Settings of the cleaners, as their sources have them."""

from __future__ import annotations

from typing import Any

import pytest

from ddnl_ray.denoise import CLEANERS, build_cleaner
from ddnl_ray.errors import RequestError
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.denoise import cleaner_recipe
from ddnl_ray.recipes.rdc import likely_rate


def settings(name: str, dataset: str, kind: str, rate: float) -> Any:
    noise = NoiseConfig(kind, rate)
    return build_cleaner(name, cleaner_recipe(name, dataset, noise).settings).config


@pytest.mark.parametrize(
    ("dataset", "weights"), [("cifar10", (0, 25, 25, 50)), ("cifar100", (25, 150, 150, 150))], ids=str
)
def test_dividemix_for_symmetric_noise(dataset: str, weights: tuple[float, ...]) -> None:
    found = [settings("dividemix", dataset, "symmetric", rate) for rate in (0.2, 0.5, 0.8, 0.9)]
    assert tuple(each.unlabelled_weight for each in found) == weights
    assert [each.threshold for each in found] == [0.5, 0.5, 0.5, 0.6]
    assert [each.history for each in found] == [False, False, False, True]
    assert not any(each.penalise for each in found)
    first = found[0]
    assert (first.epochs, first.warm_up) == (301, 10 if dataset == "cifar10" else 30)
    assert (first.batch_size, first.warm_up_batch, first.lr, first.lr_drop) == (64, 128, 0.02, 150)
    assert (first.momentum, first.weight_decay, first.temperature, first.alpha) == (0.9, 5e-4, 0.5, 4.0)
    assert (first.mixture_steps, first.relabel) == (10, "all")


def test_asymmetric_noise_is_warmed_up_with_a_penalty() -> None:
    found = settings("dividemix", "cifar10", "asymmetric", 0.4)
    assert (found.penalise, found.unlabelled_weight) == (True, 0)
    assert settings("c2d", "cifar100", "asymmetric", 0.4).unlabelled_weight == 0


@pytest.mark.parametrize(
    ("dataset", "weights"), [("cifar10", (0, 25, 25, 50)), ("cifar100", (25, 150, 500, 500))], ids=str
)
def test_c2d(dataset: str, weights: tuple[float, ...]) -> None:
    found = [settings("c2d", dataset, "symmetric", rate) for rate in (0.2, 0.5, 0.8, 0.9)]
    assert tuple(each.unlabelled_weight for each in found) == weights
    assert [each.history for each in found] == [False, False, False, True]
    assert {(each.threshold, each.warm_up, each.epochs, each.mixture_steps) for each in found} == {(0.03, 5, 361, 200)}
    recipe = cleaner_recipe("c2d", dataset, NoiseConfig("symmetric", 0.5))
    assert recipe.extractor is not None
    assert recipe.extractor.network == recipe.network == NetworkSpec("resnet18")


def test_l2b() -> None:
    found = settings("l2b", "cifar100", "symmetric", 0.5)
    assert (found.batch_size, found.warm_up, found.epochs, found.unlabelled_weight) == (128, 10, 301, 150)
    assert (found.clip, found.meta, found.meta_batch) == (0.8, "divided", 64)
    assert settings("l2b", "cifar10", "symmetric", 0.9).threshold == 0.6


@pytest.mark.parametrize(("dataset", "start"), [("cifar10", 80), ("cifar100", 100)])
def test_coteaching(dataset: str, start: int) -> None:
    found = settings("coteaching", dataset, "pairflip", 0.45)
    assert (found.forget_rate, found.ramp, found.exponent, found.decay_start) == (0.45, 10, 1.0, start)
    assert (found.epochs, found.batch_size, found.lr) == (199, 128, 1e-3)


@pytest.mark.parametrize(("name", "outcome"), [("confident", "drop"), ("lossmix", "noisy_only"), ("knn", "noisy_only")])
def test_methods_of_folds_train_as_on_the_whole_set(name: str, outcome: str) -> None:
    found = settings(name, "cifar10", "symmetric", 0.4)
    assert (found.folds, found.batch_size, found.lr, found.momentum, found.weight_decay) == (5, 256, 0.01, 0.9, 5e-4)
    assert found.augment == "color_crop_cutout_flip_scale_rotate"
    assert found.relabel == outcome
    assert settings(name, "digits", "symmetric", 0.4).augment is None


def test_rates_that_are_not_said() -> None:
    assert likely_rate(NoiseConfig()) == 0
    assert likely_rate(NoiseConfig("natural", labels="aggre")) == 0.09
    assert likely_rate(NoiseConfig("transition", matrix=((0.9, 0.1), (0.1, 0.9)))) == 0.4
    worse = NoiseConfig("natural", labels="worse")
    assert cleaner_recipe("coteaching", "cifar10", worse).settings["forget_rate"] == 0.402
    assert cleaner_recipe("dividemix", "cifar10", worse).settings["unlabelled_weight"] == 25


@pytest.mark.parametrize("name", CLEANERS)
def test_every_cleaner_has_settings_for_every_data_set(name: str) -> None:
    for dataset in ("digits", "cifar10", "cifar100", "tinyimagenet", "folder"):
        recipe = cleaner_recipe(name, dataset, NoiseConfig("symmetric", 0.4))
        build_cleaner(name, recipe.settings)
        assert recipe.flip == (dataset != "digits")
        assert recipe.source
        assert (recipe.extractor is not None) == (name in ("c2d", "knn"))


def test_digits_are_small_and_unknown_cleaners_refused() -> None:
    recipe = cleaner_recipe("dividemix", "digits", NoiseConfig("symmetric", 0.4))
    assert recipe.network == NetworkSpec("convnet2", 32)
    for name in ("dividemix", "c2d", "l2b"):
        found = settings(name, "digits", "symmetric", 0.9)
        assert (found.epochs, found.warm_up, found.lr_drop, found.unlabelled_weight) == (30, 15, 25, 25)
        assert (found.batch_size, found.warm_up_batch, found.history) == (32, 64, True)
    teaching = settings("coteaching", "digits", "symmetric", 0.4)
    assert (teaching.epochs, teaching.decay_start, teaching.ramp, teaching.forget_rate) == (40, 20, 20, 0.4)
    with pytest.raises(RequestError, match="unknown cleaner 'elr'"):
        cleaner_recipe("elr", "digits", NoiseConfig())
