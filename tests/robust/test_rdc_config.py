"""RDC's options: published defaults, ranges, and the two schedules by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ddnl_ray.errors import RequestError
from ddnl_ray.robust.rdc_config import RdcConfig


def test_the_defaults_are_the_published_ones() -> None:
    config = RdcConfig()
    assert (config.warm_up, config.confidence, config.temperature, config.mixup) == (5, 0.95, 0.07, 0.75)
    assert (config.alpha, config.sharpen_temperature, config.steps_per_epoch) == (4, 0.5, 196)
    assert (config.gmc, config.ssl, config.gmc_weight) == ("paper", "dividemix1", 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gmc": "papers"}, r"unknown gmc 'papers': did you mean 'paper'"),
        ({"ssl": "dividemix"}, r"unknown ssl 'dividemix': did you mean 'dividemix1'"),
        ({"lr_decay": "third"}, r"unknown lr_decay 'third'.*half, released"),
        ({"cond_real": "clean"}, r"unknown cond_real 'clean'.*golden, noisy"),
        ({"warm_up": -1}, r"warm_up must be at least 0, but got -1"),
        ({"minimum_golden": -1}, r"minimum_golden must be at least 0, but got -1"),
        ({"steps_per_epoch": 0}, r"steps_per_epoch must be at least 1, but got 0"),
        ({"restarts": 0}, r"restarts must be at least 1, but got 0"),
        ({"max_images": 0}, r"max_images must be at least 1"),
        ({"max_anchors": 0}, r"max_anchors must be at least 1"),
        ({"views": 0}, r"views must be at least 1"),
        ({"labelled_batch": 0}, r"labelled_batch must be at least 1"),
        ({"unlabelled_batch": 0}, r"unlabelled_batch must be at least 1"),
        ({"confidence": 1.01}, r"confidence must lie in \[0, 1\], but got 1.01"),
        ({"mixup": -0.1}, r"mixup must lie in \[0, 1\], but got -0.1"),
        ({"temperature": 0.0}, r"temperature must be above 0, but got 0.0"),
        ({"alpha": 0.0}, r"alpha must be above 0"),
        ({"sharpen_temperature": float("nan")}, r"sharpen_temperature must be above 0, but got nan"),
        ({"gmc_weight": -1.0}, r"gmc_weight must be 0 or more, but got -1.0"),
        ({"unlabelled_weight": -1.0}, r"unlabelled_weight must be 0 or more"),
        (
            {"ssl": "released", "labelled_batch": 256},
            r"labelled_batch is 256 and unlabelled_batch 128; make them equal",
        ),
    ],
)
def test_a_value_out_of_its_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        RdcConfig(**values)


def test_values_at_the_ends_of_the_ranges_are_taken() -> None:
    RdcConfig(warm_up=0, minimum_golden=0, confidence=1.0, mixup=0.0, gmc_weight=0.0, unlabelled_weight=0.0, views=1)
    RdcConfig(ssl="released", labelled_batch=256, unlabelled_batch=256)


def test_the_learning_rate_falls_once_at_half_or_every_thirty_epochs() -> None:
    half, released = RdcConfig(), RdcConfig(lr_decay="released")
    assert [half.lr_factor(epoch, 150) for epoch in (0, 74, 75, 149)] == [1, 1, 0.1, 0.1]
    assert [half.lr_factor(epoch, 5) for epoch in range(5)] == [1, 1, 1, 0.1, 0.1]
    found = [released.lr_factor(epoch, 150) for epoch in (0, 29, 30, 59, 60, 149)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 1e-4])
