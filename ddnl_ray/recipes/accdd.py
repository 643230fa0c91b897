"""Settings of Acc-DD on IDC: the authors' command line, and their pretraining script for the networks."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import Recipe, idc_experts, idc_recipe, is_digits

SOURCE = (
    "Acc-DD (Zhang et al. 2023), authors' command line; 5 networks of 2 epochs each; 500 times one of them, perturbed, "
    "serves 100 updates"
)


def accdd(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return Acc-DD's setting; it has none that depends on the IPC (the learning rate grows with it) or the noise."""
    digits = is_digits(dataset)
    params: dict[str, Any] = {"iterations": 50_000, "inner_loop": 100}
    if digits:
        params = {"iterations": 200, "inner_loop": 20, "batch_real": 32, "n_data": 128, "match_augment": None}
        params |= {"train_augment": None, "cutmix": 0.0, "lr_img": 3.0, "factor": 1}
    experts = idc_experts(dataset, epochs=2, schedule_epochs=3, augment="diffaug:flip_color_crop_scale_rotate")
    return idc_recipe(dataset, params, experts, SOURCE, eval_epochs=1000)
