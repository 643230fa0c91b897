"""Every setting from which a sweep starts, with its source: published, a data set's own, or a default."""

from __future__ import annotations

import dataclasses
from typing import Any

from ddnl_ray.data import BENCHMARKS
from ddnl_ray.denoise import CLEANERS
from ddnl_ray.distill import METHODS
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, extractor_of, part_settings
from ddnl_ray.recipes.denoise import cleaner_recipe
from ddnl_ray.robust import compose
from ddnl_ray.robust.composition import ROBUST

Row = dict[str, Any]
"""``name``, ``value`` and ``source`` of a setting."""


def settings_of(method: str, dataset: str, ipc: int, noise: str = "none") -> list[Row]:
    """Return every setting of a method, with its source.

    Args:
        method: A name of :data:`ddnl_ray.robust.NAMES`, perhaps behind a cleaner (``dividemix>datm``).
        dataset: A benchmark, ``folder`` or ``parquet``.
        ipc: Images per class; ``full`` has none, and leaves it out.
        noise: ``KIND:RATE``, ``natural:LABELS`` or ``none``.

    Raises:
        RequestError: A name is unknown (the message has the nearest one), or a number is out of range.
    """
    *cleaners, distiller = method.split(">")
    composition = compose(distiller)
    require_known("data set", dataset, [*BENCHMARKS, "folder", "parquet"])
    if ipc < 1:
        raise RequestError(f"IPC must be at least 1, but got {ipc}")
    config = read_noise(noise)
    recipe = RECIPES[composition.base](dataset, ipc, config)
    rows = [row for name in cleaners for row in _cleaner(name, dataset, config)]
    own: dict[str, Any] = {}
    for part in composition.configs:
        own |= part_settings(part, composition.base, dataset, config)
    settings = composition.settings({**recipe.params, **own})
    for name in composition.types:
        part = name.partition(".")[0] if "." in name else ""
        owner = ROBUST[part] if part else METHODS[composition.base].config
        source = f"default of {owner.__name__} ({owner.__module__})"
        if name in own:
            source = f"ours for {dataset} (ddnl_ray.recipes)"
        elif name in recipe.params:
            source = recipe.source
        rows.append(_row(name if part else f"{composition.base}.{name}", settings.value(name), source))
    rows += [
        _row("model.name", recipe.network.name, recipe.source),
        _row("model.width", recipe.network.width, recipe.source),
        _row("data.zca", recipe.zca, recipe.source),
        _row("augment", recipe.augment, recipe.source),
        *_fields("evaluate", recipe.evaluation, recipe.source),
    ]
    if recipe.experts is not None:
        rows.append(_row("budget.experts", recipe.num_experts, recipe.source))
        rows += _fields("experts", recipe.experts, recipe.source)
    if "tad" in settings.parts and settings.parts["tad"].features == "simclr":
        rows += _fields("extractor", extractor_of(dataset), f"ours for {dataset} (ddnl_ray.recipes)")
    return rows


def read_noise(text: str) -> NoiseConfig:
    """Return the noise that ``KIND:RATE`` (or ``natural:LABELS``) names.

    Raises:
        RequestError: It names none.
    """
    kind, _, value = text.partition(":")
    if kind == "natural":
        return NoiseConfig(kind, labels=value or None)
    try:
        rate = float(value) if value else None
    except ValueError as error:
        raise RequestError(f"--noise needs KIND:RATE, as in symmetric:0.4, but got {text!r}") from error
    return NoiseConfig(kind, rate)


def _cleaner(name: str, dataset: str, noise: NoiseConfig) -> list[Row]:
    """Return the settings of a cleaner."""
    recipe = cleaner_recipe(name, dataset, noise)
    config = CLEANERS[name][1]
    default = f"default of {config.__name__} ({config.__module__})"
    values = dataclasses.asdict(config(**recipe.settings))
    return [
        *(
            _row(f"{name}.{key}", value, recipe.source if key in recipe.settings else default)
            for key, value in values.items()
        ),
        _row(f"{name}: network", recipe.network.name, recipe.source),
        _row(f"{name}: flip", recipe.flip, recipe.source),
        *(_fields(f"{name}: extractor", recipe.extractor, recipe.source) if recipe.extractor is not None else []),
    ]


def _fields(prefix: str, config: Any, source: str) -> list[Row]:
    """Return the fields of a configuration; what is at its default has that as its source."""
    rows = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kind = type(config)
        default = value == field.default and f"default of {kind.__name__} ({kind.__module__})"
        rows.append(_row(f"{prefix}.{field.name}", value, default or source))
    return rows


def _row(name: str, value: Any, source: str) -> Row:
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return {"name": name, "value": plain, "source": source}
