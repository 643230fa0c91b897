"""ATT: Dataset Distillation by Automatic Training Trajectories (Liu et al., ECCV 2024, arXiv 2407.14245).

Authors' code: NiaLiu/ATT. MTT whose matched length adapts: of the ``n`` weights that the student visits, those nearest
to the expert's target are scored, with MTT's loss, and the gradient reaches the steps before them only. Of several at
the smallest distance the last is taken; the distance takes no part in the gradient. The images are averaged as in FTD.

Differs from the original:
    - the points of :mod:`ddnl_ray.distill.trajectory` and, for the average, of :mod:`ddnl_ray.distill.ftd`;
    - any distance can be the smallest (the original searches below 10000 and, where no step comes nearer, keeps the
      choice of the iteration before or has none);
    - a distance that is NaN is never the smallest; where all are, the loss is NaN and the update is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.distill.adjoint import End, Goal, score
from ddnl_ray.distill.base import Problem, StepInfo
from ddnl_ray.distill.ftd import Ftd, FtdConfig, averaged_update
from ddnl_ray.distill.mtt import draw_start_epoch
from ddnl_ray.distill.trajectory import TrajectoryState, matching_gradient
from ddnl_ray.errors import require_known
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class AttConfig(FtdConfig):
    """Hyper-parameters of ATT: MTT's, those of FTD's average, and the distance."""

    distance: str = "l1"
    """How near a step's weights are to the target: ``l1`` (the authors' code) or ``l2``."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        require_known("distance", self.distance, ["l1", "l2"])


@dataclass(frozen=True)
class Att(Ftd):
    """Automatic Training Trajectories: FTD, but for what a step matches."""

    config: AttConfig
    name: ClassVar[str] = "att"

    def step(self, state: TrajectoryState, problem: Problem, seed: SeedTree) -> tuple[TrajectoryState, StepInfo]:
        """Match one segment at the nearest step, move the set and its average (see :meth:`Method.step`)."""
        start_epoch = draw_start_epoch(state, self.config, seed)
        gradient = matching_gradient(state, self.config, problem, start_epoch, seed, self._approach)
        return averaged_update(state, gradient, self.config)

    def _approach(self, start: Tensor, target: Tensor) -> Goal:
        """Return the goal of passing near the target."""

        def goal(visited: Sequence[Tensor]) -> End:
            return score(visited, nearest_step(visited, target, self.config.distance), start, target)

        return goal


def nearest_step(visited: Sequence[Tensor], target: Tensor, distance: str) -> int:
    """Return the last step (1 to n) at the smallest distance from the target.

    NaN distances are passed over; where all are NaN it is step n, whose loss is NaN too.

    Args:
        visited: Weights [P] after the steps 1 to n.
        target: Expert weights [P].
        distance: ``l1``, the sum of absolute differences, or ``l2``.
    """
    order = 1 if distance == "l1" else 2
    distances = torch.stack([torch.linalg.vector_norm(theta - target, order) for theta in visited])
    smallest = distances.nan_to_num(nan=torch.inf, posinf=torch.inf).min()
    attaining = (distances <= smallest).nonzero()
    return int(attaining[-1]) + 1 if len(attaining) else len(visited)
