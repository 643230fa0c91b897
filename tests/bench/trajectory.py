"""What one outer iteration of trajectory matching costs: seconds and peak memory, beside plain unrolling.

Run it on a quiet machine: ``python tests/bench/trajectory.py --threads 2 > result.json``. It prints JSON.

Work: the gradient of the matching loss of a ConvNet with respect to the images, the soft labels and the step size, with
full-batch student steps under DSA. All variants of a size run in this process, on the same inputs, one after the other,
``--repeats`` rounds after a warm-up; seconds are the medians, memory is the peak above what was held before.

Variants:
    plain: the loop of the public codes: every graph kept, one backward pass, on the same network and augmentation;
    autograd: our recursion in constant memory, differentiated twice by autograd, whole batches;
    recomputed: ours, no tape kept;
    quarter: ours, tapes kept within a quarter of what ``plain`` takes;
    kept: ours, all tapes kept (within ``--limit-gb``).

Goals on a CPU: at 40 steps at least 2 times faster than ``plain`` with at most a quarter of its memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import Problem
from ddnl_ray.distill.adjoint import match, reach
from ddnl_ray.distill.student import Augmented, AutogradStudent, StudentBatch
from ddnl_ray.distill.trajectory import student_of
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

PLAIN_MAPS = 5
"""Full maps per block that plain unrolling keeps of a step, for guessing what fits; measured: 4.8 to 5.1."""


class Work:
    """One segment to match."""

    def __init__(self, options: argparse.Namespace, num_steps: int, num_images: int) -> None:
        seed = SeedTree.root(0)
        shape = (3, options.size, options.size)
        spec = NetworkSpec(f"convnet{options.depth}", options.width)
        device = torch.device(options.device)
        module = build(spec, shape, options.classes, seed.child("network").torch(), device)
        self.network, self.dsa = Flat(module), Dsa()
        generator = seed.child("data").torch()
        self.start = self.network.flatten()
        self.target = self.start + 0.01 * torch.randn(len(self.start), generator=generator).to(device)
        self.images = torch.randn(num_images, *shape, generator=generator).to(device)
        self.labels = torch.randn(num_images, options.classes, generator=generator).to(device)
        self.step_size = torch.tensor(0.01, device=device)
        index = torch.arange(num_images, device=device)
        self.batches = [
            StudentBatch(index, self.dsa.draw(generator, num_images, options.size, device)) for _ in range(num_steps)
        ]
        maps = sum(options.width * (options.size >> i) ** 2 for i in range(options.depth))
        self.plain_bytes = 4 * PLAIN_MAPS * maps * num_images * num_steps
        own = Problem(self.images, self.labels.argmax(1), options.classes, None, self.network, self.dsa)
        self.student = student_of(own)
        self.tape_bytes = self.student.student.tape_bytes(self.start, self.images, self.labels)

    def plain(self) -> Tensor:
        """Unroll, keep every graph, and differentiate through all of them, as the public codes do."""
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
        matching = (weights[-1] - self.target).square().sum() / (self.start - self.target).square().sum()
        return torch.autograd.grad(matching, [images, labels, step_size])[0]

    def ours(self, kept: int, autograd: bool = False) -> Tensor:
        """Return the gradient of the images by our recursion."""
        student = Augmented(AutogradStudent(self.network), self.dsa) if autograd else self.student
        goal = reach(self.start, self.target)
        return match(student, self.start, goal, self.images, self.labels, self.step_size, self.batches, kept).images

    def variants(self, limit: float) -> dict[str, Callable[[], Tensor]]:
        """Return the variants that fit the memory, by name."""
        steps = len(self.batches)
        weights = 2 * steps * self.start.nbytes
        quarter = min(steps, int((self.plain_bytes / 4 - weights - 2 * 2**26) / self.tape_bytes))
        variants: dict[str, tuple[float, Callable[[], Tensor]]] = {
            "recomputed": (0, lambda: self.ours(0)),
            "autograd": (self.plain_bytes / steps, lambda: self.ours(0, autograd=True)),
            "kept": (self.tape_bytes * steps, lambda: self.ours(steps)),
            "plain": (self.plain_bytes, self.plain),
        }
        if quarter > 0:
            variants["quarter"] = (self.plain_bytes / 4, lambda: self.ours(quarter))
        return {name: run for name, (needed, run) in variants.items() if needed < limit}


def memory(device: str, field: str) -> int:
    """Return bytes held now (``VmRSS``) or at the peak since :func:`settle` (``VmHWM``)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() if field == "VmHWM" else torch.cuda.memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def settle(device: str) -> None:
    """Give freed memory back and forget the peak."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measure(device: str, run: Callable[[], Tensor]) -> tuple[float, int, Tensor]:
    """Return seconds, peak bytes above the start, and the gradient."""
    settle(device)
    before, began = memory(device, "VmRSS"), time.perf_counter()
    gradient = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, memory(device, "VmHWM") - before, gradient


def compare(options: argparse.Namespace, num_steps: int, ipc: int) -> dict[str, Any]:
    """Measure every variant of one size, in turns."""
    work = Work(options, num_steps, ipc * options.classes)
    variants = work.variants(options.limit_gb * 2**30)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    peak: dict[str, list[int]] = {name: [] for name in variants}
    gradients: dict[str, Tensor] = {}
    for turn in range(options.repeats + 1):
        for name, run in variants.items():
            took, held, gradients[name] = measure(options.device, run)
            if turn > 0:
                seconds[name].append(took)
                peak[name].append(held)
            print(f"ipc {ipc} x {num_steps} {name}: {took:.2f} s {held / 2**20:.0f} MiB", file=sys.stderr, flush=True)
    rows = {
        name: {"seconds": round(statistics.median(seconds[name]), 4), "peak_bytes": int(statistics.median(peak[name]))}
        for name in variants
    }
    result: dict[str, Any] = {"ipc": ipc, "syn_steps": num_steps, "n": options.repeats, "variants": rows}
    if "plain" in rows:
        plain = rows["plain"]
        for name, row in rows.items():
            row["speed_up"] = round(plain["seconds"] / row["seconds"], 2)
            row["memory_ratio"] = round(plain["peak_bytes"] / max(1, row["peak_bytes"]), 2)
            exact, own = gradients["plain"], gradients[name]
            row["relative_difference"] = float((own - exact).norm() / exact.norm())
    else:
        result["left_out"] = f"plain needs about {work.plain_bytes / 2**30:.0f} GiB, above --limit-gb"
    return result


def main() -> None:
    """Measure all sizes and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 40, 80], help="student steps (10 20 40 80)")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50], help="images per class (1 10 50)")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--limit-gb", type=float, default=14.0, help="leave out what needs more memory (14)")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds (3)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [compare(options, steps, ipc) for ipc in options.ipc for steps in options.steps]
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None,
        "torch": torch.__version__,
    }
    print(json.dumps({"machine": machine, "setting": vars(options), "results": results}, indent=1))


if __name__ == "__main__":
    main()
