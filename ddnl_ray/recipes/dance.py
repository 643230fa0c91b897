"""DANCE's settings: its authors' configuration files."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import Recipe, idc_experts, idc_recipe, is_digits

SOURCE = "DANCE (Zhang et al. 2024), authors' configuration files; 5 of their 20 networks, as their code uses"


def dance(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return DANCE's setting; it has none that depends on the IPC (the learning rate grows with it) or the noise."""
    digits = is_digits(dataset)
    params: dict[str, Any] = {"iterations": 10_000, "lr_img": 0.1, "batch_real": 128, "batch_syn_max": 200}
    if digits:
        params = {"iterations": 200, "lr_img": 0.5, "batch_real": 64, "match_augment": None, "factor": 1}
    epochs = 20 if digits else 60
    experts = idc_experts(dataset, epochs=epochs, schedule_epochs=epochs, augment="diffaug:color_crop")
    return idc_recipe(dataset, params, experts, SOURCE, eval_epochs=1500)
