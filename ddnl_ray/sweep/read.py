"""Reading a sweep file: profiles, overrides, and errors that name the key, the value and the nearest valid name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ddnl_ray.errors import RequestError, nearest
from ddnl_ray.models import NETWORKS
from ddnl_ray.robust import compose
from ddnl_ray.sweep.schema import SweepFile


class _Loader(yaml.SafeLoader):
    """The safe loader, but for numbers such as ``1e-4``, which YAML 1.1 reads as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

_UNION_TAGS = ("float", "str", "list[float]", "list[str]")
"""What pydantic adds to the place of an error in a field of several types."""


def read_sweep(path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()) -> SweepFile:
    """Read a sweep file, apply a profile and ``key=value`` overrides, and validate the result.

    Raises:
        RequestError: The file, the profile or a key or value is wrong; the message names it.
    """
    if not path.is_file():
        raise RequestError(f"sweep file {path} does not exist; `sweeps/` holds the ones that ship with ddnl-ray")
    try:
        document = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise RequestError(f"{path} must hold a mapping with the keys {', '.join(SweepFile.model_fields)}")
    document = dict(document)
    profiles: Any = document.pop("profiles", None) or {}
    if not isinstance(profiles, dict) or not all(isinstance(changes, dict | None) for changes in profiles.values()):
        raise RequestError(f"{path}: profiles must map each name to a mapping of changes, but got {profiles!r}")
    if profile is not None:
        if profile not in profiles:
            known = nearest(profile, profiles) if profiles else "this file has none"
            raise RequestError(f"unknown profile {profile!r} in {path}: {known}")
        document = _merge(document, profiles[profile] or {})
    for override in overrides:
        document = _assign(document, override)
    return parse_sweep(document, str(path))


def parse_sweep(document: dict[str, Any], origin: str) -> SweepFile:
    """Validate a sweep document.

    Raises:
        RequestError: A key or value is wrong.
    """
    try:
        sweep = SweepFile.model_validate(document)
    except ValidationError as error:
        raise RequestError("\n".join(_explain(document, item, origin) for item in error.errors())) from error
    for method in sweep.grid.method:
        _require_method(method, origin)
    chosen = [sweep.model.name, sweep.extractor.network, sweep.cleaner.network]
    for network in [*chosen, *(sweep.evaluate.networks or [])]:
        if network is not None and network not in NETWORKS:
            raise RequestError(f"{origin}: unknown network {network!r}: {nearest(network, NETWORKS)}")
    return sweep


def _require_method(method: str, origin: str) -> None:
    try:
        compose(method)
    except RequestError as error:
        raise RequestError(f"{origin}: grid.method: {error}") from error


def _explain(document: dict[str, Any], item: Any, origin: str) -> str:
    """Return one sentence for one validation error."""
    where = [str(part) for part in item["loc"]]
    key = ".".join(part for part in where if part not in _UNION_TAGS or item["type"] == "extra_forbidden")
    if item["type"] == "extra_forbidden":
        known = _known_keys(where[:-1]) + (["profiles"] if len(where) == 1 else [])
        return f"{origin}: unknown key {key!r}: {nearest(where[-1], known)}"
    if item["type"] == "missing":
        return f"{origin}: the key {key!r} is missing"
    if item["type"] == "value_error":
        return f"{origin}: {key}: {item['msg'].removeprefix('Value error, ')}"
    return f"{origin}: {key}: {item['msg']}, but got {item['input']!r}"


def _known_keys(where: list[str]) -> list[str]:
    """Return the keys of the section at a place of the file."""
    section: Any = SweepFile
    for part in where:
        fields = getattr(section, "model_fields", {})
        if part in fields:
            section = _section_of(fields[part].annotation)
    return sorted(getattr(section, "model_fields", {}))


def _section_of(annotation: Any) -> Any:
    """Return the section class inside an annotation such as ``list[NoiseSection]`` or ``StopperSection | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_of(inner)
        if found is not None:
            return found
    return None


def _merge(base: dict[str, Any], changes: dict[str, Any], where: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping.

    Lists and values are replaced, and so are the ranges of ``search.space``, which have one key each; an empty mapping
    empties.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value and where != ("search", "space"):
            value = _merge(old, value, (*where, key))
        merged[key] = value
    return merged


def _assign(document: dict[str, Any], override: str) -> dict[str, Any]:
    """Return the document with one ``key=value`` applied; the value is read as YAML.

    The first parts of the key name sections; a parameter keeps its dot (``params.datm.lr_img=10``).
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RequestError(f"--set needs key=value, but got {override!r}; for example --set budget.iterations=100")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"--set {key}: {text!r} is not a YAML value") from error
    parts = key.split(".")
    if (parts[0] == "params" and len(parts) > 1) or (parts[0] == "grid" and len(parts) == 3):
        parts = [parts[0], ".".join(parts[1:])]
    elif parts[:2] == ["search", "space"] and len(parts) > 2:
        parts = ["search", "space", ".".join(parts[2:])]
    change: dict[str, Any] = {parts[-1]: value}
    for part in reversed(parts[:-1]):
        change = {part: change}
    return _merge(document, change)
