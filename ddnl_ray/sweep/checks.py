"""What can be said of a sweep's parameters before its cells are made: names, types and ranges."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ddnl_ray.data import Dataset
from ddnl_ray.errors import RequestError, nearest
from ddnl_ray.robust import compose
from ddnl_ray.sweep.schema import SpaceSection, SweepFile
from ddnl_ray.trial import TrialConfig

MAX_CORNERS = 10_000
"""Corners of a search space that are tried against the method's own rules."""


def check_parameter_names(sweep: SweepFile) -> None:
    """Check that every dotted name is a parameter of a chosen method, and that none is both fixed and searched.

    Raises:
        RequestError: A name is unknown or set twice, or a grid axis is not a list.
    """
    places = {"params": sweep.params, "search.space": sweep.search.space, "grid": sweep.grid.parameters}
    known = list(dict.fromkeys(name for method in sweep.grid.method for name in compose(method).parameters))
    seen: dict[str, str] = {}
    for place, names in places.items():
        for name in names:
            if name not in known:
                problem = "no chosen method has it" if "." in name or place != "grid" else "unknown key"
                options = known if place != "grid" or "." in name else [*type(sweep.grid).model_fields, *known]
                hint = nearest(name, options) if options else "the chosen methods have none"
                raise RequestError(f"{place}.{name}: {problem}: {hint}")
            if name in seen:
                raise RequestError(f"{name} is set in {seen[name]} and in {place}; keep one of them")
            seen[name] = place
    for name, values in sweep.grid.parameters.items():
        if not isinstance(values, list) or not values:
            raise RequestError(f"grid.{name} needs a list of values, but got {values!r}")


def check_selection(sweep: SweepFile, dataset: Dataset) -> None:
    """Check that the data have the split that chooses.

    Raises:
        RequestError: There is no validation part, or its true labels are unknown.
    """
    chosen = sweep.search.select_on
    if chosen != "test" and sweep.data.val_fraction == 0:
        raise RequestError(f"search.select_on is {chosen!r}, but data.val_fraction is 0; set it above 0")
    if chosen == "val_clean" and dataset.clean_labels is None:
        raise RequestError("search.select_on is 'val_clean', but the true labels are unknown; use val_noisy")


def check_values(sweep: SweepFile, config: TrialConfig) -> None:
    """Check that the parameters of a cell, and the ranges of those that are searched, have the right type.

    Raises:
        RequestError: A value has another type, or is not finite.
    """
    composition, types = compose(config.method), _validators(config.method)
    space = composition.own(sweep.search.space)
    values = [(name, value) for name, value in config.params.items() if name not in space]
    values += [(name, value) for name, item in space.items() for value in ends(item)]
    for name, value in values:
        full = name if "." in name else f"{composition.base}.{name}"
        try:
            types[name].validate_python(tuple(value) if isinstance(value, list) else value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise RequestError(f"{full}: {reason}, but got {value!r}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{full} must be finite, but got {value}")


@functools.cache
def _validators(method: str) -> dict[str, TypeAdapter[Any]]:
    """Return a validator for the type of every parameter of a method."""
    return {name: TypeAdapter(kind) for name, kind in compose(method).types.items()}


def ends(space: SpaceSection) -> list[Any]:
    """Return the ends of a range, or every choice."""
    return list(space.uniform or space.log_uniform or space.int_uniform or space.choice or [])


def corners(space: Mapping[str, SpaceSection]) -> Iterator[dict[str, Any]]:
    """Yield the corners of a search space; of a very large one the first ten thousand."""
    for values in itertools.islice(itertools.product(*map(ends, space.values())), MAX_CORNERS):
        yield dict(zip(space, values, strict=True))
