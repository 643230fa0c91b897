"""How far a run is: read from its folder alone, so any shell can ask."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnl_ray.errors import RequestError
from ddnl_ray.files import read_json
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.results import Outcome
from ddnl_ray.storage import Folder
from ddnl_ray.sweep.ledger import LIVE, Finished, Ledger, trial_name
from ddnl_ray.sweep.memory import FILE, stores_text
from ddnl_ray.sweep.plan import Plan

OUT_OF_TIME = "out of time (run the same command again, with a larger budget, to continue)"
STRAGGLES = 3.0
"""A running trial straggles beyond so many times the median duration of its cell's trials."""


def begin(plan: Plan, ledger: Ledger) -> None:
    """Write ``summary.json`` and ``noise.json`` of a sweep that starts."""
    ledger.write("noise.json", [describe_noise(labels) for labels in plan.labels.values()])
    ledger.write_summary(
        {
            "run": plan.sweep.name,
            "state": "running",
            "select_on": plan.sweep.search.select_on,
            "cells": {cell.name: cell.trials for cell in plan.cells},
            "data": describe_data(plan),
        }
    )


def describe_data(plan: Plan) -> list[dict[str, Any]]:
    """Return the size of what is distilled, for each data set."""
    found = {
        data.name: {"dataset": data.name, "train_images": len(data.train_images), "classes": data.num_classes}
        for data in plan.data.values()
    }
    return list(found.values())


def describe_noise(labels: NoisyLabels) -> dict[str, Any]:
    """Return what a noise draw was meant to be and what it became, over the whole training set.

    Transition matrices have one row per true class; a class without images, or an unknown truth, is null.
    """
    realised, nominal = labels.transition_realised, labels.transition
    return {
        **dataclasses.asdict(labels.config),
        "seed": labels.seed,
        "rate_realised": labels.rate_realised,
        "labels_sha256": labels.sha256,
        "transition": nominal.tolist() if nominal is not None else None,
        "transition_realised": _rows(realised) if realised is not None else None,
    }


def _rows(matrix: NDArray[np.float64]) -> list[list[float] | None]:
    return [None if np.isnan(row).any() else [round(float(value), 6) for value in row] for row in matrix]


def conclude(plan: Plan, ledger: Ledger, before: set[str], report: str | None) -> tuple[dict[str, Any], list[Finished]]:
    """Write ``summary.json`` of a sweep that has ended.

    Returns:
        What ``ddnl sweep --json`` prints, and the trials that failed. The cells of which a trial never started, because
        a time budget ended, are ``not_done`` in the first.
    """
    names = {trial_name(cell.name, number) for cell in plan.cells for number in range(cell.trials)}
    finished = {name: result for name, result in ledger.finished().items() if name in names}
    failed = [result for result in finished.values() if result.outcome.is_failure]
    ends = Counter(result.trial.rpartition("-")[0] for result in finished.values())
    open_cells = [cell.name for cell in plan.cells if ends[cell.name] < cell.trials]
    summary = {
        "run": ledger.folder.named(),
        "cells": len(plan.cells),
        "trials": len(names),
        "done": len(finished) - len(failed),
        "failed": len(failed),
        "cached": len(before & set(finished)),
        "not_done": open_cells,
        "results": ledger.folder.named("results.parquet"),
        "report": str(report),
    }
    whole = {cell.name: cell.trials for cell in plan.cells}
    kept = {"select_on": plan.sweep.search.select_on, "cells": whole, "data": describe_data(plan)}
    state = OUT_OF_TIME if open_cells or any(r.outcome is Outcome.TIMEOUT for r in failed) else "finished"
    ledger.write_summary({**summary, "state": state, **kept})
    return summary, failed


def read_status(run: Path | Folder, now: float | None = None) -> dict[str, Any]:
    """Return counts, failures and the running trials of a run.

    Args:
        run: The run folder.
        now: The time in seconds since 1970; None: this machine's.

    Raises:
        RequestError: The folder is not a run folder.
    """
    ledger = Ledger(run)
    summary, wanted = ledger.summary(), ledger.wanted() or {}
    if summary is None:
        name = ledger.folder.named()
        raise RequestError(f"{name} is not the folder of a run that has started: it has no summary.json")
    finished = ledger.finished()
    cells: dict[str, int] = summary["cells"]
    state = _state(ledger, summary["state"])
    ended = {name: result for name, result in finished.items() if name in wanted}
    per_cell = Counter(wanted[name] for name in ended)
    best: dict[str, float] = {}
    for name, result in ended.items():
        if result.value is not None:
            best[wanted[name]] = max(result.value, best.get(wanted[name], 0.0))
    left = {f"trials/{name}/{LIVE}" for name in wanted if name not in finished}
    ledger.folder.pull("trials", left.__contains__)
    paths = (ledger.run / name for name in sorted(left))
    running = [read_json(path) for path in paths if path.is_file()]
    return {
        "run": ledger.folder.named(),
        "state": state,
        "cells": len(cells),
        "cells_done": sum(per_cell[cell] >= trials for cell, trials in cells.items()),
        "trials": len(wanted),
        "done": len(ended),
        "outcomes": dict(Counter(str(result.outcome) for result in ended.values())),
        "failed": {n: r.message for n, r in ended.items() if r.outcome.is_failure},
        "select_on": summary["select_on"],
        "best": best,
        "running": [
            {"trial": item["trial"], "iteration": item["iteration"], "of": item["iterations"]} for item in running
        ],
        "object_store": _object_store(ledger),
        "stragglers": _stragglers(ended, wanted, running, now or time.time()) if state == "running" else [],
    }


def _stragglers(
    ended: Mapping[str, Finished], wanted: Mapping[str, str], running: list[dict[str, Any]], now: float
) -> list[dict[str, Any]]:
    """Return the running trials that take far longer than those of their cell that ran to their end."""
    durations: dict[str, list[float]] = defaultdict(list)
    for name, result in ended.items():
        if result.outcome is Outcome.OK:
            durations[wanted[name]].append(result.wall_s)
    found = []
    for item in running:
        own, silent = durations[wanted[item["trial"]]], now - item.get("written_at", now)
        seconds = item.get("wall_s", 0.0) + silent
        median = statistics.median(own) if own else math.inf
        if seconds > STRAGGLES * median:
            message = (
                f"it has run for {seconds:.0f} s, {seconds / max(median, 1e-9):.1f} times the median of its cell's "
                f"{len(own)} trials ({median:.0f} s), and was last heard of {silent:.0f} s ago"
            )
            found.append({"trial": item["trial"], "seconds": seconds, "median": median, "message": message})
    return found


def status_text(status: dict[str, Any]) -> str:
    """Return a status as lines for a person."""
    lines = [
        f"{status['run']}: {status['state']}",
        f"cells {status['cells_done']}/{status['cells']}, trials {status['done']}/{status['trials']}, "
        f"failed {len(status['failed'])}",
    ]
    lines += [f"  {cell}  best {status['select_on']} {value:.3f}" for cell, value in status["best"].items()]
    lines += [
        f"  in progress {item['trial']}: iteration {item['iteration']} of {item['of']}" for item in status["running"]
    ]
    lines += stores_text(status["object_store"]) if status["state"] == "running" else []
    lines += [f"  straggler {item['trial']}: {item['message']}" for item in status["stragglers"]]
    lines += [f"  failed {name}: {message}" for name, message in status["failed"].items()]
    return "\n".join(lines)


def _object_store(ledger: Ledger) -> dict[str, Any]:
    """Return the object stores as the driver saw them last; nothing where it has not looked."""
    try:
        found: dict[str, Any] = read_json(ledger.folder.fetch(FILE))
    except FileNotFoundError:
        return {"nodes": [], "streamed": {}}
    return found


def _state(ledger: Ledger, written: str) -> str:
    """Return the written state, unless the driver that wrote ``running`` is gone."""
    if written == "running" and not ledger.is_locked():
        return "interrupted (run the same command again to continue)"
    return written
