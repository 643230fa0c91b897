"""Confident learning: labels that held-out probabilities contradict, as many of each pair of classes as are estimated.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021 (authors' code:
cleanlab). The joint distribution of observed and true labels is estimated from held-out probabilities; for every pair
of classes as many labels are suspected as it has there, those of the largest margin (:mod:`ddnl_ray.lnl.confident`).

Differs from the original:
    - what :mod:`ddnl_ray.lnl.confident` and :mod:`ddnl_ray.lnl.heldout` list;
    - a class keeps at least one label (``min_examples_per_class`` there);
    - the confidence in a label is its own probability (``self_confidence`` there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ddnl_ray.denoise.base import Cleaned, Problem, rows_normalised, settle
from ddnl_ray.denoise.folds import FoldsCleaner, FoldsCleanerConfig
from ddnl_ray.lnl.confident import confident_joint, suspects
from ddnl_ray.lnl.heldout import FoldsState


@dataclass(frozen=True, kw_only=True)
class ConfidentConfig(FoldsCleanerConfig):
    """Settings of confident learning."""

    relabel: str = "drop"
    """``drop``: suspects are left out, as the library's users do. ``noisy_only``: they get the most probable class."""


class Confident(FoldsCleaner):
    """See the module."""

    name: ClassVar[str] = "confident"

    def export(self, state: FoldsState, problem: Problem) -> Cleaned:
        """Return what the held-out probabilities say of the labels."""
        device, observed = problem.device, problem.labels
        probabilities = self.evidence(state, problem).probabilities
        labels = observed.cpu().numpy()
        joint = confident_joint(labels, probabilities.numpy())
        believed = torch.ones_like(observed, dtype=torch.bool)
        believed[[each.row for each in suspects(labels, probabilities.numpy(), joint)]] = False
        soft, counted = probabilities.to(device), torch.from_numpy(joint).to(device)
        confidence = soft.gather(1, observed[:, None]).squeeze(1)
        rate = float(1 - counted.trace() / counted.sum())
        return settle(self.config, observed, soft, confidence, believed, rate, rows_normalised(counted.T))
