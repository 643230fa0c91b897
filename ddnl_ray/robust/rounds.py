"""What TAD decides about every training sample, round by round, and how right it is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.errors import CorruptFileError


@dataclass(frozen=True, eq=False)
class Round:
    """One split of N samples of C classes into trusted and untrusted ones, and new labels for the latter.

    Attributes:
        losses: Loss of every sample against its observed label [N].
        posterior: Confidence in that label [N], float64.
        thresholds: Confidence from which on a class's labels are trusted [C], float64.
        trusted: Whose observed label is kept, bool [N].
        reliability: Of the trusted samples [N], float64; 0 for the others, and where nothing is relabelled.
        pseudo_labels: Observed label of a trusted sample, new label of the others, int64 [N].
        margins: How far the new label leads [N]; 0 for the trusted, -1 where nothing speaks for any label.
        accepted: Whose new label is used, bool [N].
    """

    losses: Tensor
    posterior: Tensor
    thresholds: Tensor
    trusted: Tensor
    reliability: Tensor
    pseudo_labels: Tensor
    margins: Tensor
    accepted: Tensor

    @property
    def rows(self) -> Tensor:
        """The samples that are trained on: trusted or accepted, int64, ascending."""
        return (self.trusted | self.accepted).nonzero().flatten()


@dataclass(frozen=True, eq=False)
class Curation:
    """The outcome: which of N samples to train on, and with which labels.

    Attributes:
        observed: Observed labels, int64 [N].
        rounds: The rounds in order; none where the outer loop is off.
        rows: The samples that are trained on, int64, ascending.
        labels: Observed label of a trusted sample, new label of an accepted one, int64 [N]; of what is left out, the
            observed label.
    """

    observed: Tensor
    rounds: tuple[Round, ...]
    rows: Tensor
    labels: Tensor

    @classmethod
    def of(cls, observed: Tensor, rounds: tuple[Round, ...]) -> Curation:
        """Return what the last round decides about samples with observed labels [N]; without rounds, all is kept."""
        if not rounds:
            return cls(observed, (), torch.arange(len(observed), device=observed.device), observed)
        last = rounds[-1]
        labels = torch.where(last.accepted, last.pseudo_labels, observed)
        return cls(observed, rounds, last.rows, labels)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors; those of R rounds are stacked, [R, N] or [R, C]."""
        names = [field.name for field in dataclasses.fields(Round)] if self.rounds else []
        stacked = {name: torch.stack([getattr(each, name) for each in self.rounds]) for name in names}
        return {"observed": self.observed, "rows": self.rows, "labels": self.labels} | stacked

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Curation:
        """Rebuild a curation from :meth:`to_tensors`.

        Raises:
            CorruptFileError: A tensor is missing or unknown.
        """
        own, parts = {"observed", "rows", "labels"}, {field.name for field in dataclasses.fields(Round)}
        if set(tensors) not in (own, own | parts):
            raise CorruptFileError(
                f"a curation holds {sorted(tensors)}, expected {sorted(own | parts)}; delete its file to make it again"
            )
        number = len(tensors["trusted"]) if "trusted" in tensors else 0
        rounds = tuple(Round(**{name: tensors[name][index] for name in parts}) for index in range(number))
        return cls(tensors["observed"], rounds, tensors["rows"], tensors["labels"])


def quality(curation: Curation, clean: Tensor) -> list[dict[str, Any]]:
    """Return, for every round, how right its decisions are; a share of nothing is None.

    The keys are ``round`` (from 1), ``trusted`` (how many samples), ``precision`` (the share of them whose label is
    true), ``recall`` (the share of the samples with a true label that are trusted), ``accepted``,
    ``accepted_accuracy`` (the share of accepted labels that are true), ``rows`` (how many are trained on),
    ``label_accuracy`` (the share of those whose label is true) and ``histogram`` (their labels, counted by class).

    Args:
        curation: What was decided.
        clean: True labels, int64 [N].
    """
    true = curation.observed == clean
    found = []
    for number, each in enumerate(curation.rounds, start=1):
        right = each.pseudo_labels == clean
        kept = each.trusted | each.accepted
        histogram = torch.bincount(each.pseudo_labels[kept], minlength=len(each.thresholds))
        found.append(
            {
                "round": number,
                "trusted": int(each.trusted.sum()),
                "precision": share_of(true[each.trusted]),
                "recall": share_of(each.trusted[true]),
                "accepted": int(each.accepted.sum()),
                "accepted_accuracy": share_of(right[each.accepted]),
                "rows": int(kept.sum()),
                "label_accuracy": share_of(right[kept]),
                "histogram": histogram.tolist(),
            }
        )
    return found


def share_of(values: Tensor) -> float | None:
    """Return the share of true values, None of none."""
    return float(values.double().mean()) if len(values) else None


def auc(right: Tensor, scores: Tensor) -> float | None:
    """Return the area under the ROC curve; None where all labels are true, or all wrong.

    Args:
        right: Which samples are positive, bool [N].
        scores: What ranks them [N].
    """
    if bool(right.all()) or not bool(right.any()):
        return None
    # Imported here because it takes a second.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right.numpy(), scores.numpy()))
