"""What one iteration of IDM and of DANCE costs: seconds and peak memory, beside a loop over classes.

Run it on a quiet machine: ``python tests/bench/matching.py --threads 2 > result.json``. It prints JSON.

Every measurement has a process of its own; the variants alternate and the medians over ``--repeats`` are reported. A
process takes one iteration to warm up, then ``--iterations`` timed ones, each with new draws; memory is the peak above
what is held before these. Work: ConvNets on random images with published settings (batches of 256 and 128 real images
per class, four images stored in one, two networks of the queue that learn for 10 steps).

Variants:
    loop: as the released codes work: class by class; the network's weights record gradients; a step with momentum after
        every class. IDM: the graph of the real images is built and thrown away, synthetic images go through twice, for
        embedding and logits, and networks learn with ``torch.optim`` on whole batches. DANCE: no graph of the real
        images, which are augmented together with the synthetic ones; experts lie in memory (there: on disk);
    ours: :meth:`Method.step`, or of the networks alone what it calls.

Parts of IDM: ``images`` (their update), ``networks`` (their training), ``iteration`` (both).

Before all that, both are given the same draws in float64 at a small size: ``check`` says how far the gradients of the
images, and the trained networks, lie apart, relative to their norms; more than 1e-9 ends the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from loops import SEED, DanceLoop, IdmLoop, Work, loaded  # a file beside this one
from torch import Tensor
from trajectory import memory, settle  # another

from ddnl_ray.data.augment import draw_classes
from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill.classwise import Terms, View, class_gradient, draw_rows
from ddnl_ray.distill.dance import Dance, DanceConfig, DanceState
from ddnl_ray.distill.idm import Idm, IdmConfig
from ddnl_ray.models import Flat

PARTS = {"idm": ("images", "networks", "iteration"), "dance": ("iteration",)}
VARIANTS = ("loop", "ours")
FIGURES = ("seconds", "cpu_seconds", "peak_bytes")


class Ours:
    """Iterations of our methods from one state to the next."""

    def __init__(self, work: Work, method: str, part: str) -> None:
        self.work, self.part, self.turn = work, part, 0
        self.method: Any = Dance(DanceConfig())
        self.state: Any = DanceState(1, work.stored)
        if method == "idm":
            self.method = Idm(IdmConfig(model_train_steps=0) if part == "images" else IdmConfig())
            self.state = work.idm_state()

    def run(self) -> None:
        """Do the part once with new draws, always as the iteration after a new network."""
        seed = SEED.child("ours", self.turn)
        self.turn += 1
        if self.part == "networks":
            self.state = self.method._learn(self.state, [0, 1], self.work.problem, seed)
            return
        state, info = self.method.step(self.state, self.work.problem, seed)
        assert info.accepted
        self.state = dataclasses.replace(state, iteration=1)


def runner(work: Work, method: str, part: str, variant: str) -> Callable[[], None]:
    """Return what is measured."""
    if variant == "ours":
        return Ours(work, method, part).run
    loop: Any = IdmLoop(work, IdmConfig()) if method == "idm" else DanceLoop(work, DanceConfig())
    chosen: Callable[[], None] = getattr(loop, part)
    return chosen


def measure(options: argparse.Namespace, method: str, part: str, variant: str) -> dict[str, float]:
    """Measure one variant in this process."""
    torch.set_num_threads(options.threads)
    run = runner(Work(options), method, part, variant)
    run()
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    settle(options.device)
    before, began, cpu_began = memory(options.device, "VmRSS"), time.perf_counter(), time.process_time()
    for _ in range(options.iterations):
        run()
    if on_gpu:
        torch.cuda.synchronize()
    return {
        "seconds": (time.perf_counter() - began) / options.iterations,
        "cpu_seconds": (time.process_time() - cpu_began) / options.iterations,
        "peak_bytes": memory(options.device, "VmHWM") - before,
    }


def check(device: str) -> dict[str, float]:
    """Return how far both variants lie apart in float64 for the same draws, at a small size."""
    small = {"classes": 3, "ipc": 2, "width": 8, "depth": 2, "size": 16, "images": 60, "networks": 2, "experts": 1}
    work = Work(argparse.Namespace(**small, device=device), torch.float64)
    config, source, found = IdmConfig(batch_real=9, batch_train=16), SEED.child("check"), {}
    loop, dance = IdmLoop(work, config), DanceLoop(work, DanceConfig())

    def apart(name: str, own: Tensor, other: Tensor) -> None:
        found[name] = float((own - other).norm() / other.norm())

    def compare(
        name: str, loss: Callable[[int, Tensor, Any], Tensor], stored: Tensor, augment: Any, **ours: Any
    ) -> None:
        generator = source.torch()
        rows = draw_rows(work.pools, 9, generator) if ours["terms"].match else work.pools
        draws = draw_classes(augment, generator, work.classes, work.shape[-1], device)
        total = torch.stack([loss(label, rows[label], draw) for label, draw in enumerate(draws)]).sum()
        problem = dataclasses.replace(work.problem, augment=augment)
        _, own = class_gradient(work.stored, problem, pools=work.pools, batch_real=9, seed=source, **ours)
        apart(name, own, torch.autograd.grad(total, stored)[0])

    module, theta = loop.modules[0], work.thetas()[0]
    whole = {"theta": theta, "view": View(2), "terms": Terms(1.0, 20.0)}
    compare("idm images", lambda c, rows, draw: loop.loss(module, c, rows, draw, 20.0), loop.stored, Dsa(), **whole)
    loop.train(0, source.child("batches", 0).torch())
    learnt = Idm(config)._learn(work.idm_state(), [0], work.problem, source).networks[0]
    apart("idm networks", learnt - theta, Flat(module).flatten() - theta)
    loaded(dance.between, work.network, theta)
    loaded(dance.final, work.network, theta)
    both = {"theta": theta, "view": View(2, work.problem.transform, 200)}
    compare("dance inner", dance.match, dance.stored, dance.augment, terms=Terms(), **both)
    compare("dance inter", lambda c, _, draw: dance.calibrate(c, draw), dance.stored, dance.augment,
            terms=Terms(0.0, 1.0), **both)  # fmt: skip
    return found


def run_child(method: str, part: str, variant: str) -> dict[str, float] | None:
    """Measure in a fresh process with the same options; None where it died (too little memory)."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", method, part, variant]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    print(f"{method} {part} {variant}: {done.stdout.decode().strip()}", file=sys.stderr, flush=True)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def summarise(measured: dict[tuple[str, str, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return the medians of every part, and how much faster and smaller ours is than the loop."""
    rows = []
    for method, part in dict.fromkeys((method, part) for method, part, _ in measured):
        row: dict[str, Any] = {"method": method, "part": part}
        for variant in VARIANTS:
            runs = measured[method, part, variant]
            medians = {name: statistics.median(run[name] for run in runs) for name in FIGURES} if runs else {}
            row[variant] = {"repeats": len(runs)} | medians
        loop, ours = row["loop"], row["ours"]
        if loop["repeats"] and ours["repeats"]:
            row["speed_up"] = round(loop["seconds"] / ours["seconds"], 2)
            row["cpu_speed_up"] = round(loop["cpu_seconds"] / ours["cpu_seconds"], 2)
            row["memory_ratio"] = round(loop["peak_bytes"] / max(1, ours["peak_bytes"]), 2)
        rows.append(row)
    return rows


def main() -> None:
    """Check and measure, or, as a child, be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--ipc", type=int, default=10, help="stored images per class (10)")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--images", type=int, default=5000, help="real images (5000)")
    parser.add_argument("--networks", type=int, default=100, help="networks in IDM's queue (100: full)")
    parser.add_argument("--experts", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--iterations", type=int, default=1, help="timed per process (1)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement (3)")
    parser.add_argument("--child", nargs=3, metavar=("METHOD", "PART", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options, *options.child)))
        return
    torch.set_num_threads(options.threads)
    checked = check(options.device)
    if max(checked.values()) > 1e-9:
        sys.exit(f"the loop and ours differ: {checked}")
    measured: dict[tuple[str, str, str], list[dict[str, float]]] = {
        (method, part, variant): [] for method in options.methods for part in PARTS[method] for variant in VARIANTS
    }
    for _ in range(options.repeats):
        for variant, runs in measured.items():
            result = run_child(*variant)
            if result is not None:
                runs.append(result)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None,
        "torch": torch.__version__,
    }
    setting = {name: value for name, value in vars(options).items() if name != "child"}
    results = summarise(measured)
    print(json.dumps({"machine": machine, "setting": setting, "check": checked, "results": results}, indent=1))


if __name__ == "__main__":
    main()
