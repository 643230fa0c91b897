"""DATM: Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching (Guo et al., ICLR 2024).

arXiv 2310.05773; authors' code: NUS-HPC-AI-Lab/DATM. The start epochs are aligned with the size of the set: early
ones for small sets, late ones for large sets, with a window that widens; labels are soft and learnt as logits.

Differs from the original:
    - the points of :mod:`ddnl_ray.distill.trajectory`;
    - no EMA: its configurations carry a decay, but its scripts never build one;
    - every class starts the search for correctly predicted images at expert 0 (the original keeps the substitute of
      the class before), searches each expert once, and fills what is missing with random images of the class (the
      original searches for ever, which heavy noise provokes);
    - an initial image that no expert classifies as its label gets the plain mean of all experts' logits (the original
      divides by zero and trains on NaN);
    - random first images take the logits of expert 0 (the original those of the first expert of a random file).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.distill.base import Distilled, Method, Problem, StepInfo, pick_per_class, shuffled_rows
from ddnl_ray.distill.trajectory import (
    TrajectoryConfig,
    TrajectoryState,
    affordable_steps,
    apply_update,
    matching_gradient,
)
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.experts.buffer import Experts
from ddnl_ray.seeds import SeedTree

SCAN_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class DatmConfig(TrajectoryConfig):
    """Hyper-parameters of DATM; names as in its configuration files."""

    iterations: int = 10000
    """Outer updates of the synthetic set."""
    lr_y: float
    """Learning rate of the label logits."""
    momentum_y: float = 0.9
    """Momentum of the label logits."""
    min_start_epoch: int = 0
    """Start epochs are drawn from this one on."""
    current_max_start_epoch: int | None = None
    """Where the sequential window ends at first (exclusive); None: the whole window from the start."""
    expansion_end_epoch: int = 1
    """Iteration at which the sequential window reaches ``max_start_epoch``."""
    pix_init: str = "samples_predicted_correctly"
    """First images: ``samples_predicted_correctly`` or ``real`` (random ones of the observed class)."""
    threshold: float = 1.0
    """Updates with a larger matching loss are skipped."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        require_known("pix_init", self.pix_init, ["samples_predicted_correctly", "real"])
        if not 0 <= self.min_start_epoch < self.max_start_epoch:
            raise RequestError(
                f"min_start_epoch must lie in [0, max_start_epoch), but got {self.min_start_epoch} "
                f"with max_start_epoch {self.max_start_epoch}"
            )
        first = self.current_max_start_epoch
        if first is not None and not self.min_start_epoch < first <= self.max_start_epoch:
            raise RequestError(
                f"current_max_start_epoch must lie in (min_start_epoch, max_start_epoch], but got {first} with "
                f"{self.min_start_epoch} and {self.max_start_epoch}"
            )
        if self.expansion_end_epoch < 1:
            raise RequestError(f"expansion_end_epoch must be at least 1, but got {self.expansion_end_epoch}")
        if not self.lr_y >= 0:
            raise RequestError(f"lr_y must be 0 or more, but got {self.lr_y}")
        if not 0 <= self.momentum_y < 1:
            raise RequestError(f"momentum_y must lie in [0, 1), but got {self.momentum_y}")
        if not self.threshold > 0:
            raise RequestError(f"threshold must be above 0, but got {self.threshold}")

    def upper_bound(self, iteration: int) -> int:
        """Return the exclusive upper bound of the start epochs at an iteration."""
        if self.current_max_start_epoch is None:
            return self.max_start_epoch
        widening = (self.max_start_epoch - self.current_max_start_epoch) * iteration // self.expansion_end_epoch
        return min(self.max_start_epoch, self.current_max_start_epoch + widening)


@dataclass(frozen=True)
class Datm(Method[TrajectoryState]):
    """Difficulty-Aligned Trajectory Matching."""

    config: DatmConfig
    name: ClassVar[str] = "datm"
    state: ClassVar[type[TrajectoryState]] = TrajectoryState
    needs_experts: ClassVar[bool] = True
    matches_trajectories: ClassVar[bool] = True
    reads_final: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> TrajectoryState:
        """Return the first state (see :meth:`Method.init`)."""
        assert problem.experts is not None
        seed = seed.child("init")
        if self.config.pix_init == "real":
            rows = pick_per_class(problem, seed)
            logits = final_logits(problem.experts, 0, problem, problem.images[rows])
        else:
            rows = pick_predicted_correctly(problem, seed)
            logits = correct_mean_logits(problem, rows)
        images = problem.images[rows]
        kept = affordable_steps(problem, self.config, images, logits)
        return TrajectoryState.start(images, logits, self.config.lr_teacher, kept)

    def step(self, state: TrajectoryState, problem: Problem, seed: SeedTree) -> tuple[TrajectoryState, StepInfo]:
        """Match one segment inside the window and move the set (see :meth:`Method.step`)."""
        bounds = self.config.min_start_epoch, self.config.upper_bound(state.iteration)
        start_epoch = int(seed.child("start", state.iteration).numpy().integers(*bounds))
        gradient = matching_gradient(state, self.config, problem, start_epoch, seed)
        return apply_update(
            state, gradient, self.config, self.config.threshold, self.config.lr_y, self.config.momentum_y
        )

    def export(self, state: TrajectoryState, problem: Problem) -> Distilled:
        """Return images, label probabilities and the learnt step size."""
        return Distilled(state.images.clone(), state.labels.softmax(1), float(state.step_size))


@torch.no_grad()
def final_logits(experts: Experts, expert: int, problem: Problem, images: Tensor) -> Tensor:
    """Return the logits [n, classes] of an expert's last weights on un-augmented images [n, C, H, W]."""
    assert problem.network is not None
    network = problem.network
    theta = experts.snapshot(expert, experts.final_epoch).to(problem.device)
    return torch.cat([network(theta, part) for part in images.split(SCAN_BATCH)])


def pick_predicted_correctly(problem: Problem, seed: SeedTree) -> Tensor:
    """Return rows of ``ipc`` images per class that an expert's last weights give their observed label.

    The images of a class are shuffled and filtered by the experts in turn until enough are found; what is still missing
    after the last expert is filled in shuffled order.

    Raises:
        RequestError: A class has fewer images than ``ipc``.
    """
    assert problem.ipc is not None
    assert problem.experts is not None
    rows = []
    for label, candidates in enumerate(shuffled_rows(problem, seed)):
        chosen: list[int] = []
        for expert in range(len(problem.experts)):
            for part in candidates.split(SCAN_BATCH):
                if len(chosen) >= problem.ipc:
                    break
                correct = final_logits(problem.experts, expert, problem, problem.images[part]).argmax(1) == label
                chosen += [row for row in part[correct].tolist() if row not in chosen]
        chosen += [row for row in candidates.tolist() if row not in chosen]
        rows += chosen[: problem.ipc]
    return torch.tensor(rows, device=problem.device)


def correct_mean_logits(problem: Problem, rows: Tensor) -> Tensor:
    """Return first label logits [n, classes]: the mean over the experts that classify the image as its label."""
    assert problem.experts is not None
    images, labels = problem.images[rows], problem.labels[rows]
    total = torch.zeros(len(rows), problem.num_classes, device=problem.device)
    correct_total, count = torch.zeros_like(total), torch.zeros(len(rows), 1, device=problem.device)
    for expert in range(len(problem.experts)):
        logits = final_logits(problem.experts, expert, problem, images)
        correct = (logits.argmax(1) == labels).unsqueeze(1)
        total += logits
        correct_total += logits * correct
        count += correct
    return torch.where(count > 0, correct_total / count.clamp(min=1), total / len(problem.experts))
