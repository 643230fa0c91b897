"""What a rule says about a cluster file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ddnl_ray.sweep.cluster.document import ClusterFile

Severity: TypeAlias = Literal["fail", "warn"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: The rule's name.
        severity: ``fail``: do not start it; ``warn``: read it.
        place: The key, with dots and indices (``head_start_ray_commands[1]``).
        message: What is wrong, what was expected, and the next step.
    """

    rule: str
    severity: Severity
    place: str
    message: str


Rule: TypeAlias = Callable[[ClusterFile], Iterator[Finding]]
