"""What makes a trajectory method trust the right samples: TAD, SGR and TIAT, as policies over experts and targets."""

from ddnl_ray.robust.composition import BASES, NAMES, Composition, compose, nearest_method
from ddnl_ray.robust.derived import Derived, Inputs
from ddnl_ray.robust.outcome import Trusted, describe_choice, describe_trust, trusted
from ddnl_ray.robust.preparation import LATE, Preparation, Setting, build_buffer, prepare

__all__ = [
    "BASES",
    "LATE",
    "NAMES",
    "Composition",
    "Derived",
    "Inputs",
    "Preparation",
    "Setting",
    "Trusted",
    "build_buffer",
    "compose",
    "describe_choice",
    "describe_trust",
    "nearest_method",
    "prepare",
    "trusted",
]
