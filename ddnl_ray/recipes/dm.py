"""DM's settings: its authors' command line."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import Recipe, dc_recipe, is_digits

SOURCE = "DM (Zhao and Bilen 2023), authors' command line"


def dm(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return DM's setting for a data set and IPC; it has none that depends on the noise."""
    if is_digits(dataset):
        params: dict[str, Any] = {"iterations": 300, "lr_img": 3.0, "batch_real": 64}
        return dc_recipe(dataset, params)
    params = {"iterations": 20_000, "lr_img": 10.0 if ipc >= 100 else 1.0, "batch_real": 256}
    return dc_recipe(dataset, params, SOURCE)
