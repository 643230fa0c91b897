"""Distillation methods: one file each, behind ``init -> step -> export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddnl_ray.distill.accdd import Accdd, AccddConfig
from ddnl_ray.distill.att import Att, AttConfig
from ddnl_ray.distill.base import Auxiliary, Choice, Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.coresets import Full, FullConfig, Random, RandomConfig
from ddnl_ray.distill.dance import Dance, DanceConfig
from ddnl_ray.distill.datm import Datm, DatmConfig
from ddnl_ray.distill.dm import Dm, DmConfig
from ddnl_ray.distill.dsa import GradientMatching, GradientMatchingConfig
from ddnl_ray.distill.ftd import Ftd, FtdConfig
from ddnl_ray.distill.idm import Idm, IdmConfig
from ddnl_ray.distill.mtt import Mtt, MttConfig
from ddnl_ray.distill.rcig import Rcig
from ddnl_ray.distill.rcig_config import RcigConfig
from ddnl_ray.distill.tesla import Tesla, TeslaConfig

__all__ = ["METHODS", "Auxiliary", "Choice", "Distilled", "Method", "MethodKind", "Problem", "State", "StepInfo"]


@dataclass(frozen=True)
class MethodKind:
    """A method and its configuration class, as the recipes and the command line find them by name."""

    method: type[Method[Any]]
    config: type[Any]


METHODS: dict[str, MethodKind] = {
    "mtt": MethodKind(Mtt, MttConfig),
    "ftd": MethodKind(Ftd, FtdConfig),
    "att": MethodKind(Att, AttConfig),
    "tesla": MethodKind(Tesla, TeslaConfig),
    "datm": MethodKind(Datm, DatmConfig),
    "dm": MethodKind(Dm, DmConfig),
    "idm": MethodKind(Idm, IdmConfig),
    "dance": MethodKind(Dance, DanceConfig),
    "dsa": MethodKind(GradientMatching, GradientMatchingConfig),
    "accdd": MethodKind(Accdd, AccddConfig),
    "rcig": MethodKind(Rcig, RcigConfig),
    "random": MethodKind(Random, RandomConfig),
    "full": MethodKind(Full, FullConfig),
}
