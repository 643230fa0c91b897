"""Evidence with known answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.measure.values import Evidence, MethodEvidence


@pytest.fixture
def method() -> Callable[..., MethodEvidence]:
    """Networks of five sets that are right on three of four samples, as they are of ten images per class."""

    def make(**changes: Any) -> MethodEvidence:
        right = np.full((4, 4), 5.0) + 55 * np.eye(4)  # 60 of 75 per class
        facts: dict[str, Any] = {
            "noise": "no noise",
            "unit": "distilled sets",
            "accuracies": {1: np.array([0.25, 0.24, 0.26, 0.25, 0.25]), 10: np.full(5, 0.8) + 0.001 * np.arange(5)},
            "ipc": 10,
            "retrained": np.full(5, 0.8),
            "confusions": np.stack([right] * 5),
            "gaps": np.array([0.6, 0.62, 0.58, 0.6, 0.6]),
            "images": 40,
        }
        return MethodEvidence(**{**facts, **changes})

    return make


@pytest.fixture
def evidence(method: Callable[..., MethodEvidence]) -> Callable[..., Evidence]:
    """A reference network that is certain and right, with latents of 4 distinct points, each met 30 times."""

    def make(**changes: Any) -> Evidence:
        labels = np.repeat(np.arange(4), 30)
        rng = np.random.default_rng(0)
        facts: dict[str, Any] = {
            "probabilities": np.full((120, 4), 1e-9) + (1 - 4e-9) * np.eye(4)[labels],
            "latents": 10 * np.eye(4)[labels] + 0.01 * rng.standard_normal((120, 4)),
            "labels": labels,
            "gradient_norms": np.full(120, 3.0),
            "parameters": 77,
            "chance": 0.25,
            "methods": {"datm": method()},
        }
        return Evidence(**{**facts, **changes})

    return make
