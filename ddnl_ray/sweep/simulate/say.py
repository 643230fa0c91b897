"""A simulated sweep in words, and the durations that a finished run lends it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from ddnl_ray.errors import RequestError
from ddnl_ray.results import Outcome, read_run
from ddnl_ray.robust import compose
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.plan import Plan


def recorded_durations(run: Path, plan: Plan) -> dict[tuple[str, int | None], list[float]]:
    """Return the seconds of the trials of a run that ran to their end, by method and IPC, for the methods of a plan.

    Raises:
        RequestError: The run has no results, or none of these methods.
    """
    Ledger(run).consolidate()
    frame = read_run(run)
    methods = {(one.base, one.variant): name for name in plan.sweep.grid.method for one in [compose(name)]}
    found: dict[tuple[str, int | None], list[float]] = defaultdict(list)
    for row in frame[frame["outcome"] == Outcome.OK].drop_duplicates("trial").to_dict("records"):
        name = methods.get((row["base_method"], row["variant"]))
        if name is not None:
            ipc = None if compose(name).base == "full" else int(row["ipc"])
            found[name, ipc].append(float(row["wall_s"]))
    if not found:
        raise RequestError(f"--like: {run} has no trial of {', '.join(plan.sweep.grid.method)} that ran to its end")
    return dict(found)


def simulation_text(found: dict[str, Any]) -> str:
    """Return a simulated sweep as lines for a person."""
    unit = found["unit"]
    paid = f"{found['unit_hours']:.1f} {unit} hours"
    cost = f", {found['cost']:.2f} at the given price" if found["cost"] is not None else ""
    ends = ", ".join(f"{count} {outcome}" for outcome, count in found["outcomes"].items()) or "none"
    total = found["unit_hours"] or 1.0
    lines = [
        f"simulated, nothing was run: {found['hours']:.2f} hours, {paid}{cost}",
        f"{found['cells']} cells, {found['trials']} trials ({ends}); {found['most_running']} at once on "
        f"{found['places']} places",
        f"{unit} hours: {found['busy'] / total:.1%} work, {found['idle'] / total:.1%} idle, "
        f"{found['lost'] / total:.1%} lost to {found['preemptions']} preemptions",
    ]
    if found["making_hours"]:
        lines.append(f"the first {found['making_hours']:.2f} hours: experts and what else the trials need")
    if found["tail_trials"]:
        lines.append(
            f"the tail: in the last {found['tail_hours']:.2f} hours less than half of the places are in use, by "
            f"{found['tail_trials']} trials, most of {', '.join(found['tail_cells'])}"
        )
    lines.append(f"a trial waits for a place for {found['longest_wait_s']:.0f} s at most")
    lines += [f"straggler {name}" for name in found["stragglers"]]
    if found["not_done"]:
        lines.append(f"{len(found['not_done'])} cells are not done when the time budget ends")
    lines.append(
        f"driver: {found['driver_ms_per_trial']:.1f} ms of CPU per trial, {found['peak_rss_mb']:.0f} MB at most"
    )
    return "\n".join(lines)
