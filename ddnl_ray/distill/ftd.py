"""FTD: Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation (Du et al., CVPR 2023).

arXiv 2211.11004; authors' code: AngusDujw/FTD-distillation. MTT with experts that walk through flat regions (GSAM, see
:mod:`ddnl_ray.experts.gsam`), and an exponential moving average of the images. After every update::

    average_i = ema_decay * average_{i-1} + (1 - ema_decay) * images_i

from the first images on, without bias correction: at the published 0.9999 they still have a weight of 0.61 after 5000
updates. The step size is not averaged.

Differs from the original:
    - the points of :mod:`ddnl_ray.distill.trajectory`; an update that the guard refuses moves nothing, the average
      included;
    - each set is scored by networks of its own (the original trains one network on the images and then goes on with it
      on the average, so that its accuracy is that of a network which saw both). ``export`` says which set is handed
      over; runs that differ in it alone pass through the same states;
    - the average is exported by default; which of the two sets the paper's table reports is not said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ddnl_ray.distill.adjoint import MatchGradient
from ddnl_ray.distill.base import Distilled, Method, Problem, StepInfo
from ddnl_ray.distill.mtt import MttConfig, draw_start_epoch, first_state
from ddnl_ray.distill.trajectory import TrajectoryState, apply_update, matching_gradient
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class FtdConfig(MttConfig):
    """Hyper-parameters of FTD: MTT's, and those of the average."""

    ema_decay: float
    """How much of the average is kept at an update."""
    export: str = "average"
    """Which images are handed over: the ``average`` or the ``last`` ones."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise RequestError(f"ema_decay must lie in [0, 1), but got {self.ema_decay}")
        require_known("export", self.export, ["average", "last"])


@dataclass(frozen=True)
class Ftd(Method[TrajectoryState]):
    """Flat Trajectory Distillation."""

    config: FtdConfig
    name: ClassVar[str] = "ftd"
    state: ClassVar[type[TrajectoryState]] = TrajectoryState
    needs_experts: ClassVar[bool] = True
    matches_trajectories: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> TrajectoryState:
        """Return MTT's first state with the first images as their average (see :meth:`Method.init`)."""
        first = first_state(self.config, problem, seed)
        return replace(first, average=first.images.clone())

    def step(self, state: TrajectoryState, problem: Problem, seed: SeedTree) -> tuple[TrajectoryState, StepInfo]:
        """Match one segment, move the set and its average (see :meth:`Method.step`)."""
        start_epoch = draw_start_epoch(state, self.config, seed)
        gradient = matching_gradient(state, self.config, problem, start_epoch, seed)
        return averaged_update(state, gradient, self.config)

    def export(self, state: TrajectoryState, problem: Problem) -> Distilled:
        """Return the average or the last images, as the configuration says, with labels and step size."""
        assert state.average is not None
        images = state.average if self.config.export == "average" else state.images
        return Distilled(images.clone(), state.labels.clone(), float(state.step_size))


def averaged_update(
    state: TrajectoryState, gradient: MatchGradient, config: FtdConfig
) -> tuple[TrajectoryState, StepInfo]:
    """Take MTT's guarded step; where it is accepted, let the average follow the images."""
    moved, info = apply_update(state, gradient, config, config.max_loss)
    if not info.accepted:
        return moved, info
    assert state.average is not None
    average = config.ema_decay * state.average + (1 - config.ema_decay) * moved.images
    return replace(moved, average=average), info
