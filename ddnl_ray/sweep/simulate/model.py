"""What trials of a simulation take and find: durations, ends, and accuracies on a smooth surface.

The surface: each cell has an accuracy that its best parameters reach, each method an optimum in the unit cube of its
searched parameters (logarithms where they are searched so), and accuracy falls with the square of the distance from it.
While a trial distils, it comes near its own accuracy exponentially. Nothing in it is measured on images: it makes
sampler and stopper behave as they would, and says nothing on methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddnl_ray.errors import RequestError
from ddnl_ray.results import SPLITS, Outcome
from ddnl_ray.seeds import SeedTree
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.plan import Cell, Plan
from ddnl_ray.sweep.schema import SpaceSection
from ddnl_ray.sweep.simulate.cluster import Cluster
from ddnl_ray.sweep.studies import Job
from ddnl_ray.trial import TrialInputs
from ddnl_ray.trial.outcomes import End
from ddnl_ray.trial.rows import shared_columns

DEVICE = "simulated"
FALL = 0.6
NOISE = 0.01


@dataclass(frozen=True)
class Course:
    """How a trial would go if nothing took its machine away.

    Attributes:
        seconds: Its duration.
        outcome: How it ends.
        looks: Iteration to accuracy on the selection split.
        accuracy: That of its set.
    """

    seconds: float
    outcome: Outcome
    looks: Mapping[int, float]
    accuracy: float


class TrialModel:
    """The trials of a plan.

    Args:
        plan: The plan.
        cluster: Durations, shares of failures, and the seed.
        recorded: Durations of trials that ran, by method and IPC; they come before the cluster's.

    Raises:
        RequestError: The duration of a method's trials is not known, or a key of ``trial_s`` fits no cell.
    """

    def __init__(self, plan: Plan, cluster: Cluster, recorded: Mapping[tuple[str, int | None], list[float]]) -> None:
        self.plan, self.cluster, self.recorded = plan, cluster, recorded
        self.seeds = SeedTree.root(cluster.seed).child("simulate")
        self._medians = {kind: self._median(kind) for kind in {_kind(cell) for cell in plan.cells}}
        if isinstance(cluster.trial_s, dict):
            usable = {"default", *(name for kind in self._medians for name in _names(kind))}
            for name in cluster.trial_s:
                if name not in usable:
                    raise RequestError(f"cluster: trial_s.{name}: no cell has it; known: {', '.join(sorted(usable))}")

    def course(self, job: Job) -> Course:
        """Return how a trial goes; it depends on its name and parameters, on the seed, and on nothing else."""
        draw = self.seeds.child("trial", job.trial).numpy()
        seconds = self._seconds(job.cell, draw)
        iterations = int(job.config.params.get("iterations", 0))
        accuracy = float(np.clip(self._surface(job) + NOISE * draw.standard_normal(), 0.01, 0.99))
        share, chance = draw.random(2)
        if chance < self.cluster.diverge + self.cluster.oom:
            outcome = Outcome.DIVERGED if chance < self.cluster.diverge else Outcome.OOM
            return Course(seconds * share, outcome, {}, accuracy)
        looks: dict[int, float] = {}
        for iteration in _looks(job, iterations):
            reached = accuracy * (1 - 0.6 * math.exp(-4 * iteration / iterations)) + NOISE * draw.standard_normal()
            looks[iteration] = float(np.clip(reached, 0.01, 0.99))
            if looks[iteration] < job.rungs.get(iteration, 0.0):
                return Course(seconds * iteration / iterations, Outcome.STOPPED, looks, accuracy)
        return Course(seconds, Outcome.OK, looks, accuracy)

    def rows(self, job: Job, course: Course, outcome: Outcome, wall_s: float) -> list[dict[str, Any]]:
        """Return the rows that a trial leaves."""
        cell, config = job.cell, job.config
        inputs = TrialInputs(self.plan.data[cell.zca], self.plan.labels[cell.labels_key])
        shared = shared_columns(config, inputs, trial_options(self.plan.sweep, job))
        message = "" if outcome is Outcome.OK else End(outcome).message
        shared |= {"device": DEVICE, "outcome": outcome, "message": message, "wall_s": wall_s, "peak_memory_bytes": 0}
        first = config.eval_networks[0].name
        looks = [
            shared
            | {"iteration": at, "eval_backbone": first, "split": config.select_on, "accuracy": value, "loss": 1 - value}
            for at, value in course.looks.items()
        ]
        if outcome is not Outcome.OK:
            return looks or [shared]
        draw = self.seeds.child("score", job.trial).numpy()
        splits = SPLITS if self.plan.labels[cell.labels_key].clean is not None else ("val_noisy", "test")
        own = {"is_final": True, "is_selected": True, "iteration": int(config.params.get("iterations", 0))}
        scores = []
        for network in config.eval_networks:
            for repeat in range(config.repeats):
                for split in splits if self.plan.sweep.data.val_fraction else ("test",):
                    value = float(np.clip(course.accuracy + NOISE * draw.standard_normal(), 0.0, 1.0))
                    place = {"eval_backbone": network.name, "eval_seed": repeat, "split": split}
                    scores.append(shared | own | place | {"accuracy": value, "accuracy_best": value, "loss": 1 - value})
        return looks + scores

    def _seconds(self, cell: Cell, draw: np.random.Generator) -> float:
        known = self.recorded.get(_kind(cell))
        spread = math.exp(self.cluster.trial_sigma * draw.standard_normal())
        return float(draw.choice(known)) if known else self._medians[_kind(cell)] * spread

    def _median(self, kind: tuple[str, int | None]) -> float:
        given = self.cluster.trial_s
        if self.recorded.get(kind):
            return float(np.median(self.recorded[kind]))
        if isinstance(given, dict):
            given = next((given[name] for name in (*_names(kind), "default") if name in given), None)
        if given is None:
            name = _names(kind)[0]
            raise RequestError(
                f"how long does a trial of {name} take? Give trial_s in seconds (trial_s=1800, or a mapping with "
                f"{name!r} in a file), or --like RUN with trials of it that have ended"
            )
        return given

    def _surface(self, job: Job) -> float:
        cell = job.cell
        top = 0.5 + 0.4 * self.seeds.child("cell", cell.name).numpy().random()
        if not cell.space:
            return float(top)
        distance = 0.0
        for name, space in cell.space.items():
            best = self.seeds.child("optimum", cell.config.method, name).numpy().random()
            distance += (_unit(space, job.config.params[name]) - best) ** 2
        return float(top - FALL * distance / len(cell.space))


def _kind(cell: Cell) -> tuple[str, int | None]:
    return cell.config.method, cell.config.ipc


def _names(kind: tuple[str, int | None]) -> list[str]:
    method, ipc = kind
    return [*([f"{method} ipc {ipc}"] if ipc is not None else []), method]


def _looks(job: Job, iterations: int) -> list[int]:
    """Return the iterations after which a trial looks at the selection split (those of a real one)."""
    every = job.config.eval_every
    if not iterations or (not every and not job.rungs):
        return []
    regular = range(every, iterations + 1, every) if every else ()
    return sorted({*regular, *(rung for rung in job.rungs if rung <= iterations), iterations})


def _unit(space: SpaceSection, value: Any) -> float:
    """Return where a value lies in a range, from 0 to 1."""
    if space.choice is not None:
        return space.choice.index(value) / max(1, len(space.choice) - 1)
    low, high = space.uniform or space.log_uniform or space.int_uniform or (0.0, 1.0)
    if space.log_uniform is not None:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low))
