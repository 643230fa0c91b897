"""The contracts that methods and experts keep, as tests to inherit: subclass one, say what is yours, run pytest.

Needs pytest, which the rest of the package does not: ``pip install 'ddnl-ray[dev]'``.
"""

from __future__ import annotations

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ddnl_ray.testing needs pytest, which is not installed; install it with  pip install 'ddnl-ray[dev]'"
    ) from error

from ddnl_ray.testing.experts import ExpertsContract
from ddnl_ray.testing.method import MethodContract
from ddnl_ray.testing.problems import toy_experts, toy_problem

__all__ = ["ExpertsContract", "MethodContract", "toy_experts", "toy_problem"]
