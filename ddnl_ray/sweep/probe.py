"""How long a step takes here: times a few steps of each kind, for the plan's estimate."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from ddnl_ray.data import Dsa
from ddnl_ray.distill import Distilled
from ddnl_ray.distill.adjoint import match, reach
from ddnl_ray.distill.student import AutogradStudent, StudentBatch
from ddnl_ray.evaluate import Split, train_and_score
from ddnl_ray.experts import train_expert
from ddnl_ray.models import Flat, build
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
            distillation = self._student_step(cell) * params["syn_steps"] * params["iterations"]
        return distillation + self._evaluation(cell)

    def _student_step(self, cell: Cell) -> float:
        data, config = self.plan.data[cell.zca], cell.config
        size = (config.ipc or 1) * data.num_classes
        batch = min(config.params.get("batch_syn") or size, size)
        network = Flat(build(config.network, data.input_shape, data.num_classes, SeedTree.root(0).torch()))
        augment = Dsa(config.augment) if config.augment else None
        images = data.train_images[:batch]
        draw = None
        if augment is not None:
            draw = augment.draw(SeedTree.root(0).torch(), batch, data.input_shape[1], images.device)
        start = network.flatten()
        steps = [StudentBatch(torch.arange(batch), draw)] * PROBE_STEPS
        labels = torch.zeros(batch, data.num_classes)
        student, beta = AutogradStudent(network, augment), torch.tensor(0.01)
        seconds = _time(lambda: match(student, start, reach(start, start + 1), images, labels, beta, steps))
        return seconds / PROBE_STEPS

    def _evaluation(self, cell: Cell) -> float:
        data, config = self.plan.data[cell.zca], cell.config
        size = len(data.train_images) if config.ipc is None else config.ipc * data.num_classes
        rows = min(size, PROBE_STEPS * config.evaluation.batch_size)
        few = Split(data.test_images[:100], data.test_labels[:100])
        training = Distilled(data.train_images[:rows], torch.arange(rows) % data.num_classes, 0.01)
        recipe = dataclasses.replace(config.evaluation, epochs=1, checkpoints=1)
        trained = _time(
            lambda: train_and_score(
                training, recipe, config.network, data.num_classes, {"test": few}, "test", SeedTree.root(0)
            )
        )
        networks = len(config.eval_networks) * config.repeats
        return trained * config.evaluation.epochs * size / rows * networks


def _time(work: Any) -> float:
    """Return the seconds of the second of two runs, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work()
    started = time.perf_counter()
    work()
    torch.set_num_threads(threads)
    return time.perf_counter() - started
