"""Between the studies and Ray Tune: what is needed, what is handed out, and what becomes of a trial that dies."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.results import Outcome, read_rows
from ddnl_ray.sweep.driver import Execution, needs, verify_experts
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.local import build_all
from ddnl_ray.sweep.mirror import mirror
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.studies import Studies

MakePlan = Callable[..., Plan]


class Shelf:
    """Hands out names instead of references."""

    def data(self, cell: Any) -> str:
        return f"data {cell.zca}"

    def labels(self, cell: Any) -> str:
        return f"labels {cell.labels_key[1]}"

    def experts(self, cell: Any) -> tuple[str | None, str | None]:
        return (None, None) if cell.config.experts is None else ("experts", "key")


class Watcher:
    """Keeps the numbers of running trials."""

    def __init__(self) -> None:
        self.running: list[int] = []

    def stage(self, text: str) -> None: ...

    def experts(self, done: int, total: int) -> None: ...

    def trials(self, studies: Studies, running: int) -> None:
        self.running.append(running)


@pytest.fixture
def execution(plan: MakePlan, tmp_path: Path) -> Execution:
    made = plan("grid.noise=[{kind: symmetric, rate: 0.4}]")
    shelf: Any = Shelf()
    return Execution(made, Ledger(tmp_path / "run"), Studies(made, {}), shelf, Watcher())


def test_a_trial_travels_as_names_and_references(execution: Execution) -> None:
    started = execution.start("t1")
    assert started is not None
    payload = started["payload"]
    assert payload.run == str(execution.ledger.run.resolve())
    assert (payload.data, payload.labels, payload.experts, payload.expert_key) == ("data False", "labels 0", None, None)
    assert payload.job.trial.endswith("-0000")


def test_nothing_is_handed_out_while_nothing_is_ready(execution: Execution) -> None:
    """Two cells of one trial, and one of three of which two may run at once."""
    started = [execution.start(f"t{number}") for number in range(5)]
    assert [one is not None for one in started] == [True] * 4 + [False]
    watcher: Any = execution.watcher
    assert watcher.running == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("error", "message"), [(True, "its worker died 4 times"), (False, "it ended without a result")]
)
def test_a_trial_without_a_result_is_recorded_as_failed(execution: Execution, error: bool, message: str) -> None:
    execution.start("t1")
    job = execution.running["t1"]
    execution.end("t1", error)
    found = execution.ledger.read(job.trial)
    assert (found.outcome, found.message, found.value) == (Outcome.FAILED, message, None)
    assert found.params == job.config.params
    frame = read_rows(execution.ledger.parts / f"{job.trial}.parquet")
    assert (frame["cell"].iloc[0], frame["noise_rate"].iloc[0], frame["config_hash"].iloc[0]) == (
        job.cell.name,
        0.4,
        job.config.hash,
    )
    assert execution.running == {}
    assert job.trial in execution.studies.ended


def test_a_result_that_is_there_counts_whatever_tune_says(execution: Execution, row: Callable[..., Any]) -> None:
    execution.start("t1")
    job = execution.running["t1"]
    execution.ledger.publish(job.trial, [row(job.cell.name, job.trial, 0.75)], "val_noisy")
    execution.end("t1", error=True)
    assert execution.studies.ended[job.trial].value == 0.75
    frame = read_rows(execution.ledger.run / "results.parquet")
    assert set(frame["trial"]) == {job.trial}


def test_tunes_searcher_asks_the_studies(execution: Execution) -> None:
    from ray.tune.search import Searcher

    from ddnl_ray.sweep.tuning import CellSearcher

    searcher = CellSearcher(execution)
    jobs = 0
    while (found := searcher.suggest(f"t{jobs}")) is not None and found != Searcher.FINISHED:
        jobs += 1
    assert (jobs, found) == (4, None)
    for number in range(jobs):
        searcher.on_trial_complete(f"t{number}", error=True)
    assert isinstance(searcher.suggest("t4"), dict)
    assert searcher.suggest("t5") == Searcher.FINISHED
    assert pickle.loads(pickle.dumps(searcher)).execution is None  # Tune's snapshots do not carry the sweep


def test_needs_cover_every_cell_of_a_buffer(plan: MakePlan) -> None:
    made = plan("grid.ipc=[1, 2]", "grid.noise_seed=[0, 1]", "grid.noise=[{kind: symmetric, rate: 0.4}]")
    found = needs(made, list(made.cells))
    assert len(found) == 2
    for key, need in found.items():
        assert need.buffer.key == key
        assert (need.num_experts, need.last_epoch, need.epochs) == (2, 2, (0, 1, 2, 3))
    assert needs(made, [cell for cell in made.cells if cell.config.method == "random"]) == {}


def test_needs_reach_as_far_as_the_cell_that_reads_most(plan: MakePlan) -> None:
    params = ["params={}", "params={datm.expert_epochs: 1, datm.current_max_start_epoch: 1}"]
    made = plan(*params, "grid.datm.max_start_epoch=[3, 1]", "budget.expert_epochs=5", "grid.noise=[{kind: none}]")
    (need,) = needs(made, list(made.cells)).values()
    assert (need.last_epoch, need.epochs) == (3, (0, 1, 2, 3, 5))


def test_only_the_epochs_that_are_read_are_verified(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("grid.noise=[{kind: none}]", "budget.expert_epochs=5")
    store = ExpertStore(tmp_path / "store")
    assert len(list(build_all(made, store, "cpu", rebuild=False))) == 2
    found = needs(made, list(made.cells))
    ((key, need),) = found.items()
    assert need.epochs == (0, 1, 2, 5)
    shard = store.shard(key, 1)
    size = 4 * (store.load(key, 1, [0]).size)
    whole = shard.read_bytes()

    def damage(epoch: int) -> None:
        place = len(whole) - (6 - epoch) * size
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])

    damage(3)
    verify_experts(found, store, rebuild=False)
    damage(2)
    with pytest.raises(CorruptFileError, match=rf"^expert shard {shard} is corrupt: snapshot 2 does not match"):
        verify_experts(found, store, rebuild=False)
    verify_experts(found, store, rebuild=True)
    assert store.missing(key, 2) == [1]
    assert list(build_all(made, store, "cpu", rebuild=False)) == [(key, 1)]
    assert shard.read_bytes() == whole


def test_the_mirror_adds_each_trial_once(execution: Execution, row: Callable[..., Any]) -> None:
    import optuna

    path = execution.ledger.run / "studies.journal"
    for turn in range(2):
        while execution.start(str(len(execution.studies.ended) + len(execution.running))) is not None:
            pass
        for tune_id, job in list(execution.running.items()):
            rows = [row(job.cell.name, job.trial, 0.5, params='{"lr_img": 4.5}')]
            execution.ledger.publish(job.trial, rows, "val_noisy")
            execution.end(tune_id, error=False)
        mirror(execution.plan, execution.ledger)
        if turn == 0:
            path.write_bytes(path.read_bytes()[:-10])  # killed while it wrote
        mirror(execution.plan, execution.ledger)
        mirror(execution.plan, execution.ledger)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert [trial.user_attrs["trial"] for trial in trials] == [f"{name}-000{number}" for number in range(3)]
    assert all(trial.params == {"lr_img": 4.5} for trial in trials)
