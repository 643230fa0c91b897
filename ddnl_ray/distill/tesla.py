"""TESLA: Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory (Cui et al., ICML 2023, arXiv 2211.10586).

Authors' code: justincui03/tesla. MTT with a gradient that takes every student step to depend on its own batch only
(``grad_mode: tesla``, see :mod:`ddnl_ray.distill.adjoint`), and, with ``teacher_label``, with the expert's soft labels:
at every iteration the labels are the logits that the iteration's target weights give the current images, without
augmentation. They are not learnt; the set has the probabilities of the last accepted iteration.

Differs from the original:
    - the points of :mod:`ddnl_ray.distill.trajectory`; an update that the guard refuses leaves the labels, too;
    - the image gradient is that of the paper's formula, twice that of the released code, which multiplies a tuple by 2
      where it means its entries. A learning rate of images that was tuned with that code must be halved;
    - the approximation is one choice: ``grad_mode: adjoint`` gives the exact gradient in the same memory;
    - soft labels work for every data set (the original's stop with an error outside ImageNet).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.distill.base import Distilled, Method, Problem, StepInfo
from ddnl_ray.distill.mtt import MttConfig, draw_start_epoch, first_state
from ddnl_ray.distill.trajectory import TrajectoryState, apply_update, matching_gradient, segment
from ddnl_ray.seeds import SeedTree

LABEL_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class TeslaConfig(MttConfig):
    """Hyper-parameters of TESLA: MTT's, and where the labels come from."""

    iterations: int = 10000
    """Outer updates of the synthetic set."""
    grad_mode: str = "tesla"
    """Gradient through the student: ``tesla`` (as published) or ``adjoint`` (exact)."""
    teacher_label: bool = False
    """Whether the labels are the soft ones of the iteration's expert; else they are the observed classes."""


@dataclass(frozen=True)
class Tesla(Method[TrajectoryState]):
    """Trajectory matching with soft label assignment."""

    config: TeslaConfig
    name: ClassVar[str] = "tesla"
    state: ClassVar[type[TrajectoryState]] = TrajectoryState
    needs_experts: ClassVar[bool] = True
    matches_trajectories: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> TrajectoryState:
        """Return the first state, whose labels are hard (see :meth:`Method.init`)."""
        return first_state(self.config, problem, seed)

    def step(self, state: TrajectoryState, problem: Problem, seed: SeedTree) -> tuple[TrajectoryState, StepInfo]:
        """Label the images, match one segment and move the set (see :meth:`Method.step`)."""
        start_epoch = draw_start_epoch(state, self.config, seed)
        labelled = state
        if self.config.teacher_label:
            _, target = segment(state, self.config, problem, start_epoch, seed)
            labelled = replace(state, labels=teacher_logits(problem, target, state.images))
        gradient = matching_gradient(labelled, self.config, problem, start_epoch, seed)
        moved, info = apply_update(labelled, gradient, self.config, self.config.max_loss)
        return moved if info.accepted else replace(state, iteration=moved.iteration), info

    def export(self, state: TrajectoryState, problem: Problem) -> Distilled:
        """Return images, hard labels or the last teacher's probabilities, and the learnt step size."""
        labels = state.labels.softmax(1) if state.labels.is_floating_point() else state.labels.clone()
        return Distilled(state.images.clone(), labels, float(state.step_size))


@torch.no_grad()
def teacher_logits(problem: Problem, theta: Tensor, images: Tensor) -> Tensor:
    """Return the logits [n, classes] that the weights [P] give un-augmented images [n, C, H, W]."""
    assert problem.network is not None
    network = problem.network
    return torch.cat([network(theta, part) for part in images.split(LABEL_BATCH)])
