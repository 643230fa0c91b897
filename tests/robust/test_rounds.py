"""What is decided about six samples, and how right it is, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.robust.rounds import Curation, Round, quality

OBSERVED = torch.tensor([0, 0, 1, 1, 2, 0])
CLEAN = torch.tensor([0, 1, 1, 2, 2, 0])


def decided(trusted: list[int], accepted: dict[int, int], **changes: Any) -> Round:
    """A round that trusts some samples and accepts a label for others."""
    masks = torch.zeros(2, 6, dtype=torch.bool)
    masks[0, trusted] = True
    labels = OBSERVED.clone()
    for row, label in accepted.items():
        masks[1, row], labels[row] = True, label
    values: dict[str, Any] = {
        "losses": torch.arange(6.0),
        "posterior": torch.linspace(1, 0, 6, dtype=torch.float64),
        "thresholds": torch.full((3,), 0.5, dtype=torch.float64),
        "trusted": masks[0],
        "reliability": torch.zeros(6, dtype=torch.float64),
        "pseudo_labels": labels,
        "margins": torch.zeros(6),
        "accepted": masks[1],
    }
    return Round(**(values | changes))


def curation() -> Curation:
    return Curation.of(OBSERVED, (decided([0, 1], {}), decided([0, 2, 3], {1: 1, 4: 0})))


def test_the_last_round_decides() -> None:
    found = curation()
    assert found.rows.tolist() == [0, 1, 2, 3, 4]
    assert found.labels.tolist() == [0, 1, 1, 1, 0, 0]


def test_a_label_that_is_not_accepted_is_not_used() -> None:
    labels = torch.tensor([0, 2, 2, 2, 2, 2])
    found = Curation.of(OBSERVED, (decided([0], {}, pseudo_labels=labels),))
    assert found.rows.tolist() == [0]
    assert torch.equal(found.labels, OBSERVED)


def test_without_rounds_all_is_kept() -> None:
    found = Curation.of(OBSERVED, ())
    assert found.rows.tolist() == list(range(6))
    assert torch.equal(found.labels, OBSERVED)
    assert quality(found, CLEAN) == []


def test_quality_by_hand() -> None:
    """Labels 0, 2, 4 and 5 are right, so the first round trusts one of four and the second two."""
    first, second = quality(curation(), CLEAN)
    assert first == {
        "round": 1,
        "trusted": 2,
        "precision": 0.5,
        "recall": 0.25,
        "accepted": 0,
        "accepted_accuracy": None,
        "rows": 2,
        "label_accuracy": 0.5,
        "histogram": [2, 0, 0],
    }
    assert second == {
        "round": 2,
        "trusted": 3,
        "precision": pytest.approx(2 / 3),
        "recall": 0.5,
        "accepted": 2,
        "accepted_accuracy": 0.5,
        "rows": 5,
        "label_accuracy": pytest.approx(3 / 5),
        "histogram": [2, 3, 0],
    }


@pytest.mark.parametrize("made", [curation(), Curation.of(OBSERVED, ())])
def test_a_curation_survives_the_round_trip(made: Curation) -> None:
    tensors = made.to_tensors()
    back = Curation.from_tensors(tensors)
    again = back.to_tensors()
    assert set(again) == set(tensors)
    for name, value in tensors.items():
        assert again[name].dtype == value.dtype
        assert torch.equal(again[name], value)
    assert len(back.rounds) == len(made.rounds)
    assert quality(back, CLEAN) == quality(made, CLEAN)


@pytest.mark.parametrize("name", ["rows", "margins"])
def test_a_curation_that_lacks_a_tensor_is_refused(name: str) -> None:
    tensors = curation().to_tensors()
    del tensors[name]
    with pytest.raises(CorruptFileError, match=r"a curation holds .*delete its file to make it again"):
        Curation.from_tensors(tensors)
