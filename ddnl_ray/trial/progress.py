"""What a trial's checkpoint holds beside the tensors of its state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Look:
    """One look at the selection split while distilling."""

    iteration: int
    accuracy: float
    loss: float


@dataclass
class Progress:
    """How far a trial is.

    Attributes:
        looks: Looks at the selection split so far.
        scores: Scores of the evaluations so far, by set, network and repeat.
        rejected: Updates refused in a row.
        accepted: Updates accepted in all.
        last_loss: Loss of the last step.
        wall_s: Seconds spent before this process.
        smaller: How often memory ran out.
        trust: How right the method's choice was at each of its refreshes, where it makes one and the truth is known.
        refreshes: Refreshes of that choice so far.
    """

    looks: list[Look] = field(default_factory=list)
    scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rejected: int = 0
    accepted: int = 0
    last_loss: float = 0.0
    wall_s: float = 0.0
    smaller: int = 0
    trust: list[dict[str, Any]] = field(default_factory=list)
    refreshes: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the values as JSON knows them."""
        return {**dataclasses.asdict(self), "last_loss": repr(self.last_loss)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Progress:
        """Return what :meth:`as_json` gave."""
        looks = [Look(**look) for look in value["looks"]]
        return cls(**{**value, "looks": looks, "last_loss": float(value["last_loss"])})

    def note(self) -> str:
        """Return a sentence on how the trial had to be made smaller; empty where it had not."""
        if not self.smaller:
            return ""
        return (
            f"Memory ran out {self.smaller} times: it went on without kept tapes, in parts of "
            f"1/{4**self.smaller} of the size."
        )
