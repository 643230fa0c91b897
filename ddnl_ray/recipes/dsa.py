"""Settings of gradient matching: the authors' table of network lives by IPC."""

from __future__ import annotations

from typing import Any

from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes.base import Recipe, dc_recipe, is_digits, nearest_setting

SOURCE = "DSA (Zhao and Bilen 2021), authors' command line"
NETWORKS = 1000
"""Networks in a run; each lives ``outer`` updates of the images."""

_LOOPS: dict[tuple[str, int], tuple[int, int]] = {
    ("all", 1): (1, 1),
    ("all", 10): (10, 50),
    ("all", 20): (20, 25),
    ("all", 30): (30, 20),
    ("all", 40): (40, 15),
    ("all", 50): (50, 10),
    ("all", 100): (100, 2),
}


def dsa(dataset: str, ipc: int, noise: NoiseConfig) -> Recipe:
    """Return DSA's setting for an IPC; above 50 the original has none (100: its authors' advice)."""
    if is_digits(dataset):
        outer, inner = (1, 1) if ipc == 1 else (10, 5)
        params: dict[str, Any] = {"iterations": 200, "outer": outer, "inner": inner, "lr_img": 1.0, "batch_real": 64}
        return dc_recipe(dataset, params)
    (outer, inner), which = nearest_setting(_LOOPS, "all", ipc, "all")
    params = {"iterations": NETWORKS * outer, "outer": outer, "inner": inner, "lr_img": 0.1, "batch_real": 256}
    return dc_recipe(dataset, params, f"{SOURCE}: {which}")
