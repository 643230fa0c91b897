"""Golden MixUp contrast beside the loss of trajectory matching: RDC on MTT, DATM and the like.

A reconstruction: Kim and Song (ICCV 2025) give the formulas for trajectory methods in a supplement that could not be
had. The loss of an iteration is ``L_traj + gmc_weight * L_GMC``. The contrast (:mod:`ddnl_ray.robust.contrast`) looks
through the weights from which the student starts, those of the iteration's expert at its start epoch, held still, and
mixes with the final golden set of that expert (:mod:`ddnl_ray.robust.rdc_experts`).

How it is reconstructed:
    - the contrast moves the images alone: neither label logits nor step size, and the network is no function of them;
    - soft labels are softmax probabilities of the label logits, without gradient, golden labels one-hot; the contrast
      ``released``, which takes one class at a time, reads the likeliest class;
    - an expert without golden samples adds nothing, whatever the contrast;
    - guards (``threshold``, ``max_loss``) judge the matching loss without the contrast, whose size has nothing to do
      with whether a segment was followed; a gradient that is not finite is refused as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import View
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc import contrast_gradient
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class GoldenTerm:
    """The contrast as a further term of a trajectory method (a :class:`ddnl_ray.distill.base.ImagesTerm`).

    Attributes:
        config: Settings; ``gmc`` is not ``none``.
        golden: The golden set of every expert, among the problem's training images; perhaps without members.
    """

    config: RdcConfig
    golden: Sequence[Golden]

    def gradient(
        self, images: Tensor, labels: Tensor, expert: int, theta: Tensor, problem: Problem, seed: SeedTree
    ) -> Tensor:
        """Return the gradient of the weighted contrast (see :meth:`ImagesTerm.gradient`)."""
        golden = self.golden[expert]
        if not bool(golden.member.any()):
            return torch.zeros_like(images)
        known = labels.detach().softmax(1) if labels.is_floating_point() else labels
        _, gradient = contrast_gradient(images, problem, theta, View(), golden, self.config, seed, known)
        return gradient


def golden_term(config: RdcConfig, golden: Sequence[Golden]) -> GoldenTerm | None:
    """Return the term of some settings; None: they have no contrast."""
    return GoldenTerm(config, golden) if config.contrasts else None
