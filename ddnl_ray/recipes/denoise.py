"""Settings of the cleaners by data set and noise, with the source of every number.

Sources: the authors' code and tables, as the modules of :mod:`ddnl_ray.denoise` name them. Rates between the published
ones follow the nearest. Published rates of symmetric noise are shares of labels that are drawn anew from all classes,
of which on ten classes a tenth stay right; they are taken as they are printed. Where the noise is unknown it is taken
for 40 %, the rate of CIFAR-N's worst sets. The digits have settings of their own, chosen by the accuracy of the cleaned
labels under 40 % symmetric noise (one seed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddnl_ray.denoise import CLEANERS
from ddnl_ray.errors import require_known
from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DSA, backbone, extractor_of, is_digits
from ddnl_ray.recipes.rdc import likely_rate, nearest_weight, unlabelled_weight

EXTREME = 0.85
"""Rate from which on the settings of 90 % hold."""
_MANY_CLASSES = ("cifar100", "tinyimagenet")
_LABEL_DEPENDENT = ("asymmetric", "pairflip")

_C2D: dict[str, tuple[tuple[float, float], ...]] = {
    "few": ((0.2, 0.0), (0.5, 25.0), (0.8, 25.0), (0.9, 50.0)),
    "many": ((0.2, 25.0), (0.5, 150.0), (0.8, 500.0), (0.9, 500.0)),
}
"""C2D's scripts, by number of classes: (rate of symmetric noise, weight of the unlabelled part)."""

_DIGITS_MIXING: dict[str, Any] = {
    "epochs": 30,
    "warm_up": 15,  # of 23 steps: what the networks do not know by then they judge as noise, and then never learn
    "lr_drop": 25,
    "batch_size": 32,
    "warm_up_batch": 64,
    "unlabelled_weight": 25.0,
}
_DIGITS: dict[str, dict[str, Any]] = {
    "dividemix": _DIGITS_MIXING,
    "c2d": _DIGITS_MIXING,
    "l2b": _DIGITS_MIXING,
    "coteaching": {"epochs": 40, "decay_start": 20, "ramp": 20},  # of 12 steps: with 10 a hard class can be lost
}


@dataclass(frozen=True, kw_only=True)
class CleanerRecipe:
    """All settings of a cleaner on a data set with its noise.

    Attributes:
        settings: What differs from the defaults of its configuration.
        network: What it trains.
        flip: Whether its augmentation may mirror images.
        extractor: How the features (``knn``) or the start (``c2d``) are trained that it needs; None: it needs none.
        source: Where the numbers come from.
    """

    settings: Mapping[str, Any]
    network: NetworkSpec
    flip: bool
    extractor: SimclrConfig | None
    source: str


def cleaner_recipe(name: str, dataset: str, noise: NoiseConfig) -> CleanerRecipe:
    """Return the settings of a cleaner.

    Args:
        name: One of :data:`ddnl_ray.denoise.CLEANERS`.
        dataset: Name of the data set.
        noise: What is known of the noise.

    Raises:
        RequestError: The cleaner is unknown.
    """
    require_known("cleaner", name, CLEANERS)
    settings, source = _settings(name, dataset, noise)
    network = _network(name, dataset)
    extractor = extractor_of(dataset) if CLEANERS[name][0].needs_features else None
    if name == "c2d" and extractor is not None:
        extractor = dataclasses.replace(extractor, network=network)
    return CleanerRecipe(
        settings=settings, network=network, flip=not is_digits(dataset), extractor=extractor, source=source
    )


def _network(name: str, dataset: str) -> NetworkSpec:
    """Return the network: ResNet-18 for the methods that are published with one, where images are large enough."""
    if is_digits(dataset) or name in ("confident", "lossmix", "knn"):
        return backbone(dataset)
    return NetworkSpec("resnet18")


def _settings(name: str, dataset: str, noise: NoiseConfig) -> tuple[dict[str, Any], str]:
    """Return the settings of a cleaner that are not its defaults, and where they come from."""
    digits, rate = is_digits(dataset), likely_rate(noise)
    if name == "coteaching":
        decay = {"decay_start": 100} if dataset in _MANY_CLASSES else {}
        own = {"forget_rate": rate} | (_DIGITS[name] if digits else decay)
        return own, "Han et al. 2018, code" + _tuned(digits)
    if name in ("confident", "lossmix", "knn"):
        training = {} if digits else {"augment": DSA}
        return training, "training of the method full"
    mixing = _dividemix(name, dataset, noise, rate)
    if digits:
        return mixing | _DIGITS[name], "Li et al. 2020, code" + _tuned(digits)
    paper = {"dividemix": "Li et al. 2020", "c2d": "Zheltonozhskii et al. 2022", "l2b": "Zhou et al. 2024"}[name]
    return mixing, f"{paper}, code" + ("" if dataset.startswith("cifar") else "; that of cifar for " + dataset)


def _dividemix(name: str, dataset: str, noise: NoiseConfig, rate: float) -> dict[str, Any]:
    """Return the settings of the methods that are built on DivideMix."""
    many, extreme = dataset in _MANY_CLASSES, rate >= EXTREME
    settings: dict[str, Any] = {"unlabelled_weight": unlabelled_weight(dataset, noise)}
    if noise.kind in _LABEL_DEPENDENT:
        settings["penalise"] = True
    if extreme:
        settings["history"] = True
    if name == "c2d":
        asymmetric = noise.kind in _LABEL_DEPENDENT
        settings["unlabelled_weight"] = 0.0 if asymmetric else nearest_weight(_C2D["many" if many else "few"], rate)
        return settings
    if extreme:
        settings["threshold"] = 0.6
    if name == "l2b":
        return settings | {"batch_size": 128}
    return settings | ({"warm_up": 30} if many else {})


def _tuned(digits: bool) -> str:
    return "; on digits shortened" if digits else ""
