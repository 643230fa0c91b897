"""Findings on hand-made labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.noise_rate import Evidence, Findings, Labels, find
from analysis.theory.estimate import Resampling

Make = Callable[..., Findings]


@pytest.fixture
def make() -> Make:
    """Find out about labels of which some were moved to other classes by a perfect network."""

    def findings(shifts: dict[int, list[int]], num: int = 60, given: Any = (), **changes: Any) -> Findings:
        """``shifts``: by how many classes the labels of which rows are moved."""
        true = np.arange(num) % 3
        labels = true.copy()
        for shift, rows in shifts.items():
            labels[rows] = (true[rows] + shift) % 3
        probabilities = np.full((num, 3), 0.05) + 0.85 * np.eye(3)[true]
        near = (np.arange(num)[:, None] + [3, 6, 9, 12]) % num
        facts: dict[str, Any] = {
            "data": "folder:x",
            "settings": {"data.name": "folder:x"},
            "suggested": "out/labels-suggested.csv",
            "classes": ("ant", "<bee>", "cat"),
            "observed": labels,
            "rows": 2 * np.arange(num),
            "clean": true,
        }
        evidence = Evidence(probabilities=probabilities, neighbours=near, source="Made by hand.")
        rng = np.random.default_rng(0)
        return find(Labels(**facts | changes), evidence, given, rng, Resampling(draws=40))

    return findings
