"""Settings of the baselines: a random coreset, and the whole noisy set trained until it is memorised."""

from __future__ import annotations

from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import DSA, Recipe, backbone


def random(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return the evaluation of a random coreset: the protocol of the distilled sets at the usual step size."""
    digits = dataset == "digits"
    augment = None if digits else DSA
    return Recipe(
        params={},
        network=backbone(dataset),
        zca=not digits,
        augment=augment,
        evaluation=EvalRecipe(epochs=300 if digits else 1001, lr=0.01, augment=augment),
        source="protocol of the MTT code base at its default step size",
    )


def full(dataset: str, ipc: int | None, noise: NoiseConfig) -> Recipe:
    """Return the training on the whole noisy set, scored at every epoch on the selection split.

    The papers do not say how long theirs is.
    """
    digits = dataset == "digits"
    augment = None if digits else DSA
    epochs = 60 if digits else 100
    return Recipe(
        params={},
        network=backbone(dataset),
        zca=not digits,
        augment=augment,
        evaluation=EvalRecipe(
            epochs=epochs,
            lr=0.02 if digits else 0.01,
            batch_size=64 if digits else 256,
            augment=augment,
            checkpoints=epochs,
        ),
        source="ours: the papers print no recipe for it",
    )
