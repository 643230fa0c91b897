"""A copy of the studies for Optuna's own tools; the sweep never reads it back."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ddnl_ray.sweep.ledger import Ledger, trial_name
from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.sweep.search import ended_trial

JOURNAL = "studies.journal"


def mirror(plan: Plan, ledger: Ledger) -> None:
    """Add what has finished to ``studies.journal``, one study per cell; what is there already is left as it is.

    Open it with ``optuna-dashboard RUN/studies.journal``. A journal that a killed driver left with half a line is made
    again.
    """
    cells = [cell for cell in plan.cells if cell.space]
    if not cells:
        return
    journal = ledger.run / JOURNAL
    with suppress(FileNotFoundError):
        ledger.folder.fetch(JOURNAL)
    try:
        _add(cells, ledger, journal)
    except json.JSONDecodeError:
        journal.unlink()
        _add(cells, ledger, journal)
    ledger.folder.publish(JOURNAL)


def _add(cells: list[Cell], ledger: Ledger, journal: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    finished = ledger.finished()
    for cell in cells:
        study = optuna.create_study(study_name=cell.name, storage=storage, direction="maximize", load_if_exists=True)
        there = {trial.user_attrs.get("trial") for trial in study.get_trials(deepcopy=False)}
        for number in range(cell.trials):
            name = trial_name(cell.name, number)
            if name in finished and name not in there:
                result = finished[name]
                params = {key: result.params[key] for key in cell.space}
                about = {"trial": name, "outcome": str(result.outcome)}
                study.add_trial(ended_trial(cell.space, params, result.value, about))
