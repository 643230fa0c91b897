"""What a preparation has decided: the images from which a synthetic set starts, and how right the decisions are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.distill import Choice
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.preparation import Preparation
from ddnl_ray.robust.rdc_experts import GoldenSets
from ddnl_ray.robust.rounds import quality, share_of
from ddnl_ray.robust.stages import Curated, Reliable


@dataclass(frozen=True)
class Trusted:
    """The real images from which a synthetic set starts.

    Attributes:
        rows: int64 [m], ascending, of the training part.
        labels: Their labels, int64 [m].
    """

    rows: Tensor
    labels: Tensor


def trusted(preparation: Preparation, observed: Tensor, root: Path) -> Trusted | None:
    """Return the images from which a synthetic set starts, on the device of the observed labels; None: all.

    Args:
        preparation: What was made.
        observed: Observed labels of the training part, int64 [N].
        root: The store.
    """
    for made in (*preparation.first, *preparation.then):
        if isinstance(made, Curated):
            found = made.curation(root)
            rows = found.rows.to(observed.device)
            return Trusted(rows, found.labels.to(observed)[rows])
        if isinstance(made, Reliable) and made.config.init_from_subset:
            rows = made.read(root)[0]["rows"].to(observed.device)
            return Trusted(rows, observed[rows])
    return None


def golden_sets(preparation: Preparation, root: Path, device: torch.device) -> tuple[Golden, ...] | None:
    """Return the golden set of every expert, perhaps without members; None: the experts have none."""
    for made in preparation.then:
        if isinstance(made, GoldenSets):
            return made.sets(root, device)
    return None


def describe_trust(preparation: Preparation, clean: Tensor, observed: Tensor, root: Path) -> dict[str, Any]:
    """Return how right the decisions of a preparation are.

    ``rounds`` are TAD's (:func:`ddnl_ray.robust.rounds.quality`); ``prior_auc`` and ``confidence_auc`` are the chance
    that SGR's prior, and the experts' confidence at their end, rank a sample with a true label above one with a wrong
    label; ``subset`` is TIAT's, with the share of true labels in it; ``golden`` are those of RDC's experts at their end
    (:func:`describe_choice`).

    Args:
        preparation: What was made.
        clean: True labels of the training part, int64 [N].
        observed: Observed labels, int64 [N].
        root: The store.
    """
    said: dict[str, Any] = {}
    right = clean.cpu() == observed.cpu()
    scores = preparation.scores
    if scores is not None:
        said["prior_auc"] = _auc(right, scores.forgotten.prior(root, scores.config))
    for made in (*preparation.first, *preparation.then):
        if isinstance(made, Curated):
            said["rounds"] = quality(made.curation(root), clean.cpu())
        elif isinstance(made, Reliable):
            tensors, _ = made.read(root)
            rows = tensors["rows"]
            said["confidence_auc"] = _auc(right, tensors["confidence"])
            said["subset"] = {"images": len(rows), "precision": float(right[rows].double().mean())}
        elif isinstance(made, GoldenSets):
            choices = [Choice(1, own.member, own.labels, own.relabelled) for own in made.sets(root, "cpu")]
            said["golden"] = [{"expert": i, **describe_choice(own, clean, observed)} for i, own in enumerate(choices)]
    return said


def _auc(right: Tensor, scores: Tensor) -> float | None:
    """Return the area under the ROC curve; None where all labels are true, or all wrong."""
    if bool(right.all()) or not bool(right.any()):
        return None
    # Imported here because it takes a second.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right.numpy(), scores.numpy()))


def describe_choice(choice: Choice, clean: Tensor, observed: Tensor) -> dict[str, Any]:
    """Return how right a method's choice of training images is; a share of nothing is None.

    The keys are ``members`` (how many are trusted), ``precision`` (the share of them whose label, a new one included,
    is true), ``recall`` (the share of the samples with a true observed label that are trusted with it), ``relabelled``
    (how many have a new label) and ``relabelled_accuracy`` (the share of those that is true).

    Args:
        choice: What was chosen.
        clean: True labels of the training part, int64 [N].
        observed: Observed labels, int64 [N].
    """
    clean, observed = clean.cpu(), observed.cpu()
    member, relabelled, labels = choice.member.cpu(), choice.relabelled.cpu(), choice.labels.cpu()
    right, true = labels == clean, observed == clean
    return {
        "members": int(member.sum()),
        "precision": share_of(right[member]),
        "recall": share_of((member & right)[true]),
        "relabelled": int(relabelled.sum()),
        "relabelled_accuracy": share_of(right[relabelled]),
    }
