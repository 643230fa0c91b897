"""Cleaners of labels, for two-stage rivals: labels first, then distillation as if they were right.

``clean(build_cleaner("dividemix", settings), problem, seed)`` gives :class:`Cleaned`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ddnl_ray.denoise.base import (
    Cleaned,
    Cleaner,
    CleanerConfig,
    Epoch,
    Known,
    Problem,
    clean,
)
from ddnl_ray.denoise.c2d import C2D, C2dConfig
from ddnl_ray.denoise.confident import Confident, ConfidentConfig
from ddnl_ray.denoise.coteaching import Coteaching, CoteachingConfig
from ddnl_ray.denoise.dividemix import DivideMix, DivideMixConfig
from ddnl_ray.denoise.knn import Knn, KnnConfig
from ddnl_ray.denoise.l2b import L2B, L2bConfig
from ddnl_ray.denoise.lossmix import Lossmix, LossmixConfig
from ddnl_ray.denoise.networks import predict
from ddnl_ray.errors import RequestError, nearest, require_known

CLEANERS: dict[str, tuple[type[Cleaner[Any]], type[CleanerConfig]]] = {
    "dividemix": (DivideMix, DivideMixConfig),
    "c2d": (C2D, C2dConfig),
    "l2b": (L2B, L2bConfig),
    "coteaching": (Coteaching, CoteachingConfig),
    "confident": (Confident, ConfidentConfig),
    "lossmix": (Lossmix, LossmixConfig),
    "knn": (Knn, KnnConfig),
}


def build_cleaner(name: str, settings: Mapping[str, Any]) -> Cleaner[Any]:
    """Return a cleaner by its name.

    Args:
        name: One of :data:`CLEANERS`.
        settings: Its settings by name; others have their defaults.

    Raises:
        RequestError: The name or a setting is unknown, or a value is out of range.
    """
    require_known("cleaner", name, CLEANERS)
    method, config = CLEANERS[name]
    fields = {field.name: field for field in dataclasses.fields(config)}
    for key in settings:
        if key not in fields:
            raise RequestError(f"{name} has no setting {key!r}: {nearest(key, fields)}")
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in settings:
            raise RequestError(f"{name} needs {key}; set it, or take the recipe's")
    return method(config(**settings))


__all__ = [
    "CLEANERS",
    "C2dConfig",
    "Cleaned",
    "Cleaner",
    "CleanerConfig",
    "ConfidentConfig",
    "CoteachingConfig",
    "DivideMixConfig",
    "Epoch",
    "KnnConfig",
    "Known",
    "L2bConfig",
    "LossmixConfig",
    "Problem",
    "build_cleaner",
    "clean",
    "predict",
]
