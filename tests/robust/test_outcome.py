"""What is said of a method's choice, by hand."""

from __future__ import annotations

import json

import torch

from ddnl_ray.distill import Choice
from ddnl_ray.robust import describe_choice

OBSERVED = torch.tensor([0, 0, 1, 1, 2, 2])
CLEAN = torch.tensor([0, 1, 1, 0, 2, 0])


def choice(member: list[int], labels: list[int], relabelled: list[int]) -> Choice:
    return Choice(1, torch.tensor(member).bool(), torch.tensor(labels), torch.tensor(relabelled).bool())


def test_shares_by_hand() -> None:
    """Trusted: 0 (true), 1 (new label, true), 3 (new label, wrong), 5 (wrong); true labels left out: 2 and 4."""
    said = describe_choice(choice([1, 1, 0, 1, 0, 1], [0, 1, 1, 2, 2, 2], [0, 1, 0, 1, 0, 0]), CLEAN, OBSERVED)
    assert said == {
        "members": 4,
        "precision": 0.5,
        "recall": 1 / 3,
        "relabelled": 2,
        "relabelled_accuracy": 0.5,
    }
    assert json.loads(json.dumps(said)) == said


def test_a_share_of_nothing_is_none() -> None:
    said = describe_choice(choice([0] * 6, OBSERVED.tolist(), [0] * 6), CLEAN, OBSERVED)
    assert (said["members"], said["precision"], said["recall"], said["relabelled_accuracy"]) == (0, None, 0.0, None)
