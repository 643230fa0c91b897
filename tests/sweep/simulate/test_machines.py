"""Nodes and tasks in simulated time, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnl_ray.errors import RequestError
from ddnl_ray.sweep.schema import ResourcesSection
from ddnl_ray.sweep.simulate.cluster import Cluster
from ddnl_ray.sweep.simulate.machines import Machines, Task


def run(
    seconds: list[float], cluster: Cluster, gpu: float = 1.0, checkpoint_s: float = math.inf
) -> tuple[Machines, Any]:
    """Run tasks; return the machines, and when each task ended, by name."""
    machines = Machines(cluster, ResourcesSection(cpu=1, gpu=gpu))
    ended: dict[str, float] = {}

    def end(task: Task) -> None:
        assert task.name not in ended, "a task ended twice"
        ended[task.name] = machines.now

    for number, each in enumerate(seconds):
        machines.submit(Task(str(number), each, end, checkpoint_s))
    machines.run(lambda: None)
    machines.close()
    return machines, ended


@given(count=st.integers(1, 40), nodes=st.integers(1, 4), per_node=st.integers(1, 4), parts=st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_equal_tasks_take_as_many_turns_as_they_need(count: int, nodes: int, per_node: int, parts: int) -> None:
    cluster = Cluster(gpus=nodes * per_node, gpus_per_node=per_node)
    machines, ended = run([100.0] * count, cluster, gpu=1 / parts)
    turns = math.ceil(count / (nodes * per_node * parts))
    assert (len(ended), machines.now) == (count, 100.0 * turns)
    assert machines.hours.total == pytest.approx(100.0 * turns * nodes * per_node)
    assert machines.hours.busy == pytest.approx(100.0 * count / parts)
    assert machines.most_running == min(count, nodes * per_node * parts)


def test_a_task_that_is_interrupted_once_loses_what_its_checkpoint_lacks() -> None:
    """One node that is taken away at 250 s, back at 400 s; checkpoints every 100 s: 50 s of work are lost."""
    machines = Machines(Cluster(gpus=1, return_s=150), ResourcesSection(gpu=1))
    machines.submit(Task("one", 300.0, lambda task: None, checkpoint_s=100.0))
    (node,) = machines.nodes
    machines.at(250.0, lambda: machines._take_away(node, node.turn))
    machines.run(lambda: None)
    machines.close()
    assert machines.now == 250 + 150 + (300 - 200)
    hours = machines.hours
    assert (hours.busy, hours.lost, hours.idle, hours.total) == (300, 50, 0, 350)
    assert machines.longest_wait == 150


def test_a_task_without_checkpoints_starts_again() -> None:
    machines = Machines(Cluster(gpus=1, return_s=0), ResourcesSection(gpu=1))
    machines.submit(Task("one", 300.0, lambda task: None))
    (node,) = machines.nodes
    machines.at(250.0, lambda: machines._take_away(node, node.turn))
    machines.run(lambda: None)
    assert (machines.now, machines.hours.busy, machines.hours.lost) == (550, 300, 250)


def test_nodes_start_when_they_are_needed_and_stop_when_they_are_idle() -> None:
    """Three tasks on nodes of two: two nodes start; the one with a single short task stops 50 s after it."""
    cluster = Cluster(gpus=8, gpus_per_node=2, autoscale=True, start_s=30, idle_s=50)
    machines, ended = run([1000.0, 1000.0, 100.0], cluster)
    assert ended == {"0": 1030.0, "1": 1030.0, "2": 130.0}
    assert machines.hours.total == 2 * 1030 + 2 * 180
    assert machines.hours.busy == 2100
    assert machines.longest_wait == 30


@given(
    seconds=st.lists(st.floats(1, 5000), min_size=1, max_size=30),
    rate=st.floats(0, 3),
    autoscale=st.booleans(),
    interval=st.sampled_from([10.0, 300.0, math.inf]),
    gpu=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_hours_are_conserved_and_little_is_lost(
    seconds: list[float], rate: float, autoscale: bool, interval: float, gpu: float, seed: int
) -> None:
    cluster = Cluster(
        gpus=4, gpus_per_node=2, preempt_per_hour=rate, autoscale=autoscale, start_s=60, return_s=90, seed=seed
    )
    machines, ended = run(seconds, cluster, gpu, interval)
    again, ended_again = run(seconds, cluster, gpu, interval)
    assert ended == ended_again, "the same seed gives the same course"
    hours = machines.hours
    assert len(ended) == len(seconds)
    assert machines.most_running <= machines.slots
    assert hours.busy == pytest.approx(gpu * sum(seconds))
    assert hours.busy + hours.idle + hours.lost == pytest.approx(hours.total, abs=1e-3)
    most = machines.preemptions * machines.per_node * gpu * min(interval, max(seconds))
    assert 0 <= hours.lost <= most + 1e-6
    assert machines.now >= max(seconds)
    assert again.now == machines.now


@pytest.mark.parametrize(("gpu", "places"), [(0.25, 16), (0.3, 12), (0.5, 8), (0.6, 4), (1, 4), (2, 2)])
def test_a_share_of_a_gpu_is_of_one_gpu(gpu: float, places: int) -> None:
    assert Machines(Cluster(gpus=4, gpus_per_node=2), ResourcesSection(cpu=1, gpu=gpu)).slots == places


def test_cores_limit_too() -> None:
    cluster = Cluster(gpus=4, gpus_per_node=2, cpus_per_node=6)
    assert Machines(cluster, ResourcesSection(cpu=2, gpu=0.25)).slots == 6
    assert Machines(cluster, ResourcesSection(cpu=1.5, gpu=0)).slots == 8
    with pytest.raises(RequestError, match=r"^a trial needs cpu: 7 and gpu: 0, but a node of the cluster has 6 and 2;"):
        Machines(cluster, ResourcesSection(cpu=7))
    with pytest.raises(RequestError, match=r"^a trial needs cpu: 1 and gpu: 3, but"):
        Machines(cluster, ResourcesSection(gpu=3))
