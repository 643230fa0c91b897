"""What a sweep costs its driver as it grows: plans, simulated sweeps and a resumed ledger, at several sizes.

Run it on a quiet machine: ``python tests/bench/scale.py [--trials 100 1000 10000] > result.json``. It prints JSON.
Every size is measured in a process of its own, on 256 simulated GPUs, half a GPU a trial, nodes of 8 that are taken
away every five hours; studies of five trials with a stopper.

Figures, for each number of trials:
    plan_cpu_s: reading the grid into cells, here of one trial each, so as many cells as trials. Goal at 10 000: 2.
    sweep_s, sweep_cpu_s: the whole simulated sweep, from its plan to its end. Goal at 10 000: 120 on one core.
    driver_ms: CPU of the driver's own part, per trial: studies, search, ledger, table.
    cold_s: what a command that finds the parts alone reads before it starts; warm_s: with the pack beside them.
    status_s: the same for ``ddnl status``.
    rss_mb: peak memory of the process; rss_added_mb: above what it held before the sweep.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddnl_ray.experts import ExpertStore
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.plan import make_plan
from ddnl_ray.sweep.read import parse_sweep
from ddnl_ray.sweep.simulate.cluster import Cluster
from ddnl_ray.sweep.simulate.run import simulate
from ddnl_ray.sweep.status import read_status
from ddnl_ray.sweep.watcher import Silent

CLUSTER = Cluster(gpus=256, preempt_per_hour=0.2, return_s=600, trial_s=3600, diverge=0.02, oom=0.005)


def document(trials: int, per_study: int) -> dict[str, Any]:
    """Return a sweep of a multiple of 100 trials."""
    cells = trials // per_study
    return {
        "name": "scale",
        "data": {"name": "digits"},
        "grid": {
            "noise": [{"kind": "symmetric", "rate": [0, 0.1, 0.2, 0.3, 0.4]}],
            "method": ["dm", "dsa"],
            "ipc": [1, 5],
            "noise_seed": [0, 1, 2, 3, 4][: max(1, cells // 20)],
            "seed": list(range(max(1, cells // 100))),
        },
        "search": {
            "trials": per_study,
            "space": {f"{name}.lr_img": {"log_uniform": [0.1, 10]} for name in ("dm", "dsa")},
        },
        "budget": {"iterations": 1000, "checkpoint_seconds": 300},
        "stopper": {"kind": "asha", "grace": 100},
        "resources": {"cpu": 2, "gpu": 0.5},
    }


def cpu(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the CPU seconds and the seconds of some work, and what it returns."""
    process, wall = time.process_time(), time.perf_counter()
    found = work()
    return time.process_time() - process, time.perf_counter() - wall, found


def rss_mb() -> float:
    """Return the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(trials: int) -> dict[str, Any]:
    """Measure one size in this process."""
    make_plan(parse_sweep(document(100, 5), "bench"))  # imports and the data
    plan_cpu, _, plan = cpu(lambda: make_plan(parse_sweep(document(trials, 1), "bench")))
    cells = len(plan.cells)
    plan = make_plan(parse_sweep(document(trials, 5), "bench"))
    before = rss_mb()
    with tempfile.TemporaryDirectory() as folder:
        run, store = Path(folder) / "run", ExpertStore(Path(folder) / "store")
        sweep_cpu, sweep_s, found = cpu(lambda: simulate(plan, run, CLUSTER, store, Silent()))
        after = rss_mb()
        warm_s = cpu(Ledger(run).finished)[0]
        status_s = cpu(lambda: read_status(run))[0]
        (run / ".parts.parquet").unlink(missing_ok=True)
        cold_s = cpu(Ledger(run).finished)[0]
    return {
        "trials": found["trials"],
        "plan_cells": cells,
        "plan_cpu_s": plan_cpu,
        "sweep_s": sweep_s,
        "sweep_cpu_s": sweep_cpu,
        "sweep_cpu_ms_per_trial": 1000 * sweep_cpu / found["trials"],
        "driver_ms": found["driver_ms_per_trial"],
        "cold_s": cold_s,
        "warm_s": warm_s,
        "status_s": status_s,
        "rss_mb": after,
        "rss_added_mb": after - before,
        "preemptions": found["preemptions"],
        "simulated_hours": found["hours"],
        "utilisation": found["utilisation"],
    }


def main() -> None:
    """Measure every size, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    sizes = []
    for trials in options.trials:
        command = [sys.executable, __file__, "--one", str(trials)]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        sizes.append({name: round(value, 3) for name, value in json.loads(said).items()})
    result = {
        "sizes": sizes,
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
