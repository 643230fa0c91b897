"""Composed methods by name: a distiller and what makes it trust the right samples (``datm+sgr+tiat``, ``idm+rdc``)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from ddnl_ray.distill import METHODS, Method, MethodKind
from ddnl_ray.errors import RequestError
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


@dataclass(frozen=True)
class Composition:
    """A method taken apart.

    Attributes:
        base: A name of :data:`ddnl_ray.distill.METHODS`.
        parts: Names of :data:`ROBUST`; () for a plain method.
    """

    base: str
    parts: tuple[str, ...] = ()

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
        """What the result table calls the parts: ``none``, ``tad``, ``sgr_tiat``, ..."""
        return "_".join(self.parts) or "none"

    @property
    def configs(self) -> tuple[str, ...]:
        """The parts that have settings: TIAT alone takes the scores of SGR, and so its settings."""
        return ("sgr", "tiat") if self.parts == ("tiat",) else self.parts

    @property
    def types(self) -> dict[str, Any]:
        """The type of every setting: those of the base by name, those of the parts with their prefix."""
        types = dict(_types(METHODS[self.base].config))
        for part in self.configs:
            types |= {f"{part}.{name}": kind for name, kind in _types(ROBUST[part]).items()}
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
                parts[part] = ROBUST[part](**values)
            except RequestError as error:
                raise RequestError(f"{part}: {error}") from error
        return Settings(METHODS[self.base].config(**own), parts)


@dataclass(frozen=True)
class Settings:
    """The configurations of a composed method.

    Attributes:
        base: The base method's.
        parts: Those of the parts, by name.
    """

    base: Any
    parts: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """Return a setting by its name in :attr:`Composition.types`."""
        part, dot, field = name.partition(".")
        return getattr(self.parts[part], field) if dot else getattr(self.base, name)


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
        f"{', '.join(ON_NETWORKS)} also with +rdc"
    )


def compose(name: str) -> Composition:
    """Take a method's name apart.

    Raises:
        RequestError: The name is unknown.
    """
    if name not in NAMES:
        raise RequestError(f"unknown method {name!r}: {nearest_method(name)}")
    base, *parts = name.split("+")
    return Composition(base, tuple(parts))
