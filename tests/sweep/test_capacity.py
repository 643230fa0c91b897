"""How many trials a cluster holds that has not grown yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ddnl_ray.errors import RequestError
from ddnl_ray.sweep import capacity
from ddnl_ray.sweep.capacity import max_concurrent, planned_workers
from ddnl_ray.sweep.schema import ResourcesSection

HEAD = {"resources": {"CPU": 0}, "node_config": {}}
CPU = {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 3}
GPU = {"resources": {"CPU": 8, "GPU": 1}, "node_config": {}, "max_workers": 2}


class Connected:
    """A cluster that has so much now."""

    def __init__(self, **resources: float) -> None:
        self.resources = resources

    def cluster_resources(self) -> dict[str, float]:
        return self.resources


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(capacity, "BOOTSTRAP", path)
    return path


def write(path: Path, most: int, **types: Any) -> None:
    document = {"head_node_type": "head", "max_workers": most, "available_node_types": {"head": HEAD, **types}}
    path.write_text(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("now", "cpu", "gpu", "fits"),
    [
        ({}, 1, 0, 16 + 4),
        ({}, 1, 0.25, 8),
        ({}, 3, 0, 2 * 2 + 1),
        ({}, 1, 1, 2),
        ({"CPU": 64.0}, 1, 0, 64),
        ({"CPU": 1.0}, 1, 0, 20),
    ],
)
def test_workers_that_may_come_are_counted(
    bootstrap: Path, now: dict[str, float], cpu: float, gpu: float, fits: int
) -> None:
    write(bootstrap, 3, cpu=CPU, gpu=GPU)
    assert max_concurrent(Connected(**now), ResourcesSection(cpu=cpu, gpu=gpu), grows=True) == fits


def test_what_fits_on_no_node_is_refused(bootstrap: Path) -> None:
    write(bootstrap, 3, cpu=CPU, gpu=GPU)
    with pytest.raises(RequestError, match="needs cpu: 9 and gpu: 0, but there are 8 and 1 at most on one node"):
        max_concurrent(Connected(), ResourcesSection(cpu=9), grows=True)


@pytest.mark.parametrize("grows", [False, True])
def test_a_machine_and_a_cluster_without_a_file_have_what_they_have(bootstrap: Path, grows: bool) -> None:
    if not grows:
        write(bootstrap, 3, cpu=CPU)
    assert max_concurrent(Connected(CPU=2.0), ResourcesSection(), grows) == 2
    with pytest.raises(RequestError, match="there are 2 and 0 there"):
        max_concurrent(Connected(CPU=2.0), ResourcesSection(cpu=3), grows)


def test_fixed_hosts_are_not_counted_twice(bootstrap: Path) -> None:
    types = {"local.cluster.node": {"node_config": {}, "resources": {}, "max_workers": 2}}
    bootstrap.write_text(
        yaml.safe_dump({"head_node_type": "local.cluster.node", "max_workers": 2, "available_node_types": types})
    )
    assert planned_workers(bootstrap) == []


def test_the_limit_of_all_workers_holds_across_types(bootstrap: Path) -> None:
    write(bootstrap, 4, cpu=CPU, gpu=GPU)
    assert [node["CPU"] for node in planned_workers(bootstrap)] == [8, 8, 4, 4]
    write(bootstrap, 1, cpu={**CPU, "max_workers": 0}, gpu={"resources": GPU["resources"]})
    assert [node["CPU"] for node in planned_workers(bootstrap)] == [8]
