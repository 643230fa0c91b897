"""What the sweep runtime costs: seconds per trial beyond the trial's own work.

Run it on a quiet machine: ``python tests/bench/overhead.py [--trials 40] [--cpus 2] > result.json``. It prints JSON.

The sweep has nothing to do: random coresets of digits, one epoch of a tiny network each, every one a cell of its own.
Its whole duration is that of ``ddnl sweep`` as a user runs it, from the start of the process to its end: reading the
file, starting Ray and the workers, the trials, the tables and the report, stopping Ray.

Figures:
    overhead_s: (whole duration - sum of the trials' own seconds / cpus) / trials. Goal: below 0.5.
    steady_s: the same between the first and the last trial's end, so without what happens once.
    first_trial_s: from the start of the process to the end of the first trial.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch

from ddnl_ray.results import read_rows

SWEEP = """
name: overhead
data: {{name: digits, subset: 400, test_subset: 100}}
grid: {{method: [random], ipc: [1], seed: {seeds}}}
evaluate: {{repeats: 1}}
budget: {{eval_epochs: 1}}
model: {{name: convnet1, width: 4}}
"""


def measure(trials: int, cpus: int, folder: Path) -> dict[str, float]:
    """Run one sweep; return its figures."""
    (folder / "overhead.yaml").write_text(SWEEP.format(seeds=list(range(trials))))
    command = [sys.executable, "-m", "ddnl_ray", "sweep", "overhead.yaml", "--json", "--cpus", str(cpus)]
    environment = {**os.environ, "DDNL_STORE": str(folder / "store")}
    started = time.time()
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    whole = time.time() - started
    said = json.loads(done.stdout)
    if said["done"] != trials:
        raise RuntimeError(f"{trials} trials were asked for, but the sweep says {said}")
    ended = sorted(path.stat().st_mtime for path in (folder / "runs" / "overhead" / "parts").glob("*.parquet"))
    own = read_rows(folder / "runs" / "overhead" / "results.parquet").groupby("trial")["wall_s"].first()
    mean = float(own.mean())
    return {
        "overhead_s": (whole - mean * trials / cpus) / trials,
        "steady_s": (ended[-1] - ended[0]) / (trials - 1) - mean / cpus,
        "first_trial_s": ended[0] - started,
        "whole_s": whole,
        "own_s": mean,
    }


def main() -> None:
    """Measure, and print the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(options.trials, options.cpus, Path(folder)))
    result: dict[str, Any] = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
    result |= {
        "trials": options.trials,
        "cpus": options.cpus,
        "n": options.repeats,
        "all_overhead_s": [round(run["overhead_s"], 3) for run in runs],
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "ray": ray.__version__, "torch": torch.__version__},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
