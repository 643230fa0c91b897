"""Fixtures that every test package shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep every test on one thread, so that results do not depend on the machine's core count."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, where a developer has one; tests that need it skip without it."""
    root = Path(os.environ.get("DDNL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "cifar10").is_dir():
        pytest.skip(f"real images are not at {root}; set DDNL_TEST_DATA to the folder that holds cifar10/")
    return root
