"""What every trajectory-matching method shares: segments, student batches, guarded momentum steps.

One outer iteration (MTT, Cazenavette et al. 2022, Algorithm 1): take the next expert, a start epoch ``t`` and the
weights ``theta*_t`` and ``theta*_{t+M}``; train a student for ``n`` steps on the synthetic set from the first; move the
set so that the student ends nearer to the second.

Differs from the original (GeorgeCazenavette/mtt-distillation):
    - the gradient is the exact adjoint in constant memory, not a kept graph (same numbers);
    - all randomness comes from a seed tree (the original re-seeds the global generator from the clock);
    - ``iterations`` counts updates (the original runs one more);
    - an update is skipped whole, momentum included, where the loss is not finite or exceeds ``max_loss``; the step size
      is kept between 1e-5 and ten times its first value, or 0.1 where that is more (MTT's CIFAR-10 IPC 10 setting
      starts at 0.001 and learns its way past 0.01);
    - each pass over the experts has one order of all of them (the originals shuffle files, then experts in a file).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from ddnl_ray.distill.adjoint import GRAD_MODES, Goal, MatchGradient, blend, match, reach
from ddnl_ray.distill.base import Problem, State, StepInfo
from ddnl_ray.distill.student import Augmented, AutogradStudent, ConvNetStudent, InParts, Student, StudentBatch
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.models.parts import part_size
from ddnl_ray.models.second_order import is_supported
from ddnl_ray.seeds import SeedTree

MIN_STEP_SIZE = 1e-5
MAX_STEP_SIZE = 0.1


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig:
    """Hyper-parameters that all trajectory-matching methods have; names as in the MTT code base."""

    iterations: int = 5000
    """Outer updates of the synthetic set."""
    syn_steps: int
    """Student SGD steps per iteration (n)."""
    expert_epochs: int = 2
    """Epochs of the expert that the student must bridge (M)."""
    max_start_epoch: int
    """Start epochs are drawn below this one (exclusive)."""
    batch_syn: int | None = None
    """Synthetic images per student step; None: the whole set."""
    lr_img: float
    """Learning rate of the images."""
    lr_lr: float
    """Learning rate of the student's step size; 0 keeps it fixed."""
    lr_teacher: float = 0.01
    """First value of the student's step size."""
    momentum_img: float = 0.5
    """Momentum of the images and of the step size."""
    grad_mode: str = "adjoint"
    """Gradient through the student: ``adjoint`` (exact) or ``tesla`` (published approximation, no Hessian terms)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("grad_mode", self.grad_mode, GRAD_MODES)
        for name in ("iterations", "syn_steps", "expert_epochs", "max_start_epoch"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.batch_syn is not None and self.batch_syn < 1:
            raise RequestError(f"batch_syn must be at least 1 or null, but got {self.batch_syn}")
        for name in ("lr_img", "lr_lr"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        if not 0 <= self.momentum_img < 1:
            raise RequestError(f"momentum_img must lie in [0, 1), but got {self.momentum_img}")
        if not self.lr_teacher >= MIN_STEP_SIZE:
            raise RequestError(f"lr_teacher must be at least {MIN_STEP_SIZE}, but got {self.lr_teacher}")

    @property
    def max_step_size(self) -> float:
        """The largest step size that a student may learn."""
        return max(10 * self.lr_teacher, MAX_STEP_SIZE)

    @property
    def last_epoch(self) -> int:
        """The last expert epoch that matching can read."""
        return self.max_start_epoch - 1 + self.expert_epochs


@dataclass(frozen=True)
class TrajectoryState(State):
    """State of a trajectory-matching run.

    Attributes:
        images: Synthetic images [n, C, H, W].
        labels: Hard labels, int64 [n], or label logits [n, classes].
        step_size: The student's learning rate, scalar.
        velocity_images: Momentum buffer of the images.
        velocity_step_size: Momentum buffer of the step size.
        velocity_labels: Momentum buffer of the label logits; None where labels are hard.
        kept: How many of the first student steps keep their tapes.
        average: Moving average of the images [n, C, H, W]; None where the method has none.
    """

    images: Tensor
    labels: Tensor
    step_size: Tensor
    velocity_images: Tensor
    velocity_step_size: Tensor
    velocity_labels: Tensor | None
    kept: int
    average: Tensor | None = None

    @classmethod
    def start(cls, images: Tensor, labels: Tensor, step_size: float, kept: int = 0) -> TrajectoryState:
        """Return the state before the first iteration."""
        beta = torch.tensor(step_size, dtype=images.dtype, device=images.device)
        velocity = torch.zeros_like(labels) if labels.is_floating_point() else None
        return cls(
            0,
            images.clone(),
            labels.clone(),
            beta,
            torch.zeros_like(images),
            torch.zeros_like(beta),
            velocity,
            kept,
        )


def student_of(problem: Problem) -> Augmented:
    """Return the fastest student of a problem's network, which takes its batches in parts."""
    network = problem.network
    assert network is not None
    part = part_size(network.module, problem.images.shape[-1], problem.device, problem.smaller)
    assert part is not None  # a flat network has no batch normalisation
    student: Student = ConvNetStudent(network) if is_supported(network) else AutogradStudent(network)
    return Augmented(InParts(student, part), problem.augment)


def affordable_steps(problem: Problem, config: TrajectoryConfig, images: Tensor, labels: Tensor) -> int:
    """Return how many student steps may keep their tapes within the problem's memory, measured on one step.

    Args:
        problem: The problem.
        config: Size of the student's batches.
        images: Synthetic images [n, C, H, W].
        labels: Their labels, hard or soft.
    """
    assert problem.network is not None
    if not problem.graph_memory or problem.smaller:
        return 0
    size = min(config.batch_syn or len(images), len(images))
    each = student_of(problem).student.tape_bytes(problem.network.flatten(), images[:size], labels[:size])
    return min(config.syn_steps, problem.graph_memory // max(1, each))


def draw_expert(num_experts: int, iteration: int, seed: SeedTree) -> int:
    """Return the expert of an iteration: every expert once per pass, each pass in an order of its own."""
    turn, place = divmod(iteration, num_experts)
    return int(seed.child("experts", turn).numpy().permutation(num_experts)[place])


def draw_batches(num_images: int, config: TrajectoryConfig, problem: Problem, seed: SeedTree) -> list[StudentBatch]:
    """Draw the student's batches of one iteration, each with its augmentation.

    The set is permuted, cut into chunks of ``batch_syn`` and the chunks are used from the last one (which may be short)
    to the first, as the original pops them; a new permutation follows when they are used up.
    """
    generator = seed.torch()
    size = min(config.batch_syn or num_images, num_images)
    pool: list[Tensor] = []
    batches = []
    for _ in range(config.syn_steps):
        if not pool:
            pool = list(torch.randperm(num_images, generator=generator).split(size))
        index = pool.pop()
        draw = None
        if problem.augment is not None:
            draw = problem.augment.draw(generator, len(index), problem.images.shape[-1], problem.device)
        batches.append(StudentBatch(index.to(problem.device), draw))
    return batches


MakeGoal = Callable[[Tensor, Tensor], Goal]
"""Makes a goal of the expert weights where the student starts and of those that it should reach, both [P]."""


def matching_gradient(
    state: TrajectoryState,
    config: TrajectoryConfig,
    problem: Problem,
    start_epoch: int,
    seed: SeedTree,
    make_goal: MakeGoal = reach,
) -> MatchGradient:
    """Return loss and gradients of one iteration from a given start epoch.

    The problem's extra term adds to the gradient of the images. The loss is that of matching, which guards judge by.
    """
    start, target = segment(state, config, problem, start_epoch, seed)
    expert = expert_of(state, problem, seed)
    goal = make_goal(start, target)
    if problem.auxiliary is not None:
        second = problem.auxiliary.targets.snapshot(expert, start_epoch).to(problem.device)
        goal = blend(goal, start, target, second, problem.auxiliary.weight)
    batches = draw_batches(len(state.images), config, problem, seed.child("step", state.iteration))
    found = match(
        student_of(problem),
        start,
        goal,
        state.images,
        state.labels,
        state.step_size,
        batches,
        0 if problem.smaller else state.kept,
        config.grad_mode,
    )
    if problem.extra is None:
        return found
    own = seed.child("extra", state.iteration)
    turn = problem.extra.gradient(state.images, state.labels, expert, start, problem, own)
    return replace(found, images=found.images + turn)


def segment(
    state: TrajectoryState, config: TrajectoryConfig, problem: Problem, start_epoch: int, seed: SeedTree
) -> tuple[Tensor, Tensor]:
    """Return the weights [P] of an iteration's expert at the start epoch and ``expert_epochs`` later."""
    assert problem.experts is not None
    expert = expert_of(state, problem, seed)
    epochs = start_epoch, start_epoch + config.expert_epochs
    first, last = (problem.experts.snapshot(expert, epoch).to(problem.device) for epoch in epochs)
    return first, last


def expert_of(state: TrajectoryState, problem: Problem, seed: SeedTree) -> int:
    """Return the expert of the next iteration."""
    assert problem.experts is not None
    return draw_expert(len(problem.experts), state.iteration, seed)


T = TypeVar("T", bound=TrajectoryState)


def apply_update(
    state: T,
    gradient: MatchGradient,
    config: TrajectoryConfig,
    max_loss: float,
    lr_y: float = 0.0,
    momentum_y: float = 0.0,
) -> tuple[T, StepInfo]:
    """Take a guarded SGD-with-momentum step on images, step size and, where they are soft, labels.

    Args:
        state: The state before the step; left as it was.
        gradient: Loss and gradients at that state.
        config: Learning rates and momentum.
        max_loss: An update with a larger loss is refused (``math.inf``: only non-finite ones are).
        lr_y: Learning rate of the label logits.
        momentum_y: Momentum of the label logits.
    """
    loss = float(gradient.loss)
    parts = (gradient.images, gradient.labels, gradient.step_size)
    finite = all(part is None or bool(part.isfinite().all()) for part in parts)
    if not (loss <= max_loss and finite and loss < float("inf")):
        return replace(state, iteration=state.iteration + 1), StepInfo(loss if finite else math.nan, accepted=False)
    velocity_images = config.momentum_img * state.velocity_images + gradient.images
    velocity_step = config.momentum_img * state.velocity_step_size + gradient.step_size
    beta = (state.step_size - config.lr_lr * velocity_step).clamp(MIN_STEP_SIZE, config.max_step_size)
    labels, velocity_labels = state.labels, state.velocity_labels
    if gradient.labels is not None and velocity_labels is not None:
        velocity_labels = momentum_y * velocity_labels + gradient.labels
        labels = labels - lr_y * velocity_labels
    moved = replace(
        state,
        iteration=state.iteration + 1,
        images=state.images - config.lr_img * velocity_images,
        labels=labels,
        step_size=beta,
        velocity_images=velocity_images,
        velocity_step_size=velocity_step,
        velocity_labels=velocity_labels,
    )
    return moved, StepInfo(loss, accepted=True)
