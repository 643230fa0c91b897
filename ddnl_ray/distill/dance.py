"""DANCE: dual-view distribution alignment (Zhang et al., IJCAI 2024, arXiv 2406.01063).

Authors' code: Hansong-Zhang/DANCE, built on IDC's. Pixels with several images stored in one. Every iteration takes one
expert with first weights ``theta_0`` and last weights ``theta_T``, and moves the images twice:

- inner-class view: under ``theta = lambda theta_0 + (1 - lambda) theta_T`` with a random ``lambda`` in [0, 1) the mean
  embedding of each class comes nearer to that of its real images (as in :mod:`ddnl_ray.distill.dm`);
- inter-class view: under ``theta_T`` their cross-entropy falls.

Differs from the original:
    - all classes step at once (:mod:`ddnl_ray.distill.classwise`), once in either view; there one momentum buffer goes
      through both views, so that the last classes of one still drift while the next begins;
    - every crop starts as a random image of the observed class (there: the first ones in the order of the file); a
      class with fewer images gives some twice;
    - a class's real images are drawn anew in every iteration (there: in shuffled passes through the class);
    - ``lr_img`` is that for 10 images per class and always grows with their number (there: with one flag);
    - pixels are clamped when they are handed over, too (there: saved as the last step leaves them);
    - nothing is differentiated with respect to the experts (there: gradients pile up in them, unused);
    - all experts of the problem are used (there: 20 are trained and 5 read);
    - no checkpoint is chosen on the test set;
    - stored pixels are transformed before they are cut. Per-channel statistics give the same either way; whitening
      does not, and there is none in the original;
    - ``calib_weight`` is ours; 1 is the original. An ablation without experts is left out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddnl_ray.data import Normalise
from ddnl_ray.data.augment import DiffAug
from ddnl_ray.distill.base import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.classwise import (
    INITS,
    Terms,
    View,
    class_gradient,
    class_labels,
    first_images,
    joint_rate,
    observed_pools,
    require_image_optimizer,
)
from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.seeds import SeedTree

LR_IPC = 10
"""Images per class for which ``lr_img`` is."""


@dataclass(frozen=True, kw_only=True)
class DanceConfig:
    """Hyper-parameters of DANCE."""

    iterations: int = 10_000
    """Updates of the images, each in both views."""
    lr_img: float = 0.1
    """Learning rate of the pixels at 10 images per class, in the authors' steps per class; proportional to their number
    (the authors' 0.01 per image)."""
    momentum: float = 0.5
    """Momentum of those steps; images move by the rate / (1 - momentum) times the gradient."""
    batch_real: int = 128
    """Real images per class and update."""
    batch_syn_max: int = 200
    """At most this many synthetic images of a class are used at once, a random choice of them."""
    factor: int = 2
    """Each stored image holds ``factor`` x ``factor`` training images."""
    init: str = "real"
    """First images: ``real`` (each crop a random image of the observed class) or ``noise`` (mean 0.5, deviation
    0.25)."""
    match_augment: str | None = "color_crop_cutout"
    """Strategy of :class:`ddnl_ray.data.augment.DiffAug` in both views, or None; the problem's own is not used."""
    iter_calib: int = 1
    """Updates of the inter-class view in one iteration; 0: none."""
    calib_weight: float = 1.0
    """Weight of its cross-entropy; 0 turns the view off."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_known("init", self.init, INITS)
        require_image_optimizer(self.iterations, self.batch_real, self.lr_img, self.momentum)
        for name in ("batch_syn_max", "factor"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, but got {getattr(self, name)}")
        for name in ("iter_calib", "calib_weight"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must be 0 or more, but got {getattr(self, name)}")
        try:
            self.augment  # noqa: B018
        except RequestError as error:
            raise RequestError(f"match_augment {self.match_augment!r}: {error}") from error

    @property
    def augment(self) -> DiffAug | None:
        """The augmentation of both views."""
        return None if self.match_augment is None else DiffAug(self.match_augment)

    @property
    def last_epoch(self) -> int:
        """The last expert epoch that is read, beside the final one."""
        return 0

    def rate(self, ipc: int) -> float:
        """Return by how much the gradient moves the pixels of a set of ``ipc`` images per class."""
        return joint_rate(self.lr_img * ipc / LR_IPC, self.momentum)


@dataclass(frozen=True)
class DanceState(State):
    """Images in training.

    Attributes:
        images: Stored pixels [classes * ipc, C, H, W], class by class; a step may leave them outside [0, 1].
    """

    images: Tensor


@dataclass(frozen=True)
class Dance(Method[DanceState]):
    """Dual-view distribution alignment."""

    config: DanceConfig
    name: ClassVar[str] = "dance"
    state: ClassVar[type[DanceState]] = DanceState
    needs_experts: ClassVar[bool] = True
    keeps_pixels: ClassVar[bool] = True
    reads_final: ClassVar[bool] = True

    def init(self, problem: Problem, seed: SeedTree) -> DanceState:
        """Return the first state (see :meth:`Method.init`)."""
        return DanceState(
            0, first_images(problem, seed.child("init"), self._view(problem), self.config.init, "nearest")
        )

    def step(self, state: DanceState, problem: Problem, seed: SeedTree) -> tuple[DanceState, StepInfo]:
        """Move the images in both views of one expert (see :meth:`Method.step`)."""
        assert problem.experts is not None
        assert problem.ipc is not None
        config, own = self.config, seed.child("step", state.iteration)
        generator = own.child("expert").torch()
        expert = int(torch.randint(len(problem.experts), (), generator=generator))
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        final = problem.experts.snapshot(expert, problem.experts.final_epoch).to(state.images)
        theta = interpolated(problem.experts.snapshot(expert, 0).to(state.images), final, share)
        turns = [(theta, Terms(), own.child("match"))]
        if config.calib_weight:
            terms = Terms(0.0, config.calib_weight)
            turns += [(final, terms, own.child("calibrate", turn)) for turn in range(config.iter_calib)]
        augmented, view = dataclasses.replace(problem, augment=config.augment), self._view(problem)
        pools, rate = observed_pools(problem), config.rate(problem.ipc)
        images, total = state.images.clamp(0, 1), state.images.new_zeros(())
        for weights, terms, source in turns:
            loss, gradient = class_gradient(images, augmented, weights, view, terms, pools, config.batch_real, source)
            images, total = images - rate * gradient, total + loss
        if not bool(total.isfinite() & images.isfinite().all()):
            return DanceState(state.iteration + 1, state.images), StepInfo(float("nan"), accepted=False)
        return DanceState(state.iteration + 1, images), StepInfo(float(total), accepted=True)

    def export(self, state: DanceState, problem: Problem) -> Distilled:
        """Return the stored images, as networks see them, with hard labels."""
        transform = self._view(problem).transform
        assert transform is not None
        return Distilled(transform.apply(state.images.clamp(0, 1)), class_labels(problem), factor=self.config.factor)

    def _view(self, problem: Problem) -> View:
        transform = problem.transform
        if transform is None:  # networks see pixels
            nothing = problem.images.new_zeros(problem.images.shape[1])
            transform = Normalise(nothing, nothing + 1)
        return View(self.config.factor, transform, self.config.batch_syn_max)


def interpolated(initial: Tensor, final: Tensor, share: float) -> Tensor:
    """Return weights [P] on the line between two: the initial ones at ``share`` 1, the final ones at 0."""
    return share * initial + (1 - share) * final
