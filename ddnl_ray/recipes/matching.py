"""What the recipes of MTT and of the methods that descend from it share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.recipes.base import DSA, Recipe, backbone


def matching_recipe(dataset: str, setting: Mapping[str, Any], source: str, **experts: Any) -> Recipe:
    """Return a recipe with the experts and the evaluation of the MTT code base.

    Args:
        dataset: The data set; digits are small and are not augmented.
        setting: Hyper-parameters of the method, and ``zca``.
        source: Where they come from.
        **experts: What the method's experts have that MTT's do not.
    """
    digits = dataset == "digits"
    network, augment = backbone(dataset), None if digits else DSA
    size = {"epochs": 16, "batch_size": 64} if digits else {"epochs": 50, "batch_size": 256}
    return Recipe(
        params={name: value for name, value in setting.items() if name != "zca"},
        network=network,
        zca=setting["zca"],
        augment=augment,
        evaluation=EvalRecipe(epochs=300 if digits else 1001, augment=augment),
        experts=ExpertRecipe(network=network, augment=augment, **(size | experts)),
        num_experts=10 if digits else 100,
        source=source,
    )
