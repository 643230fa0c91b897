"""What one outer iteration of trajectory matching costs: seconds and peak memory, against plain unrolling.

Run it on a quiet machine: ``python tests/bench/adjoint.py [--ipc 1] [--threads 2] > result.json``. It prints JSON.

Every measurement has a process of its own, so that its peak resident memory is its own; the variants alternate and
the medians over ``--repeats`` are reported. Work: the gradient of the matching loss of a ConvNet with respect to the
images, the soft labels and the step size, full-batch student steps, DSA on.

Variants:
    adjoint: ours, no graph kept;
    kept: ours, all graphs kept;
    plain: the loop of the public codes (every graph kept, one backward pass), on the same network.

Goals: memory of ``adjoint`` at 40 steps at most 1.5 times that at 5; its time at most 1.4 times that of ``plain``;
the time of ``kept`` at most that of ``plain``.
"""

from __future__ import annotations

import argparse
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

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill.adjoint import Student, StudentBatch, match
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

VARIANTS = ("adjoint", "kept", "plain")


class Work:
    """One segment to match."""

    def __init__(self, options: argparse.Namespace, variant: str, num_steps: int, num_images: int) -> None:
        seed = SeedTree.root(0)
        shape = (3, options.size, options.size)
        spec = NetworkSpec(f"convnet{options.depth}", options.width)
        module = build(spec, shape, options.classes, seed.child("network").torch())
        self.variant, self.network, self.dsa = variant, Flat(module), Dsa()
        generator = seed.child("data").torch()
        self.start = self.network.flatten()
        self.target = self.start + 0.01 * torch.randn(len(self.start), generator=generator)
        self.images = torch.randn(num_images, *shape, generator=generator)
        self.labels = torch.randn(num_images, options.classes, generator=generator)
        self.step_size = torch.tensor(0.01)
        index = torch.arange(num_images)
        self.batches = [
            StudentBatch(index, self.dsa.draw(generator, num_images, options.size, "cpu")) for _ in range(num_steps)
        ]

    def __call__(self) -> float:
        """Compute loss and gradients once; return the loss."""
        if self.variant == "plain":
            return self.plain()
        kept = len(self.batches) if self.variant == "kept" else 0
        student = Student(self.network, self.dsa)
        result = match(student, self.start, self.target, self.images, self.labels, self.step_size, self.batches, kept)
        return float(result.loss)

    def plain(self) -> float:
        """Unroll, keep every graph, and call backward, as the public codes do."""
        images, labels = self.images.clone().requires_grad_(), self.labels.clone().requires_grad_()
        step_size = self.step_size.clone().requires_grad_()
        weights = [self.start.clone().requires_grad_()]
        for batch in self.batches:
            assert batch.draw is not None
            x = self.dsa.apply(images[batch.index], batch.draw)
            logits = self.network(weights[-1], x)
            loss = -(labels[batch.index].softmax(1) * logits.log_softmax(1)).sum(1).mean()
            (gradient,) = torch.autograd.grad(loss, weights[-1], create_graph=True)
            weights.append(weights[-1] - step_size * gradient)
        matching: Tensor = (weights[-1] - self.target).square().sum() / (self.start - self.target).square().sum()
        torch.autograd.grad(matching, [images, labels, step_size])
        return float(matching.detach())


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(options: argparse.Namespace, variant: str, num_steps: int) -> dict[str, Any]:
    """Measure one variant in this process; the first iteration is a warm-up."""
    torch.set_num_threads(options.threads)
    Work(options, variant, 1, 1)()  # loads the kernels, so that they count as baseline
    work = Work(options, variant, num_steps, options.classes * options.ipc)
    baseline, loss, seconds = peak_bytes(), 0.0, []
    for _ in range(options.iterations + 1):
        began = time.perf_counter()
        loss = work()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[1:]), "peak_bytes": peak_bytes() - baseline, "loss": loss}


def run_child(variant: str, num_steps: int) -> dict[str, Any] | None:
    """Measure in a fresh process with the same options; None where it died (too little memory)."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", variant, str(num_steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    print(f"{variant} x {num_steps}: {done.stdout.decode().strip()}", file=sys.stderr)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def summarise(measured: dict[tuple[str, int], list[dict[str, Any]]], steps: list[int]) -> dict[str, Any]:
    """Return medians and the ratios that the goals are about."""
    medians = {
        key: {name: statistics.median(run[name] for run in runs) for name in ("seconds", "peak_bytes", "loss")}
        for key, runs in measured.items()
        if runs
    }

    def ratio(name: str, above: tuple[str, int], below: tuple[str, int]) -> float | None:
        if above not in medians or below not in medians:
            return None
        return round(float(medians[above][name] / medians[below][name]), 3)

    first, last = min(steps), max(steps)
    ratios: dict[str, Any] = {
        f"memory_{variant}_{last}_over_{first}": ratio("peak_bytes", (variant, last), (variant, first))
        for variant in VARIANTS
    }
    for variant in ("adjoint", "kept"):
        ratios[f"time_{variant}_over_plain"] = {n: ratio("seconds", (variant, n), ("plain", n)) for n in steps}
    results = [
        {"variant": variant, "syn_steps": num_steps, "repeats": len(measured[variant, num_steps]), **values}
        for (variant, num_steps), values in medians.items()
    ]
    return {"results": results, "ratios": ratios}


def main() -> None:
    """Measure, or, as a child, be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 40], help="student steps (5 10 20 40)")
    parser.add_argument("--ipc", type=int, default=10, help="images per class (10)")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=2, help="timed iterations per process (2)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement (3)")
    parser.add_argument("--child", nargs=2, metavar=("VARIANT", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options, options.child[0], int(options.child[1]))))
        return
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {(v, n): [] for n in options.steps for v in VARIANTS}
    for _ in range(options.repeats):
        for key, runs in measured.items():
            result = run_child(*key)
            if result is not None:
                runs.append(result)
    setting = {name: value for name, value in vars(options).items() if name != "child"}
    machine = {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__}
    print(json.dumps({"machine": machine, "setting": setting, **summarise(measured, options.steps)}, indent=1))


if __name__ == "__main__":
    main()
