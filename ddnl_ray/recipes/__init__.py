"""Published settings per method, data set and IPC, each with its source: where a sweep starts before it overrides.

A recipe is a function of (data set, ipc, noise); a cell of a sweep is a recipe plus small overrides.
"""

from __future__ import annotations

from ddnl_ray.recipes.accdd import accdd
from ddnl_ray.recipes.att import att
from ddnl_ray.recipes.base import Recipe, extractor_of
from ddnl_ray.recipes.baselines import full, random
from ddnl_ray.recipes.dance import dance
from ddnl_ray.recipes.datm import datm
from ddnl_ray.recipes.denoise import cleaner_recipe
from ddnl_ray.recipes.dm import dm
from ddnl_ray.recipes.dsa import dsa
from ddnl_ray.recipes.ftd import ftd
from ddnl_ray.recipes.idm import idm
from ddnl_ray.recipes.mtt import mtt
from ddnl_ray.recipes.rcig import rcig
from ddnl_ray.recipes.robust import part_settings
from ddnl_ray.recipes.tesla import tesla

RECIPES = {
    "mtt": mtt,
    "ftd": ftd,
    "att": att,
    "tesla": tesla,
    "datm": datm,
    "dm": dm,
    "dsa": dsa,
    "idm": idm,
    "accdd": accdd,
    "dance": dance,
    "rcig": rcig,
    "random": random,
    "full": full,
}

__all__ = ["RECIPES", "Recipe", "cleaner_recipe", "extractor_of", "part_settings"]
