"""What the README says about a method of one's own, and what an installation without pytest is told."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from ddnl_ray.testing import MethodContract


def test_the_readme_s_method_keeps_the_contract(verdicts: dict[str, Any]) -> None:
    assert not verdicts["TestMeans"].failed
    assert set(verdicts["TestMeans"].passed) == {name for name in vars(MethodContract) if name.startswith("test_")} - {
        "test_reads_the_declared_epochs_alone"
    }


def test_without_pytest_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ddnl_ray.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ModuleNotFoundError, match=r"install it with  pip install 'ddnl-ray\[dev\]'"):
        importlib.import_module("ddnl_ray.testing")
