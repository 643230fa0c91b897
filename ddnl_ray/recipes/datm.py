"""DATM's settings: its configuration files, and what the noisy benchmark changed in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DIGITS_SOURCE, DSA, Recipe, backbone, nearest_key, nearest_setting

SOURCE = "DATM (Guo et al. 2024), configuration files"
NOISY_SOURCE = "noisy benchmark (Cheng et al. 2024, DD_LNL), configuration files"


@dataclass(frozen=True)
class _Row:
    """One configuration file; the fields are named as there."""

    syn_steps: int
    expert_epochs: int
    batch_syn: int
    lr_img: float
    lr_y: float
    lr_lr: float
    min_start_epoch: int
    current_max_start_epoch: int | None
    max_start_epoch: int
    expansion_end_epoch: int
    threshold: float = 1.0
    pix_init: str = "samples_predicted_correctly"
    lr_teacher: float = 0.01


_TABLE: dict[tuple[str, int], _Row] = {
    ("cifar10", 1): _Row(80, 2, 10, 100, 5, 1e-7, 0, None, 4, 1, threshold=1.1),
    ("cifar10", 10): _Row(80, 2, 100, 100, 2, 1e-5, 0, 10, 20, 1000),
    ("cifar10", 50): _Row(80, 2, 500, 1000, 2, 1e-5, 0, 20, 40, 2000),
    ("cifar10", 500): _Row(40, 2, 1000, 50, 10, 1e-5, 40, None, 60, 1),
    ("cifar10", 1000): _Row(100, 2, 1000, 50, 10, 1e-5, 40, None, 60, 1),
    ("cifar100", 1): _Row(40, 3, 1000, 1000, 10, 1e-5, 0, 10, 20, 1000),
    ("cifar100", 10): _Row(80, 2, 1000, 1000, 10, 1e-5, 0, 30, 50, 2000),
    ("cifar100", 50): _Row(80, 2, 1000, 1000, 10, 1e-5, 20, None, 70, 1, pix_init="real"),
    ("cifar100", 100): _Row(80, 2, 1000, 50, 10, 1e-5, 30, None, 70, 1),
    ("tinyimagenet", 1): _Row(40, 2, 1000, 10000, 10, 1e-4, 0, 15, 20, 2000),
    ("tinyimagenet", 10): _Row(40, 2, 500, 100, 10, 1e-4, 10, None, 50, 1),
    ("tinyimagenet", 50): _Row(20, 2, 1000, 100, 10, 1e-4, 40, None, 70, 1),
    ("digits", 1): _Row(10, 4, 10, 30, 5, 1e-4, 0, 4, 8, 50, threshold=1.2, lr_teacher=0.05),
    ("digits", 10): _Row(10, 4, 50, 30, 5, 1e-4, 0, 4, 8, 50, threshold=1.2, lr_teacher=0.05),
}


def datm(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return DATM's setting for a data set, an IPC and the noise."""
    row, which = nearest_setting(_TABLE, dataset, ipc, "cifar10")
    digits = dataset == "digits"
    source = DIGITS_SOURCE if digits else SOURCE
    params: dict[str, Any] = dict(vars(row)) | {"iterations": 100 if digits else 10000}
    changes = _noisy_changes(dataset, ipc, noise)
    if changes:
        params |= changes
        source = f"{source}; {', '.join(changes)} after the {NOISY_SOURCE}"
    augment = None if digits else DSA
    return Recipe(
        params=params,
        network=backbone(dataset),
        zca=not digits,
        augment=augment,
        evaluation=EvalRecipe(epochs=300 if digits else 1001, batch_size=128, augment=augment),
        experts=ExpertRecipe(
            network=backbone(dataset),
            epochs=16 if digits else 100,
            batch_size=64 if digits else 256,
            augment=augment,
            optimizer="gsam",
            rho=0.01,
            alpha=0.3,
        ),
        num_experts=10 if digits else 100,
        source=f"{source}: {which}",
    )


@dataclass(frozen=True)
class _Change:
    """A change of the noisy benchmark's configuration files to the clean settings, and where it is made."""

    dataset: str
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    params: dict[str, Any]
    rates: tuple[float, float] = (0.0, 1.0)
    """Noise rates from the first up to, without it, the second. The files are those of 0.2, 0.4, 0.6 and 0.8; a rate
    between two of them follows the lower."""


_BOTH = ("symmetric", "asymmetric")
_REAL = {"pix_init": "real"}
_CHANGES = (
    _Change("cifar10", _BOTH, (1, 10, 50), {"lr_teacher": 0.001}),
    _Change("cifar10", ("symmetric",), (10,), {"lr_lr": 1e-6}, (0.8, 1.0)),
    _Change("cifar10", ("asymmetric",), (10, 50), {"lr_lr": 1e-6}, (0.8, 1.0)),
    _Change("cifar10", ("symmetric",), (1000,), {"iterations": 6000}),
    _Change("cifar10", ("symmetric",), (1000,), {"lr_teacher": 0.008}, (0.4, 0.6)),
    _Change("cifar10", ("symmetric",), (1000,), {"lr_teacher": 0.005} | _REAL, (0.8, 1.0)),
    _Change("cifar10", ("asymmetric",), (1000,), {"iterations": 6000}, (0.0, 0.6)),
    _Change("cifar10", ("asymmetric",), (1000,), _REAL, (0.8, 1.0)),
    _Change("cifar10", ("worse",), (10,), {"lr_teacher": 0.001}),
    _Change("cifar100", ("symmetric",), (100,), _REAL, (0.4, 1.0)),
    _Change("cifar100", ("asymmetric",), (100,), _REAL, (0.6, 1.0)),
    _Change("tinyimagenet", ("symmetric",), (50,), _REAL, (0.4, 1.0)),
)


def _noisy_changes(dataset: str, ipc: int, noise: NoiseConfig) -> dict[str, Any]:
    """Return what the noisy benchmark changed in the clean setting that is nearest to a data set and IPC."""
    nearest = nearest_key(_TABLE, dataset, ipc, "cifar10")
    kind, rate = noise.labels or noise.kind, noise.rate if noise.rate is not None else 0.0
    params: dict[str, Any] = {}
    for change in _CHANGES:
        low, high = change.rates
        if change.dataset == dataset and nearest[1] in change.sizes and kind in change.kinds and low <= rate < high:
            params |= change.params
    return params
