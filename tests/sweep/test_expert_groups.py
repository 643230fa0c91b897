"""Which experts a sweep trains together, what it counts, and what it refuses before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertStore, Trajectory
from ddnl_ray.robust import Derived
from ddnl_ray.sweep import local
from ddnl_ray.sweep.driver import Machine, run_sweep
from ddnl_ray.sweep.estimate import estimate
from ddnl_ray.sweep.local import build_all
from ddnl_ray.sweep.making import make_all
from ddnl_ray.sweep.needs import CellNeed, needs, require_trainable
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.schema import ExpertsSection

MakePlan = Callable[..., Plan]
DATM = ("grid.noise=[{kind: none}]", "grid.method=[datm]", "search.space={}")


class Watcher:
    """Keeps how many experts there were."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def stage(self, text: str) -> None: ...

    def experts(self, done: int, total: int) -> None:
        self.seen.append((done, total))

    def trials(self, studies: Any, running: int) -> None: ...


class Task:
    """Stands for the remote function, and for Ray: notes what it is asked for; the last task ends first."""

    def __init__(self) -> None:
        self.asked: list[dict[str, float]] = []
        self.groups: list[list[int]] = []

    def options(self, **resources: float) -> Task:
        self.asked.append(resources)
        return self

    def remote(self, *arguments: Any) -> int:
        self.groups.append(arguments[4])
        return len(self.groups) - 1

    def wait(self, references: list[int], num_returns: int, timeout: float | None) -> tuple[list[int], list[int]]:
        return [max(references)], sorted(references)[:-1]

    def get(self, reference: int) -> None: ...


def only_need(plan: Plan) -> CellNeed:
    (need,) = needs(plan, list(plan.cells)).values()
    return need


def keep(store: ExpertStore, need: CellNeed, index: int, last: int) -> None:
    """Store an expert that was trained up to an epoch."""
    store.save(need.buffer, index, Trajectory(torch.zeros(last + 1, 3), [0.0] * last))


@pytest.mark.parametrize(
    ("given", "on_gpu", "expected"), [(None, False, 1), (None, True, 8), (3, False, 3), (3, True, 3)]
)
def test_a_cpu_trains_one_at_a_time_unless_told(given: int | None, on_gpu: bool, expected: int) -> None:
    assert ExpertsSection(at_once=given).group_size(on_gpu) == expected


@pytest.mark.parametrize(
    ("overrides", "groups", "counts"),
    [
        ([], [[0], [2], [4], [5], [3]], [1, 2, 3, 4, 5, 6]),
        (["experts.at_once=2"], [[0, 2], [4, 5], [3]], [1, 2, 4, 6]),
        (["resources.gpu=0.5"], [[0, 2, 4, 5], [3]], [1, 2, 6]),
    ],
)
def test_a_task_trains_a_group(
    plan: MakePlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    groups: list[list[int]],
    counts: list[int],
) -> None:
    made, store, task, watcher = plan(*DATM, "budget.experts=6", *overrides), ExpertStore(tmp_path), Task(), Watcher()
    need = only_need(made)
    keep(store, need, 1, need.train_to)
    keep(store, need, 3, 1)
    monkeypatch.setattr("ddnl_ray.sweep.worker.run_experts", task)
    shelf: Any = SimpleNamespace(
        plan=made,
        store=store,
        root=str(tmp_path),
        data=lambda cell: SimpleNamespace(arrays="arrays", meta={}),
        labels=lambda cell: "labels",
    )
    make_all(task, shelf, made.cells, watcher)
    assert task.asked == [{"num_cpus": 1, "num_gpus": made.sweep.resources.gpu}] * len(groups)
    assert task.groups == groups
    assert watcher.seen == [(count, 6) for count in counts]


class Order:
    """Stands for both remote functions and for Ray: notes what is started, and after which."""

    def __init__(self) -> None:
        self.started: list[tuple[str, tuple[Any, ...]]] = []

    def options(self, **resources: float) -> Order:
        return self

    def remote(self, arrays: Any, meta: Any, labels: Any, made: Any, *others: Any) -> int:
        derived = isinstance(made, Derived)
        self.started.append((made.kind, others[3:]) if derived else ("experts", others[5:]))
        return len(self.started) - 1

    def wait(self, references: list[int], num_returns: int, timeout: float | None) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int) -> None: ...


def test_golden_sets_are_mined_when_all_their_experts_are_trained(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = "datm.max_start_epoch: 1, datm.current_max_start_epoch: 1, datm.expert_epochs: 1"
    overrides = ("grid.noise=[{kind: symmetric, rate: 0.4}]", "grid.method=[datm+rdc]", "search.space={}", "params={}")
    made, store, order = plan(*overrides, f"params={{{window}}}"), ExpertStore(tmp_path), Order()
    assert only_need(made).train_to == 3 > only_need(made).last_epoch == 1
    for name in ("run_experts", "run_derived"):
        monkeypatch.setattr(f"ddnl_ray.sweep.worker.{name}", order)
    shelf: Any = SimpleNamespace(
        plan=made,
        store=store,
        root=str(tmp_path),
        data=lambda cell: SimpleNamespace(arrays="arrays", meta={}),
        labels=lambda cell: "labels",
    )
    make_all(order, shelf, made.cells, Watcher())
    assert order.started == [("experts", ()), ("experts", ()), ("golden", (0, 1))]
    figures = estimate(made, tmp_path / "run", store)
    assert figures["derived"] == ["golden"]
    list(build_all(made, store, "cpu", rebuild=False))
    again = Order()
    monkeypatch.setattr("ddnl_ray.sweep.worker.run_derived", again)
    make_all(again, shelf, made.cells, Watcher())
    assert not again.started
    assert estimate(made, tmp_path / "run", store)["derived"] == []


def test_without_ray_experts_train_in_groups_too(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, grouped = (plan(*DATM, "budget.experts=3", *more) for more in ([], ["experts.at_once=2"]))
    key = only_need(made).buffer.key
    single, several = ExpertStore(tmp_path / "single"), ExpertStore(tmp_path / "several")
    assert list(build_all(made, single, "cpu", rebuild=False)) == [(key, 0), (key, 1), (key, 2)]
    asked, original = [], local.build_buffer

    def note(*arguments: Any) -> None:
        asked.append(arguments[3])
        original(*arguments)

    monkeypatch.setattr(local, "build_buffer", note)
    assert list(build_all(grouped, several, "cpu", rebuild=False)) == [(key, 0), (key, 1), (key, 2)]
    assert asked == [[0, 1], [2]]
    for index in range(3):
        np.testing.assert_allclose(several.load(key, index), single.load(key, index), rtol=1e-4, atol=1e-5)


def test_a_sweep_without_gpus_refuses_tf32_before_it_starts(plan: MakePlan, tmp_path: Path) -> None:
    made, store = plan(*DATM, "experts.precision=tf32"), ExpertStore(tmp_path / "store")
    need, watcher = only_need(made), Watcher()
    message = r"^experts\.precision: tf32 needs an NVIDIA GPU, but experts would train on the cpu"
    with pytest.raises(RequestError, match=message):
        run_sweep(made, tmp_path / "run", store, Machine(), watcher, rebuild=False)
    with pytest.raises(RequestError, match=message):
        list(build_all(made, store, "cpu", rebuild=False))
    assert watcher.seen == []
    found = {need.buffer.key: need}
    require_trainable(found, store, "cuda")
    for index in range(need.num_experts):
        keep(store, need, index, need.train_to)
    require_trainable(found, store, "cpu")  # what is there is only read


def test_a_plan_for_gpus_can_be_estimated_without_one(plan: MakePlan, tmp_path: Path) -> None:
    figures = estimate(plan(*DATM, "experts.precision=tf32"), tmp_path / "run", ExpertStore(tmp_path / "store"))
    assert figures["core_seconds"] > 0
