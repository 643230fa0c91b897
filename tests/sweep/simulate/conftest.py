"""Sweeps and clusters for simulations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.experts import ExpertStore
from ddnl_ray.sweep.plan import Plan, make_plan
from ddnl_ray.sweep.read import parse_sweep
from ddnl_ray.sweep.simulate.cluster import Cluster
from ddnl_ray.sweep.simulate.run import simulate
from ddnl_ray.sweep.watcher import Silent


@pytest.fixture(scope="session")
def sweep_of() -> Callable[..., Plan]:
    """Plan a sweep of ``cells`` cells (random coresets, or DM where there is a search) with sections changed."""

    def make(cells: int = 4, trials: int = 1, **sections: Any) -> Plan:
        space = {"dm.lr_img": {"log_uniform": [0.1, 10]}} if trials > 1 else {}
        document = {
            "name": "simulated",
            "data": {"subset": 400, "test_subset": 100},
            "grid": {"method": ["dm" if trials > 1 else "random"], "ipc": [1], "seed": list(range(cells))},
            "search": {"trials": trials, "space": space},
            "evaluate": {"repeats": 1},
            "model": {"name": "convnet1", "width": 4},
            "resources": {"cpu": 1, "gpu": 1},
        }
        return make_plan(parse_sweep({**document, **sections}, "here"))

    return make


@pytest.fixture
def simulated(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Simulate a plan; what is found, and the run folder as ``found["run"]``."""
    counter = iter(range(10**6))

    def run(plan: Plan, **cluster: Any) -> dict[str, Any]:
        folder = tmp_path / f"run{next(counter)}"
        described = Cluster(**{"gpus": 4, "gpus_per_node": 2, "trial_s": 100, "trial_sigma": 0, **cluster})
        return simulate(plan, folder, described, ExpertStore(tmp_path / "store"), Silent()) | {"run": folder}

    return run
