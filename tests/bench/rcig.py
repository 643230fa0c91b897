"""RCIG: what an iteration costs against the number of images, and what it is worth on the digits.

Run it on a quiet machine: ``python tests/bench/rcig.py cost > cost.json`` or ``... digits > digits.json``. It prints
JSON.

``cost``: seconds of CPU and of the clock of one iteration (after one to warm up) at each IPC, on random images. Before
anything is measured, it predicts: multiples of the first IPC's figure by the number of forward passes, with mirrored
copies N images and B real ones, ``S`` steps of either Adam: a tape costs 3 N, a product with a kept tape 2 N and
without 3 N, of which there are two in every step; the real batch 6 B; the two image gradients 4 N each; the pool's
training 3 N a step, 8 steps on average. ``--profile`` prints where the time goes instead, to stderr.

``digits``: ``rcig`` and ``random`` at each IPC and noise draw, by their recipes, scored on the test set: mean, and half
of the 95 % Student interval over the draws.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import json
import os
import platform
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.rcig import Rcig
from ddnl_ray.distill.rcig_config import RcigConfig
from ddnl_ray.experts import ExpertStore
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree
from ddnl_ray.sweep.plan import make_plan
from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.trial import Options
from ddnl_ray.trial.prepare import prepare_and_run

POOL_STEPS = 8


def passes(options: argparse.Namespace, ipc: int, kept: bool) -> float:
    """Return how many images go forward in one iteration, other work counted as as much."""
    num = 2 * ipc * options.classes
    products = 2 * (options.inner_steps + options.inner_steps) + 3
    return num * (3 + products * (2 if kept else 3) + 8 + 3 * POOL_STEPS) + 6 * options.batch_real


def problem(options: argparse.Namespace, ipc: int) -> Problem:
    """Return random images in a network of the stated width."""
    device, shape = torch.device(options.device), (3, options.size, options.size)
    generator = SeedTree.root(0).torch()
    num = max(options.batch_real, 2 * ipc * options.classes)
    network = build(NetworkSpec(f"doubling{options.depth}", options.width), shape, options.classes, generator, device)
    return Problem(
        images=torch.randn(num, *shape, generator=generator).to(device),
        labels=(torch.arange(num) % options.classes).to(device),
        num_classes=options.classes,
        ipc=ipc,
        network=Flat(network),
        augment=None,
        graph_memory=options.graph_memory_mb * 2**20,
    )


def measure(options: argparse.Namespace, ipc: int) -> dict[str, Any]:
    """Time iterations at one IPC."""
    config = RcigConfig(
        iterations=10, batch_real=options.batch_real, pool_size=2, pool_steps=1 if options.lean else 15,
        inner_steps=options.inner_steps, hessian_steps=options.inner_steps, lr_inner=1e-3, lr_hessian=1.0,
    )  # fmt: skip
    work, method, seed = problem(options, ipc), Rcig(config), SeedTree.root(0)
    state = method.init(work, seed)
    state, _ = method.step(state, work, seed)
    if options.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    profile, seconds, cpu = cProfile.Profile(), [], []
    for _ in range(options.iterations):
        began, cpu_began = time.perf_counter(), time.process_time()
        if options.profile:
            profile.enable()
        state, info = method.step(state, work, seed)
        profile.disable()
        if options.device == "cuda":
            torch.cuda.synchronize()
        assert info.accepted
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    if options.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(15)
    found = {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu), "n": len(seconds)}
    if options.device == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def cost(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict and measure at every IPC."""
    kept = options.graph_memory_mb > 0
    first = passes(options, options.ipc[0], kept)
    predicted = {ipc: round(passes(options, ipc, kept) / first, 2) for ipc in options.ipc}
    print(f"predicted multiples of the first: {predicted}", file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for ipc in options.ipc:
        row = {"ipc": ipc, "images": 2 * ipc * options.classes, "predicted": predicted[ipc], **measure(options, ipc)}
        rows.append(row | {"measured": round(row["cpu_seconds"] / (rows[0] if rows else row)["cpu_seconds"], 2)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def digits(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every cell in this process, one after the other, and summarise the test set."""
    grid = {"method": ["random", "rcig"], "ipc": options.ipc, "noise_seed": [0], "seed": options.seeds}
    if options.rate:
        grid |= {"noise": [{"kind": "symmetric", "rate": options.rate}], "noise_seed": options.seeds, "seed": [0]}
    changes = {} if options.eval_epochs is None else {"budget": {"eval_epochs": options.eval_epochs}}
    file = {"name": "rcig", "grid": grid, "evaluate": {"repeats": options.repeats, "checkpoints": 1}, **changes}
    plan = make_plan(SweepFile.model_validate(file))
    found: dict[tuple[str, int | None], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for cell in plan.cells:
            own = Options(run="rcig", cell=cell.name, trial=cell.name, graph_memory=options.graph_memory_mb * 2**20)
            config = dataclasses.replace(cell.config)
            data, labels = plan.data[cell.zca], plan.labels[cell.labels_key]
            rows = prepare_and_run(config, data, labels, ExpertStore(Path(folder)), Path(folder) / cell.name, own)
            scores = [row["accuracy"] for row in rows if row["split"] == "test"]
            assert scores, rows[0]["message"]
            print(f"{cell.name}: {scores}, {rows[0]['wall_s']:.0f} s", file=sys.stderr, flush=True)
            found.setdefault((config.method, config.ipc), []).append(statistics.fmean(scores))
    return [{"method": method, "ipc": ipc, **interval(scores)} for (method, ipc), scores in found.items()]


def interval(scores: list[float]) -> dict[str, Any]:
    """Return mean and half of the 95 % Student interval in per cent."""
    n, deviation = len(scores), statistics.stdev(scores) if len(scores) > 1 else float("nan")
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / n**0.5 if n > 1 else float("nan")
    return {"mean": round(100 * statistics.fmean(scores), 2), "half": round(100 * half, 2), "n": n}


def main() -> None:
    """Print the result of one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["cost", "digits"])
    parser.add_argument("--ipc", type=int, nargs="+", default=None, help="cost: 1 10 50; digits: 1 10")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-real", type=int, default=1024)
    parser.add_argument("--inner-steps", type=int, default=20, help="of either Adam")
    parser.add_argument("--lean", action="store_true", help="one step of the pool's training instead of up to 15")
    parser.add_argument("--graph-memory-mb", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=0.0, help="digits: symmetric noise")
    parser.add_argument("--repeats", type=int, default=2, help="digits: networks per set")
    parser.add_argument("--eval-epochs", type=int, default=None, help="digits: instead of the recipes'")
    options = parser.parse_args()
    options.ipc = options.ipc or ([1, 10, 50] if options.part == "cost" else [1, 10])
    torch.set_num_threads(options.threads)
    results = cost(options) if options.part == "cost" else digits(options)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None,
        "torch": torch.__version__,
    }
    print(json.dumps({"machine": machine, "setting": vars(options), "results": results}, indent=1))


if __name__ == "__main__":
    main()
