"""MTT: Dataset Distillation by Matching Training Trajectories (Cazenavette et al., CVPR 2022, arXiv 2203.11932).

Authors' code: GeorgeCazenavette/mtt-distillation. Learns the images and one step size; labels stay hard.

Differs from the original: see :mod:`ddnl_ray.distill.trajectory`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ddnl_ray.distill.base import Distilled, Method, Problem, StepInfo, pick_per_class
from ddnl_ray.distill.trajectory import (
    TrajectoryConfig,
    TrajectoryState,
    affordable_steps,
    apply_update,
    matching_gradient,
)
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class MttConfig(TrajectoryConfig):
    """Hyper-parameters of MTT."""

    pix_init: str = "real"
    """First images: ``real`` (random ones of the observed class) or ``noise`` (standard normal)."""
    max_loss: float = math.inf
    """Updates with a larger matching loss are skipped (the original has no such guard)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        require_known("pix_init", self.pix_init, ["real", "noise"])
        if not self.max_loss > 0:
            raise RequestError(f"max_loss must be above 0, but got {self.max_loss}")


@dataclass(frozen=True)
class Mtt(Method[TrajectoryState]):
    """Matching Training Trajectories."""

    config: MttConfig
    name: ClassVar[str] = "mtt"
    state: ClassVar[type[TrajectoryState]] = TrajectoryState
    needs_experts: ClassVar[bool] = True
    matches_trajectories: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> TrajectoryState:
        """Return the first state (see :meth:`Method.init`)."""
        return first_state(self.config, problem, seed)

    def step(self, state: TrajectoryState, problem: Problem, seed: SeedTree) -> tuple[TrajectoryState, StepInfo]:
        """Match one segment and move the set (see :meth:`Method.step`)."""
        start_epoch = draw_start_epoch(state, self.config, seed)
        gradient = matching_gradient(state, self.config, problem, start_epoch, seed)
        return apply_update(state, gradient, self.config, self.config.max_loss)

    def export(self, state: TrajectoryState, problem: Problem) -> Distilled:
        """Return images, hard labels and the learnt step size."""
        return Distilled(state.images.clone(), state.labels.clone(), float(state.step_size))


def first_state(config: MttConfig, problem: Problem, seed: SeedTree) -> TrajectoryState:
    """Return a state of ``ipc`` images per observed class, real or noise, with hard labels.

    Raises:
        RequestError: A class has fewer images than ``ipc``.
    """
    rows = pick_per_class(problem, seed.child("init"))
    images, labels = problem.images[rows], problem.labels[rows]
    if config.pix_init == "noise":
        noise = torch.randn(images.shape, generator=seed.child("init", "noise").torch())
        images = noise.to(images)
    kept = affordable_steps(problem, config, images, labels)
    return TrajectoryState.start(images, labels, config.lr_teacher, kept)


def draw_start_epoch(state: TrajectoryState, config: MttConfig, seed: SeedTree) -> int:
    """Draw the epoch at which an iteration's segment starts, uniformly below ``max_start_epoch``."""
    return int(seed.child("start", state.iteration).numpy().integers(0, config.max_start_epoch))
