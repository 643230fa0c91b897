"""RDC's settings by base method, data set and noise, and what it changes in the base's.

Source: Kim and Song (2025) and their code; the weight of the unlabelled part after DivideMix's Table 7 (Li et al. 2020)
and what C2D's authors found for asymmetric noise. Rates between the published ones follow the nearest. On trajectory
methods RDC is a reconstruction: the contrast's weight of 0.1 is a first guess for a matching loss of the order of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddnl_ray.noise import NoiseConfig

EPOCHS, STEPS_PER_EPOCH = 150, 196

_UNLABELLED: dict[str, tuple[tuple[float, float], ...]] = {
    "few": ((0.2, 0.0), (0.5, 25.0), (0.8, 25.0), (0.9, 50.0)),
    "many": ((0.2, 25.0), (0.5, 150.0), (0.8, 150.0), (0.9, 150.0)),
}
"""By number of classes: (rate of symmetric noise, weight). The published 0.4 has the weight of 0.5."""
_NATURAL = {"aggre": 0.09, "random1": 0.172, "random2": 0.181, "random3": 0.176, "worse": 0.402, "fine": 0.402}
_UNKNOWN = 0.4
_UNKNOWN_SET = 25.0
"""Of Tiny-ImageNet, for which no source has a weight."""
_MANY_CLASSES = ("cifar100", "tinyimagenet")

_DIGITS: dict[str, dict[str, Any]] = {
    "idm": {
        "iterations": 400,
        "rdc.warm_up": 2,
        "rdc.steps_per_epoch": 40,
        "rdc.labelled_batch": 64,
        "rdc.unlabelled_batch": 64,
        "rdc.flip": False,
        "rdc.max_images": 200,
        "rdc.max_anchors": 400,
    },
    "accdd": {
        "rdc.warm_up": 3,
        "rdc.steps_per_epoch": 20,
        "rdc.labelled_batch": 64,
        "rdc.unlabelled_batch": 64,
        "rdc.flip": False,
        "rdc.max_images": 200,
        "rdc.max_anchors": 400,
    },
    "trajectory": {
        "rdc.gmc_weight": 0.1,
        "rdc.warm_up": 8,  # of 16: experts know half of the digits after 2, and what they miss then stays unknown
        "rdc.labelled_batch": 64,
        "rdc.unlabelled_batch": 64,
        "rdc.flip": False,
        "rdc.max_images": 200,
        "rdc.max_anchors": 400,
    },
}


def unlabelled_weight(dataset: str, noise: NoiseConfig) -> float:
    """Return the weight of the unlabelled part (lambda_u) for a data set and its noise."""
    if dataset == "tinyimagenet":
        return _UNKNOWN_SET
    many = dataset in _MANY_CLASSES
    if noise.kind == "none":
        return 25.0 if many else 0.0
    rate = likely_rate(noise)
    if noise.kind in ("asymmetric", "pairflip"):
        return (25.0 if rate <= 0.3 else 150.0) if many else 0.0
    return nearest_weight(_UNLABELLED["many" if many else "few"], rate)


def likely_rate(noise: NoiseConfig) -> float:
    """Return the nominal rate of the noise, the measured one of a label set of CIFAR-N, and otherwise 0.4."""
    if noise.kind == "none":
        return 0.0
    return noise.rate if noise.rate is not None else _NATURAL.get(noise.labels or "", _UNKNOWN)


def nearest_weight(rows: Sequence[tuple[float, float]], rate: float) -> float:
    """Return the weight of the nearest rate among pairs of a rate and its weight."""
    return min(rows, key=lambda row: abs(row[0] - rate))[1]


def rdc(base: str, dataset: str, noise: NoiseConfig) -> dict[str, Any]:
    """Return RDC's settings that are not its defaults, with its prefix, and those of the base that it changes."""
    weight = {"rdc.unlabelled_weight": unlabelled_weight(dataset, noise)}
    if dataset == "digits":
        return _DIGITS.get(base, _DIGITS["trajectory"]) | weight
    warm_up = {"rdc.warm_up": 20 if dataset in _MANY_CLASSES else 5}
    if base == "idm":
        return {"iterations": EPOCHS * STEPS_PER_EPOCH, "ce_weight": 0.5, "lr_net": 0.02} | warm_up | weight
    if base == "accdd":
        accdd = {"rdc.warm_up": 3, "rdc.labelled_batch": 64, "rdc.unlabelled_batch": 64, "rdc.cond_real": "golden"}
        return accdd | weight
    return {"rdc.gmc_weight": 0.1} | warm_up | weight
