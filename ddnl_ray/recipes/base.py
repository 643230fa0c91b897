"""What a recipe holds, and how the nearest published setting is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ddnl_ray.data import Whitening
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec

DSA = "color_crop_cutout_flip_scale_rotate"
DIGITS_SOURCE = "tuned on val_noisy of digits"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a method on a data set at an IPC.

    Attributes:
        params: Hyper-parameters of the method.
        network: The backbone.
        zca: Whether the images are whitened, and how.
        augment: Augmentation of experts, student and evaluation, as :func:`ddnl_ray.data.augmentation` reads it.
        evaluation: How networks are trained on the result.
        experts: How experts are trained, for methods that match them.
        num_experts: How many.
        source: Where the numbers come from.
    """

    params: Mapping[str, Any]
    network: NetworkSpec
    zca: Whitening
    augment: str | None
    evaluation: EvalRecipe
    experts: ExpertRecipe | None = None
    num_experts: int = 0
    source: str


T = TypeVar("T")


def nearest_setting(table: Mapping[tuple[str, int], T], dataset: str, ipc: int, fallback: str) -> tuple[T, str]:
    """Return the setting of :func:`nearest_key`, and in words which one it is."""
    key = nearest_key(table, dataset, ipc, fallback)
    which = f"{key[0]} ipc {key[1]}"
    return table[key], which if key == (dataset, ipc) else f"{which} (nearest to {dataset} ipc {ipc})"


def nearest_key(table: Mapping[tuple[str, int], T], dataset: str, ipc: int, fallback: str) -> tuple[str, int]:
    """Return data set and IPC of the nearest setting of a table.

    It is that of the largest published IPC that is not above ``ipc``, else that of the smallest; a data set without
    settings takes those of ``fallback``.
    """
    name = dataset if any(key[0] == dataset for key in table) else fallback
    sizes = sorted(size for key, size in table if key == name)
    return name, max((size for size in sizes if size <= ipc), default=sizes[0])


def backbone(dataset: str) -> NetworkSpec:
    """Return the field's ConvNet for a data set: depth 4 at 64 pixels, 3 at 32; the digits of 8 pixels take 2."""
    if dataset == "digits":
        return NetworkSpec("convnet2", 32)
    return NetworkSpec("convnet4" if dataset == "tinyimagenet" else "convnet3")


def extractor_of(dataset: str) -> SimclrConfig:
    """Return how the extractor of a data set is trained: a ResNet-18 for 500 epochs, for digits a ConvNet for 30."""
    if is_digits(dataset):
        return SimclrConfig(network=backbone(dataset), epochs=30, batch_size=256, flip=False)
    return SimclrConfig()


def is_digits(dataset: str) -> bool:
    """Return whether the data set is the embedded digits, which are small, and are not augmented."""
    return dataset == "digits"


def dc_recipe(dataset: str, params: Mapping[str, Any], source: str = DIGITS_SOURCE) -> Recipe:
    """Return a recipe with the evaluation of the DC code base (DC, DSA, DM, IDM), at the learning rate 0.01.

    The images are normalised per channel; RDC's tables whiten them, which its sweeps say (``data.zca``).
    """
    digits = is_digits(dataset)
    augment = None if digits else DSA
    evaluation = EvalRecipe(epochs=300 if digits else 1001, lr=0.01, augment=augment)
    return Recipe(
        params=params, network=backbone(dataset), zca=False, augment=augment, evaluation=evaluation, source=source
    )


def idc_recipe(dataset: str, params: Mapping[str, Any], experts: ExpertRecipe, source: str, eval_epochs: int) -> Recipe:
    """Return a recipe with the evaluation of the IDC code base (IDC, Acc-DD, DANCE)."""
    evaluation = EvalRecipe(
        epochs=eval_epochs,
        batch_size=64,
        lr=0.01,
        augment="diffaug:flip_color_crop_scale_rotate",
        cutmix=0.5,
        schedule="thirds",
    )
    if is_digits(dataset):
        evaluation = EvalRecipe(epochs=300, batch_size=64, lr=0.01, augment=None, schedule="thirds")
        source = DIGITS_SOURCE
    return Recipe(
        params=params,
        network=backbone(dataset),
        zca=False,
        augment=None if is_digits(dataset) else DSA,
        evaluation=evaluation,
        experts=experts,
        num_experts=5,
        source=source,
    )


def idc_experts(dataset: str, epochs: int, schedule_epochs: int, augment: str) -> ExpertRecipe:
    """Return the pretraining of the IDC code base."""
    digits = is_digits(dataset)
    return ExpertRecipe(
        network=backbone(dataset),
        epochs=epochs,
        batch_size=64,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        augment=None if digits else augment,
        cutmix=0.0 if digits else 0.5,
        schedule="thirds",
        schedule_epochs=schedule_epochs,
    )
