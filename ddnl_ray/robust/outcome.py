"""What a preparation has decided: the images from which a synthetic set starts, and how right the decisions are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.distill import Choice
from ddnl_ray.errors import RequestError
from ddnl_ray.robust.cleaned import CleanedLabels
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.preparation import Preparation
from ddnl_ray.robust.rdc_experts import GoldenSets
from ddnl_ray.robust.rounds import auc, quality, share_of
from ddnl_ray.robust.stages import Curated, Reliable


@dataclass(frozen=True)
class Trusted:
    """The real images from which a synthetic set starts, or, with cleaned labels, all that the method sees.

    Attributes:
        rows: int64 [m], ascending, of the training part.
        labels: Their labels, int64 [m].
    """

    rows: Tensor
    labels: Tensor

    def require_enough(self, cleaner: str, classes: Sequence[str], ipc: int | None) -> None:
        """Check that a cleaner has left every class as many images as are distilled.

        Args:
            cleaner: Its name.
            classes: The names of the classes.
            ipc: Images per class; None: the method takes what there is.

        Raises:
            RequestError: It has not, or has left none at all.
        """
        counts = torch.bincount(self.labels, minlength=len(classes))
        fewest = int(counts.argmin())
        advice = f"choose another {cleaner}.relabel or a lower {cleaner}.sure"
        if not len(self.labels):
            raise RequestError(f"{cleaner} keeps no image; {advice}")
        if ipc is not None and counts[fewest] < ipc:
            raise RequestError(
                f"{cleaner} leaves class {classes[fewest]!r} {int(counts[fewest])} training images, fewer than the ipc "
                f"{ipc}; use a smaller ipc, or {advice}"
            )


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
        if isinstance(made, CleanedLabels):
            rows, cleaned = made.kept(root, observed.device)
            return Trusted(rows, cleaned[rows])
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


def describe_trust(
    preparation: Preparation, clean: Tensor | None, observed: Tensor, root: Path
) -> dict[str, Any] | None:
    """Return how right the decisions of a preparation are; None: there are none, or nothing can be said of them.

    ``rounds`` are TAD's (:func:`ddnl_ray.robust.rounds.quality`); ``prior_auc`` and ``confidence_auc`` are the chance
    that SGR's prior, and the experts' confidence at their end, rank a sample with a true label above one with a wrong
    label; ``subset`` is TIAT's, with the share of true labels in it; ``golden`` are those of RDC's experts at their end
    (:func:`describe_choice`); ``cleaning`` is what a cleaner estimates, which needs no truth, and how right it is
    (:meth:`ddnl_ray.robust.cleaned.CleanedLabels.describe`).

    Args:
        preparation: What was made.
        clean: True labels of the training part, int64 [N]; None: nobody knows them.
        observed: Observed labels, int64 [N].
        root: The store.
    """
    cleanings = [made for made in preparation.first if isinstance(made, CleanedLabels)]
    if cleanings:
        return {"cleaning": cleanings[0].describe(observed, clean, root)}
    if clean is None or not (preparation.first or preparation.then):
        return None
    said: dict[str, Any] = {}
    right = clean.cpu() == observed.cpu()
    scores = preparation.scores
    if scores is not None:
        said["prior_auc"] = auc(right, scores.forgotten.prior(root, scores.config))
    for made in (*preparation.first, *preparation.then):
        if isinstance(made, Curated):
            said["rounds"] = quality(made.curation(root), clean.cpu())
        elif isinstance(made, Reliable):
            tensors, _ = made.read(root)
            rows = tensors["rows"]
            said["confidence_auc"] = auc(right, tensors["confidence"])
            said["subset"] = {"images": len(rows), "precision": float(right[rows].double().mean())}
        elif isinstance(made, GoldenSets):
            choices = [Choice(1, own.member, own.labels, own.relabelled) for own in made.sets(root, "cpu")]
            said["golden"] = [{"expert": i, **describe_choice(own, clean, observed)} for i, own in enumerate(choices)]
    return said


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
