"""How long a step takes here: times a few steps of each kind, for the plan's estimate."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from ddnl_ray.data import augmentation
from ddnl_ray.distill import Distilled, Problem
from ddnl_ray.distill.adjoint import match, reach
from ddnl_ray.distill.student import StudentBatch
from ddnl_ray.distill.trajectory import student_of
from ddnl_ray.evaluate import Split, train_and_score
from ddnl_ray.experts import ArrayExperts, train_expert
from ddnl_ray.models import Flat, build
from ddnl_ray.robust import compose
from ddnl_ray.seeds import SeedTree
from ddnl_ray.sweep.plan import Cell, Plan

PROBE_STEPS = 2


class Probe:
    """Times steps on this machine.

    Args:
        plan: The plan whose cells are timed.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def epoch_seconds(self, cell: Cell) -> float:
        """Return the seconds that one epoch of one expert of a cell takes."""
        data, config = self.plan.data[cell.zca], cell.config
        assert config.experts is not None
        recipe = config.experts
        rows = min(PROBE_STEPS * recipe.batch_size, len(data.train_images))
        labels = torch.arange(rows) % data.num_classes
        precision = "float32" if recipe.precision == "tf32" else recipe.precision  # this runs on the CPU
        short = dataclasses.replace(recipe, epochs=1, precision=precision)
        seconds = _time(
            lambda: train_expert(data.train_images[:rows], labels, data.num_classes, short, SeedTree.root(0))
        )
        return seconds * len(data.train_images) / rows

    def trial_seconds(self, cell: Cell) -> float:
        """Return the seconds that one trial of a cell takes: distillation and evaluation."""
        params = cell.config.params
        distillation = 0.0
        if "syn_steps" in params:
            work = self._student(cell)
            distillation = work.seconds_per_step() * params["syn_steps"] * params["iterations"]
        elif "iterations" in params:
            distillation = self._matching(cell) * params["iterations"]
        return distillation + self._evaluation(cell)

    def student_bytes(self, cell: Cell) -> int:
        """Return the bytes that the student of a trial holds at a time: tapes, one step's work and its weights."""
        if "syn_steps" not in cell.config.params:
            return 0
        work = self._student(cell)
        return work.tape_bytes * (work.kept + 1) + work.steps * work.start.nbytes

    def _student(self, cell: Cell) -> _StudentWork:
        params, data = cell.config.params, self.plan.data[cell.zca]
        size = (cell.config.ipc or 1) * data.num_classes
        num = min(params.get("batch_syn") or size, size, len(data.train_images))
        return _StudentWork(self._problem(cell, num), params["syn_steps"])

    def _matching(self, cell: Cell) -> float:
        """Return the seconds of one of the first steps of a method that matches class by class."""
        config = cell.config
        method, seed = compose(config.method).method(config.params), SeedTree.root(0)
        problem = self._problem(cell, len(self.plan.data[cell.zca].train_images))
        if method.needs_experts:
            assert problem.network is not None
            assert config.experts is not None
            epochs = tuple(sorted({*range(cell.last_epoch + 1), config.experts.epochs}))
            weights = problem.network.flatten().expand(len(epochs), -1).numpy()
            problem = dataclasses.replace(problem, experts=ArrayExperts([weights], epochs, epochs[-1]))
        state = method.init(problem, seed)
        return _time(lambda: method.step(state, problem, seed))

    def _problem(self, cell: Cell, num_images: int) -> Problem:
        """Return the cell's problem with as many images, their labels in turn."""
        data, config = self.plan.data[cell.zca], cell.config
        images = data.train_images[:num_images]
        return Problem(
            images=images,
            labels=torch.arange(num_images, device=images.device) % data.num_classes,
            num_classes=data.num_classes,
            ipc=config.ipc,
            network=Flat(build(config.network, data.input_shape, data.num_classes, SeedTree.root(0).torch())),
            augment=augmentation(config.augment),
            graph_memory=self.plan.sweep.budget.graph_memory_mb * 2**20,
            transform=data.transform,
        )

    def _evaluation(self, cell: Cell) -> float:
        data, config = self.plan.data[cell.zca], cell.config
        per_class = (config.ipc or 0) * config.params.get("factor", 1) ** 2
        per_class *= 2 if config.params.get("flip") is True else 1  # mirrored copies
        size = len(data.train_images) if config.ipc is None else per_class * data.num_classes
        rows = min(len(data.train_images), size, PROBE_STEPS * config.evaluation.batch_size)
        few = Split(data.test_images[:100], data.test_labels[:100])
        training = Distilled(data.train_images[:rows], torch.arange(rows) % data.num_classes, 0.01)

        def seconds(epochs: int) -> float:
            recipe = dataclasses.replace(config.evaluation, epochs=epochs, checkpoints=1)
            networks, splits = (config.network, data.num_classes), {"test": few}
            return _time(lambda: train_and_score(training, recipe, *networks, splits, "test", SeedTree.root(0)))

        once = seconds(1)  # with the making of the network and its scoring
        epoch = max(0.0, seconds(1 + PROBE_STEPS) - once) / PROBE_STEPS * size / rows
        return (once + epoch * config.evaluation.epochs) * len(config.eval_networks) * config.repeats


class _StudentWork:
    """A student that takes two steps on as many images as a trial's, with the labels that cost most (soft ones).

    Args:
        problem: Images, network and memory as in the trial.
        steps: Student steps of an iteration.
    """

    def __init__(self, problem: Problem, steps: int) -> None:
        assert problem.network is not None
        self.problem, self.steps, self.student = problem, steps, student_of(problem)
        self.start = problem.network.flatten()
        self.labels = torch.zeros(len(problem.images), problem.num_classes)
        self.tape_bytes = self.student.student.tape_bytes(self.start, problem.images, self.labels)
        self.kept = min(steps, problem.graph_memory // self.tape_bytes)

    def seconds_per_step(self) -> float:
        """Return the seconds of one student step, forth and back, averaged over those that keep a tape or do not."""
        kept, left = self.kept, self.steps - self.kept
        seconds = (kept * self._seconds(PROBE_STEPS) if kept else 0.0) + (left * self._seconds(0) if left else 0.0)
        return seconds / (self.steps * PROBE_STEPS)

    def _seconds(self, kept: int) -> float:
        problem, draw, index = self.problem, None, torch.arange(len(self.problem.images))
        if problem.augment is not None:
            draw = problem.augment.draw(SeedTree.root(0).torch(), len(index), problem.images.shape[-1], index.device)
        batches = [StudentBatch(index, draw)] * PROBE_STEPS
        goal, beta = reach(self.start, self.start + 1), torch.tensor(0.01)
        return _time(lambda: match(self.student, self.start, goal, problem.images, self.labels, beta, batches, kept))


def _time(work: Any) -> float:
    """Return the seconds of the second of two runs, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work()
    started = time.perf_counter()
    work()
    torch.set_num_threads(threads)
    return time.perf_counter() - started
