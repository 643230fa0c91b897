"""Composed methods by name.

A distiller and what makes it trust the right samples (``datm+sgr+tiat``, ``idm+rdc``), or a cleaner of labels and the
distiller that then takes its labels for right (``dividemix>datm``), which TAD (Wu et al. 2025) calls two-stage.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from ddnl_ray.denoise import CLEANERS
from ddnl_ray.distill import METHODS, Method, MethodKind
from ddnl_ray.errors import RequestError, nearest
from ddnl_ray.robust.rdc_accdd import RdcAccdd, RdcAccddConfig
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.rdc_idm import RdcIdm, RdcIdmConfig
from ddnl_ray.robust.sgr import SgrConfig
from ddnl_ray.robust.tad import TadConfig
from ddnl_ray.robust.tiat import TiatConfig

ROBUST: dict[str, type[Any]] = {"tad": TadConfig, "sgr": SgrConfig, "tiat": TiatConfig, "rdc": RdcConfig}
ON_EXPERTS = (("tad",), ("sgr",), ("tiat",), ("sgr", "tiat"), ("rdc",))
"""The parts that may be added to a trajectory method, in the order of their names: they act on its experts."""
ON_NETWORKS: dict[str, MethodKind] = {
    "idm": MethodKind(RdcIdm, RdcIdmConfig),
    "accdd": MethodKind(RdcAccdd, RdcAccddConfig),
}
"""What ``+rdc`` makes of a method whose own networks it teaches."""

BASES = tuple(name for name, kind in METHODS.items() if kind.method.matches_trajectories)
COMPOSED = (
    *("+".join((base, *parts)) for base in BASES for parts in ON_EXPERTS),
    *(f"{base}+rdc" for base in ON_NETWORKS),
)
NAMES = (*METHODS, *COMPOSED)
"""All but the two-stage ones: each of :data:`ddnl_ray.distill.METHODS` may follow each of
:data:`ddnl_ray.denoise.CLEANERS`."""

STAGES = ">"
"""Between a cleaner and a distiller."""
_PUBLISHED_VARIANTS = {"c2d": "c2d", "l2b": "l2b_dividemix"}
"""What the published tables call a two-stage variant, where it is not ``two_stage_*``."""


@dataclass(frozen=True)
class Composition:
    """A method taken apart.

    Attributes:
        base: A name of :data:`ddnl_ray.distill.METHODS`.
        parts: Names of :data:`ROBUST`; () for a plain method.
        cleaner: A name of :data:`ddnl_ray.denoise.CLEANERS`, whose labels the method takes for right; None: it gets the
            observed ones.
    """

    base: str
    parts: tuple[str, ...] = ()
    cleaner: str | None = None

    @property
    def kind(self) -> MethodKind:
        """The class that distils, and that of its configuration."""
        return ON_NETWORKS[self.base] if self._on_networks else METHODS[self.base]

    @property
    def on_experts(self) -> bool:
        """Whether the parts act on what trains experts, and not on networks of the method's own."""
        return bool(self.parts) and not self._on_networks

    @property
    def _on_networks(self) -> bool:
        return "rdc" in self.parts and self.base in ON_NETWORKS

    def method(self, params: Mapping[str, Any]) -> Method[Any]:
        """Return the method that distils, with its settings.

        Raises:
            RequestError: A value is out of its range.
        """
        settings = self.settings(params)
        if not self._on_networks:
            return self.kind.method(settings.base)
        values = dataclasses.asdict(settings.base)
        return self.kind.method(self.kind.config(**values, rdc=settings.parts["rdc"]))

    @property
    def variant(self) -> str:
        """What the result table calls the parts: ``none``, ``tad``, ``sgr_tiat``, ``two_stage_dividemix``, ..."""
        if self.cleaner is not None:
            return _PUBLISHED_VARIANTS.get(self.cleaner, f"two_stage_{self.cleaner}")
        return "_".join(self.parts) or "none"

    @property
    def configs(self) -> tuple[str, ...]:
        """What has settings: the parts (TIAT alone takes the scores of SGR, and so its settings), or the cleaner."""
        if self.cleaner is not None:
            return (self.cleaner,)
        return ("sgr", "tiat") if self.parts == ("tiat",) else self.parts

    @property
    def types(self) -> dict[str, Any]:
        """The type of every setting: those of the base by name, those of the parts with their prefix."""
        types = dict(_types(METHODS[self.base].config))
        for part in self.configs:
            types |= {f"{part}.{name}": kind for name, kind in _types(_config(part)).items()}
        return types

    @property
    def parameters(self) -> list[str]:
        """The names of all settings as a sweep file writes them: each with the prefix of its base or part."""
        return [name if "." in name else f"{self.base}.{name}" for name in self.types]

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of a sweep file's parameters that are settings of this method, by the names of :attr:`types`."""
        found = {}
        for name, value in values.items():
            prefix, _, rest = name.partition(".")
            if prefix == self.base:
                found[rest] = value
            elif prefix in self.configs:
                found[name] = value
        return found

    def settings(self, params: Mapping[str, Any]) -> Settings:
        """Return the configurations of the base and of the parts.

        Raises:
            RequestError: A value is out of its range; the message names the part.
        """
        own = {name: value for name, value in params.items() if "." not in name}
        parts = {}
        for part in self.configs:
            prefix = f"{part}."
            values = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
            try:
                parts[part] = _config(part)(**values)
            except RequestError as error:
                raise RequestError(f"{part}: {error}") from error
        return Settings(METHODS[self.base].config(**own), parts)


@dataclass(frozen=True)
class Settings:
    """The configurations of a composed method.

    Attributes:
        base: The base method's.
        parts: Those of the parts, or of the cleaner, by name.
    """

    base: Any
    parts: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """Return a setting by its name in :attr:`Composition.types`."""
        part, dot, field = name.partition(".")
        return getattr(self.parts[part], field) if dot else getattr(self.base, name)


def _config(part: str) -> type[Any]:
    """Return the configuration class of a part or a cleaner."""
    return ROBUST[part] if part in ROBUST else CLEANERS[part][1]


def _types(config: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def nearest_method(name: str) -> str:
    """Return a clause with the nearest name, the plain methods and what may be added to which."""
    close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    added = ", ".join("+" + "+".join(parts) for parts in ON_EXPERTS)
    return (
        f"{hint}Known: {', '.join(sorted(METHODS))}; {', '.join(BASES)} also with {added}; "
        f"{', '.join(ON_NETWORKS)} also with +rdc; the first also on cleaned labels, CLEANER>METHOD, with the cleaners "
        f"{', '.join(CLEANERS)}"
    )


def compose(name: str) -> Composition:
    """Take a method's name apart.

    Raises:
        RequestError: The name, or that of a cleaner, is unknown, or the two do not go together.
    """
    if STAGES in name:
        return _two_stage(name)
    if name not in NAMES:
        raise RequestError(f"unknown method {name!r}: {nearest_method(name)}")
    base, *parts = name.split("+")
    return Composition(base, tuple(parts))


def _two_stage(name: str) -> Composition:
    """Take a name apart that has a cleaner.

    Raises:
        RequestError: A name is unknown, or there are more stages than two, or the second chooses samples itself.
    """
    cleaner, *rest = name.split(STAGES)
    if len(rest) > 1:
        raise RequestError(
            f"method {name!r} has {len(rest) + 1} stages, but labels are cleaned once: write CLEANER>METHOD, such as "
            "'dividemix>datm'"
        )
    if cleaner not in CLEANERS:
        raise RequestError(f"unknown cleaner {cleaner!r} in method {name!r}: {nearest(cleaner, CLEANERS)}")
    (second,) = rest
    if second in COMPOSED:
        raise RequestError(
            f"method {name!r}: {second} decides itself which labels to trust, and does not go with cleaned ones; use "
            f"{cleaner}{STAGES}{second.partition('+')[0]}, or {second} alone"
        )
    if second not in METHODS:
        raise RequestError(f"unknown method {second!r} in {name!r}: {nearest(second, METHODS)}")
    return Composition(second, cleaner=cleaner)
