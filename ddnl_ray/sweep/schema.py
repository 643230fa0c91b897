"""The sweep file: its keys, its defaults, and errors that name the key, the value and the nearest valid name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ddnl_ray.distill import METHODS
from ddnl_ray.errors import RequestError, nearest
from ddnl_ray.models import NETWORKS


class _Loader(yaml.SafeLoader):
    """The safe loader, but for numbers such as ``1e-4``, which YAML 1.1 reads as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

_UNION_TAGS = ("float", "str", "list[float]", "list[str]")
"""What pydantic adds to the place of an error in a field of several types."""


class _Section(BaseModel):
    """A closed, immutable section of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


GPU_EXPERTS = 8
"""Experts that train together on a GPU, where the file does not say."""


class DataSection(_Section):
    """Which images."""

    name: str = "digits"
    root: str | None = None
    labels: str | None = None
    size: int | None = None
    subset: int | None = None
    test_subset: int | None = None
    val_fraction: float = 0.1
    zca: bool | None = None
    split_seed: int = 0
    download: bool = False


class NoiseSection(_Section):
    """One or several noise settings of one kind: lists make one cell each."""

    kind: str = "none"
    rate: float | list[float] | None = None
    labels: str | list[str] | None = None
    map: str | None = None
    file: str | None = None


class GridSection(BaseModel):
    """Every combination is a cell; dotted keys (``datm.threshold``) are grid axes over a method's parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    noise: list[NoiseSection] = Field(default_factory=lambda: [NoiseSection()], min_length=1)
    method: list[str] = Field(min_length=1)
    ipc: list[int] = Field(default_factory=lambda: [10], min_length=1)
    noise_seed: list[int] = Field(default_factory=lambda: [0], min_length=1)
    seed: list[int] = Field(default_factory=lambda: [0], min_length=1)

    @property
    def parameters(self) -> dict[str, list[Any]]:
        """The dotted axes."""
        return dict(self.model_extra or {})


class SpaceSection(_Section):
    """The range of one searched parameter; exactly one key."""

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    int_uniform: tuple[int, int] | None = None
    choice: list[Any] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SpaceSection:
        given = {name: value for name, value in self if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"a range needs exactly one of {', '.join(type(self).model_fields)}, but got {list(given)}"
            )
        (name, value), *_ = given.items()
        if name == "choice":
            if not value:
                raise ValueError("choice needs at least one value")
        elif not value[0] < value[1]:
            raise ValueError(f"{name} needs low < high, but got {list(value)}")
        if name == "log_uniform" and value[0] <= 0:
            raise ValueError(f"log_uniform needs low > 0, but got {value[0]}")
        return self


class SearchSection(_Section):
    """One Optuna study per cell."""

    trials: int = Field(default=1, ge=1)
    space: dict[str, SpaceSection] = Field(default_factory=dict)
    select_on: Literal["val_noisy", "val_clean", "test"] = "val_noisy"
    sampler: Literal["tpe", "random"] = "tpe"
    parallel: int = Field(default=4, ge=1)


class TrainingSection(_Section):
    """Changes to how networks are trained when a set is evaluated; absent: the recipe's."""

    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    checkpoints: int | None = None


class FullSection(TrainingSection):
    """Training on the whole noisy set."""

    repeats: int = Field(default=1, ge=1)


class EvaluateSection(TrainingSection):
    """Which networks score a set, and how often."""

    networks: list[str] | None = None
    repeats: int = Field(default=5, ge=1)
    full: FullSection = FullSection()


class ExpertsSection(_Section):
    """Changes to how experts are trained; absent: the recipe's."""

    lr: float | None = None
    batch_size: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None
    rho: float | None = None
    alpha: float | None = None
    precision: str | None = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    at_once: int | None = Field(default=None, ge=1)

    def group_size(self, on_gpu: bool) -> int:
        """Return how many experts train together: by default as many as keep a GPU busy, and on a CPU one per core."""
        return self.at_once or (GPU_EXPERTS if on_gpu else 1)


class BudgetSection(_Section):
    """How much to spend; absent: the recipe's full size."""

    experts: int | None = Field(default=None, ge=1)
    expert_epochs: int | None = Field(default=None, ge=1)
    iterations: int | None = Field(default=None, ge=1)
    eval_epochs: int | None = Field(default=None, ge=1)
    full_epochs: int | None = Field(default=None, ge=1)
    eval_every: int = Field(default=0, ge=0)
    trial_seconds: float | None = Field(default=None, gt=0)
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    graph_memory_mb: int = Field(default=512, ge=0)


class ModelSection(_Section):
    """The backbone; absent: the recipe's."""

    name: str | None = None
    width: int | None = None


class ResourcesSection(_Section):
    """What one trial takes."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0)


class StopperSection(_Section):
    """Successive halving among the trials of one cell."""

    kind: Literal["asha"]
    grace: int = Field(ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class SweepFile(_Section):
    """A sweep as the user wrote it, with a profile and ``--set`` applied."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: DataSection = DataSection()
    grid: GridSection
    params: dict[str, Any] = Field(default_factory=dict)
    search: SearchSection = SearchSection()
    evaluate: EvaluateSection = EvaluateSection()
    experts: ExpertsSection = ExpertsSection()
    budget: BudgetSection = BudgetSection()
    model: ModelSection = ModelSection()
    resources: ResourcesSection = ResourcesSection()
    stopper: StopperSection | None = None


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
    for network in [sweep.model.name, *(sweep.evaluate.networks or [])]:
        if network is not None and network not in NETWORKS:
            raise RequestError(f"{origin}: unknown network {network!r}: {nearest(network, NETWORKS)}")
    return sweep


def _require_method(method: str, origin: str) -> None:
    if method in METHODS:
        return
    if "+" in method or ">" in method:
        raise RequestError(
            f"{origin}: grid.method: {method!r} combines methods, and none of the parts to combine is built in this "
            f"version; {nearest(method, METHODS)}"
        )
    raise RequestError(f"{origin}: grid.method: unknown method {method!r}: {nearest(method, METHODS)}")


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
