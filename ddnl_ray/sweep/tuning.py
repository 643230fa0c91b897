"""Ray Tune's view of a sweep: a searcher that hands out the trials of all studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

if TYPE_CHECKING:
    from ddnl_ray.sweep.driver import Execution


class CellSearcher(Searcher):  # type: ignore[misc]
    """Asks the studies for the next trial.

    Args:
        execution: The sweep in execution; it is left out of Tune's snapshots, because the ledger is the truth.
    """

    def __init__(self, execution: Execution) -> None:
        super().__init__(metric="value", mode="max")
        self.execution: Execution | None = execution

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next trial, None where none is ready, or FINISHED."""
        assert self.execution is not None
        if self.execution.is_over:
            return str(Searcher.FINISHED)
        return self.execution.start(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on that a trial ended."""
        assert self.execution is not None
        self.execution.end(trial_id, error)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: a sweep is continued from its ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "execution": None}
