"""The schedule in thirds against torch's, and how recipes read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import BufferId, ExpertRecipe
from ddnl_ray.experts.schedule import thirds
from ddnl_ray.models import NetworkSpec

PLAIN = ExpertRecipe(network=NetworkSpec("convnet1", 4), lr=0.05)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 7, 12, 60, 80])
def test_thirds_is_torch_multi_step(total: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    milestones = [2 * total // 3, 5 * total // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)
    for done in range(total + 3):
        assert thirds(done, total) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_published_lengths() -> None:
    """DANCE: 60 epochs, decays after 40 and 50. Acc-DD: two epochs of a schedule of three, which decay nowhere."""
    dance, acc = (replace(PLAIN, schedule="thirds", schedule_epochs=total) for total in (60, 3))
    assert [dance.lr_at(epoch) for epoch in (0, 39)] == [0.05, 0.05]
    assert [dance.lr_at(epoch) for epoch in (40, 49, 50, 59)] == pytest.approx([0.01, 0.01, 0.002, 0.002])
    assert [acc.lr_at(epoch) for epoch in (0, 1, 2)] == pytest.approx([0.05, 0.05, 0.002])


def test_the_schedule_does_not_know_how_far_training_goes() -> None:
    long = replace(PLAIN, epochs=60, schedule="thirds", schedule_epochs=60)
    assert [replace(long, epochs=5).lr_at(epoch) for epoch in range(60)] == [long.lr_at(epoch) for epoch in range(60)]


def test_names_from_before_hold() -> None:
    old = {"network", "epochs", "batch_size", "lr", "momentum", "weight_decay", "augment", "optimizer", "rho", "alpha"}
    assert set(PLAIN.identity) == old
    assert set(replace(PLAIN, schedule_epochs=60).identity) == old
    thirds = replace(PLAIN, schedule="thirds", schedule_epochs=60, cutmix=0.5)
    assert set(thirds.identity) == old | {"schedule", "schedule_epochs", "cutmix"}


def test_a_buffer_is_named_after_the_schedule_and_the_mixing() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"cutmix": 0.5},
        {"schedule": "thirds", "schedule_epochs": 60},
        {"schedule": "thirds", "schedule_epochs": 3},
        {"augment": "diffaug:" + (PLAIN.augment or "")},
    ]
    keys = {BufferId("data", "labels", replace(PLAIN, **change), 0).key for change in changes}
    assert len(keys) == len(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "thirds"}, r"the schedule 'thirds' needs its length; set schedule_epochs \(DANCE: 60\)"),
        ({"schedule": "thirds", "schedule_epochs": 0}, "experts: schedule_epochs must be at least 1, but got 0"),
        ({"schedule": "third"}, "unknown expert schedule 'third': did you mean 'thirds'"),
        ({"cutmix": 2.0}, r"cutmix is a probability and must lie in \[0, 1\], but got 2.0"),
        ({"augment": "diffaug:flop"}, "unknown augmentation operation 'flop': did you mean 'flip'"),
    ],
)
def test_bad_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(PLAIN, **changes)
