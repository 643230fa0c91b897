"""How a trial can end early, and what its rows say then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddnl_ray.results import Outcome


class End(Exception):
    """Ends a trial early with an outcome."""

    def __init__(self, outcome: Outcome, message: str = "") -> None:
        super().__init__(message)
        self.outcome, self.message = outcome, message or outcome.sentence


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def as_outcome(error: Exception, log: Path) -> dict[str, Any]:
    """Return outcome and message of an error."""
    if is_out_of_memory(error):
        return {"outcome": Outcome.OOM, "message": f"{Outcome.OOM.sentence} {str(error).split(chr(10))[0]}"}
    return {"outcome": Outcome.FAILED, "message": f"{type(error).__name__}: {error} (see {log})"}
