"""What one epoch of one expert costs: experts that train together, and the precisions; seconds, memory, deviation.

Run it on a quiet machine: ``python tests/bench/experts.py [--device cuda] > result.json``. It prints JSON.

Every measurement has a process of its own, so that its peak memory is its own; the variants alternate and the medians
over ``--repeats`` are reported. Work: ConvNets of default width 128 on random images, DSA on. A run of one epoch on a
few images warms up, ``--epochs`` epochs are timed, and an expert's float32 training gives the deviation.

Reported of each (at once, precision):
    seconds: wall clock per expert and epoch over ``--images`` images;
    cpu_seconds: the same in time of this process on CPUs, which other processes disturb less;
    peak_bytes: peak of the device's memory (of resident memory on a CPU) above that before training;
    deviation: distance of an expert's last weights from those in float32, over the distance that float32 moves them;
    ratio: seconds over those of one expert at a time in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.experts import ExpertRecipe, Trajectory, train_experts
from ddnl_ray.experts.precision import PRECISIONS
from ddnl_ray.models import NetworkSpec
from ddnl_ray.seeds import SeedTree

FIGURES = ("seconds", "cpu_seconds", "peak_bytes", "deviation")


class Work:
    """Random images, and the training of experts on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (options.images, options.channels, options.size, options.size)
        self.images = torch.randn(shape, generator=generator).to(options.device)
        self.labels = torch.randint(0, options.classes, (options.images,), generator=generator).to(options.device)
        self.num_classes = options.classes
        self.recipe = ExpertRecipe(
            network=NetworkSpec(f"convnet{options.depth}", options.width),
            epochs=options.epochs,
            batch_size=options.batch,
            optimizer=options.optimizer,
        )

    def train(self, num_experts: int, rows: int | None = None, **changes: Any) -> list[Trajectory]:
        """Train some experts, on all images or on the first rows."""
        seeds = [SeedTree.root(0).child("expert", index) for index in range(num_experts)]
        recipe = dataclasses.replace(self.recipe, **changes)
        return train_experts(self.images[:rows], self.labels[:rows], self.num_classes, recipe, seeds)


def peak_bytes(device: torch.device) -> int:
    """Return the largest amount of memory of this process so far: of the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def deviation(found: Tensor, exact: Tensor) -> float:
    """Return how far the last of the snapshots [S, P] lies from the exact one, relative to the way from the first."""
    return float((found[-1] - exact[-1]).norm() / (exact[-1] - exact[0]).norm())


def measure(options: argparse.Namespace, at_once: int, precision: str) -> dict[str, float]:
    """Measure one variant in this process."""
    torch.set_num_threads(options.threads)
    device, work = torch.device(options.device), Work(options)
    work.train(1, rows=min(2, options.images), epochs=1, precision=precision)  # loads the kernels
    baseline = peak_bytes(device)
    if device.type == "cuda":
        work.train(at_once, rows=options.batch, epochs=1, precision=precision)  # lets cuDNN choose
        torch.cuda.synchronize()
    began, cpu_began = time.perf_counter(), time.process_time()
    trained = work.train(at_once, precision=precision)  # ends with a copy from the device, which waits for it
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    peak = peak_bytes(device) - baseline
    (exact,) = work.train(1)
    each = at_once * options.epochs
    return {
        "seconds": seconds / each,
        "cpu_seconds": cpu_seconds / each,
        "peak_bytes": peak,
        "deviation": deviation(trained[0].snapshots, exact.snapshots),
    }


def run_child(at_once: int, precision: str) -> dict[str, float] | None:
    """Measure in a fresh process with the same options; None where it died (too little memory)."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(at_once), precision]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    print(f"{at_once} at once in {precision}: {done.stdout.decode().strip()}", file=sys.stderr)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def summarise(measured: dict[tuple[int, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return the medians of every variant, and its time against that of one float32 expert at a time."""
    medians = {
        variant: {name: statistics.median(run[name] for run in runs) for name in FIGURES}
        for variant, runs in measured.items()
        if runs
    }
    alone = medians.get((1, "float32"))
    return [
        {
            "at_once": at_once,
            "precision": precision,
            "repeats": len(measured[at_once, precision]),
            **values,
            "ratio": round(values["seconds"] / alone["seconds"], 3) if alone else None,
        }
        for (at_once, precision), values in medians.items()
    ]


def main() -> None:
    """Measure, or, as a child, be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 16], help="experts together (1 4 16)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, help="default: those of the device")
    parser.add_argument("--optimizer", default="sgd", choices=("sgd", "gsam"))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement (3)")
    parser.add_argument("--child", nargs=2, metavar=("AT_ONCE", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options, int(options.child[0]), options.child[1])))
        return
    on_gpu = torch.device(options.device).type == "cuda"
    precisions = options.precision or [name for name in PRECISIONS if on_gpu or name != "tf32"]
    measured: dict[tuple[int, str], list[dict[str, float]]] = {(n, p): [] for n in options.at_once for p in precisions}
    for _ in range(options.repeats):
        for variant, runs in measured.items():
            result = run_child(*variant)
            if result is not None:
                runs.append(result)
    setting = {name: value for name, value in vars(options).items() if name != "child"}
    name = torch.cuda.get_device_name(options.device) if on_gpu else platform.processor() or platform.machine()
    machine = {"device": name, "torch": torch.__version__}
    print(json.dumps({"machine": machine, "setting": setting, "results": summarise(measured)}, indent=1))


if __name__ == "__main__":
    main()
