"""Between the studies and Ray Tune: what is needed, what is handed out, and what becomes of a trial that dies."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ExpertStore, build_experts
from ddnl_ray.files import read_tensors
from ddnl_ray.results import Outcome, read_rows
from ddnl_ray.sweep.driver import Execution
from ddnl_ray.sweep.estimate import estimate
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.local import build_all
from ddnl_ray.sweep.mirror import mirror
from ddnl_ray.sweep.needs import needs, verify_derived, verify_experts
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.probe import Probe
from ddnl_ray.sweep.studies import Studies

MakePlan = Callable[..., Plan]


class Shelf:
    """Hands out names instead of references."""

    def data(self, cell: Any) -> str:
        return f"data {cell.zca}"

    def labels(self, cell: Any) -> str:
        return f"labels {cell.labels_key[1]}"

    root = "store"

    def prepared(self, cell: Any) -> str | None:
        return None if cell.config.experts is None else "prepared"

    def stores(self) -> dict[str, Any]:
        return {"nodes": [], "streamed": {}}


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
    studies = Studies(made, {})
    return Execution(plan=made, ledger=Ledger(tmp_path / "run"), studies=studies, watcher=Watcher(), shelf=shelf)


def test_a_trial_travels_as_names_and_references(execution: Execution) -> None:
    started = execution.start("t1")
    assert started is not None
    payload = started["payload"]
    assert payload.run == str(execution.ledger.run.resolve())
    assert (payload.data, payload.labels, payload.prepared) == ("data False", "labels 0", None)
    assert payload.store == "store"
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
        assert (need.num_experts, need.last_epoch, need.epochs, need.train_to) == (2, 2, (0, 1, 2, 3), 3)
    assert needs(made, [cell for cell in made.cells if cell.config.method == "random"]) == {}


def test_needs_reach_as_far_as_the_cell_that_reads_most(plan: MakePlan) -> None:
    params = ["params={}", "params={datm.expert_epochs: 1, datm.current_max_start_epoch: 1}"]
    made = plan(*params, "grid.datm.max_start_epoch=[3, 1]", "budget.expert_epochs=5", "grid.noise=[{kind: none}]")
    (need,) = needs(made, list(made.cells)).values()
    assert (need.last_epoch, need.epochs, need.train_to) == (3, (0, 1, 2, 3, 5), 5)


MTT = (
    *("grid.method=[mtt]", "grid.noise=[{kind: none}]", "budget.expert_epochs=9", "search.space={}"),
    *("params={}", "params={mtt.max_start_epoch: 2, mtt.expert_epochs: 1}"),
)


def test_experts_train_no_further_than_the_window_where_nothing_reads_their_end(plan: MakePlan) -> None:
    made = plan(*MTT)
    (need,) = needs(made, list(made.cells)).values()
    assert (need.last_epoch, need.finals, need.epochs, need.train_to) == (2, frozenset(), (0, 1, 2), 2)
    assert need.buffer.recipe.epochs == 9


def test_cells_that_end_training_at_different_epochs_share_a_buffer(plan: MakePlan) -> None:
    """How long a recipe trains is not part of the buffer's name: each final epoch is held."""
    made = plan("grid.noise=[{kind: none}]", "grid.method=[datm]", "search.space={}")
    (cell,) = made.cells
    assert cell.config.experts is not None
    cells = []
    for epochs, experts in ((6, 3), (4, 5)):
        recipe = dataclasses.replace(cell.config.experts, epochs=epochs)
        config = dataclasses.replace(cell.config, experts=recipe, num_experts=experts)
        cells.append(dataclasses.replace(cell, config=config))
    for order in (cells, cells[::-1]):
        (need,) = needs(made, order).values()
        assert (need.num_experts, need.epochs, need.train_to) == (5, (0, 1, 2, 4, 6), 6)


def test_a_cell_sees_its_own_experts_of_a_shared_buffer(plan: MakePlan, tmp_path: Path) -> None:
    """What other cells need of a buffer must not change a trial."""
    from ddnl_ray.sweep.shared import BufferSource
    from ddnl_ray.sweep.shelf import Shelf as RealShelf

    made = plan("grid.noise=[{kind: none}]", "grid.method=[datm]", "search.space={}")
    (cell,) = made.cells
    shelf = RealShelf(None, made, ExpertStore(tmp_path))
    (key,) = needs(made, [cell])
    shelf._sources[key] = BufferSource(key, 7, (0, 1, 2, 3, 8), "float32")
    prepared = shelf.prepared(cell)
    assert (prepared.preparation.experts.key, prepared.targets) == (key, None)
    assert (len(prepared.experts), prepared.experts.final_epoch) == (2, 3)


def test_only_the_epochs_that_are_read_are_verified(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("grid.noise=[{kind: none}]", "budget.expert_epochs=5")
    store = ExpertStore(tmp_path / "store")
    assert len(list(build_all(made, store, "cpu", rebuild=False))) == 2
    found = needs(made, list(made.cells))
    ((key, need),) = found.items()
    assert need.epochs == (0, 1, 2, 5)
    (segment,) = store.segments(key)[1]
    size = 4 * (store.load(key, 1, [0]).size)
    whole = segment.data.read_bytes()

    def damage(epoch: int) -> None:
        place = len(whole) - (6 - epoch) * size
        segment.data.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])

    damage(3)
    verify_experts(found, store, rebuild=False)
    damage(2)
    message = rf"^expert segment {segment.data} is corrupt: snapshot 2 does not match"
    with pytest.raises(CorruptFileError, match=message):
        verify_experts(found, store, rebuild=False)
    verify_experts(found, store, rebuild=True)
    assert store.missing(key, 2, 5) == [1]
    assert list(build_all(made, store, "cpu", rebuild=False)) == [(key, 1)]
    assert segment.data.read_bytes() == whole


def test_a_longer_window_trains_only_what_is_new(plan: MakePlan, tmp_path: Path) -> None:
    """And leaves what training to the longer window at once would have left, bit for bit."""
    grown, direct = ExpertStore(tmp_path / "grown"), ExpertStore(tmp_path / "direct")
    momentum = ["experts.momentum=0.9", "experts.dtype=bfloat16"]
    short, longer = plan(*MTT, *momentum), plan(*MTT, *momentum, "params.mtt.max_start_epoch=5")
    ((key, need),) = needs(longer, list(longer.cells)).items()
    assert need.train_to == 5
    built = [list(build_all(made, grown, "cpu", rebuild=False)) for made in (short, longer, longer, short)]
    assert built == [[(key, 0), (key, 1)]] * 2 + [[]] * 2
    ends = [(segment.first, segment.last) for segment in grown.segments(key)[1]]
    assert ends == [(0, 2), (3, 5)]
    list(build_all(longer, direct, "cpu", rebuild=False))
    assert len(direct.segments(key)[0]) == 1
    for index in range(2):
        np.testing.assert_array_equal(grown.load(key, index), direct.load(key, index))


def test_an_expert_that_another_process_has_trained_is_not_trained(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store = plan(*MTT), ExpertStore(tmp_path)
    list(build_all(made, store, "cpu", rebuild=False))
    ((key, need),) = needs(made, list(made.cells)).items()
    before = store.segments(key)

    def fail(*_: object) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr("ddnl_ray.experts.build.train_experts", fail)
    data, labels = made.data[need.cell.zca], made.labels[need.cell.labels_key]
    for last in (1, 2):
        build_experts(data, labels, need.buffer, [0], last, store)
    assert store.segments(key) == before
    with pytest.raises(AssertionError, match="it was trained"):
        build_experts(data, labels, need.buffer, [0], 3, store)


def test_rebuilding_trains_from_the_last_good_segment(plan: MakePlan, tmp_path: Path) -> None:
    store = ExpertStore(tmp_path)
    for last in (2, 3, 5):
        made = plan(*MTT, f"params.mtt.max_start_epoch={last}")
        list(build_all(made, store, "cpu", rebuild=False))
    ((key, _),) = needs(made, list(made.cells)).items()
    first, second, _ = store.segments(key)[0]
    before = store.load(key, 0)
    second.data.write_bytes(second.data.read_bytes()[:-3] + b"bad")
    with pytest.raises(CorruptFileError, match=r"expert-00000\.00003-00003\.safetensors is corrupt"):
        list(build_all(made, store, "cpu", rebuild=False))
    kept = first.data.stat().st_mtime_ns
    assert list(build_all(made, store, "cpu", rebuild=True)) == [(key, 0)]
    assert first.data.stat().st_mtime_ns == kept
    assert [(segment.first, segment.last) for segment in store.segments(key)[0]] == [(0, 2), (3, 5)]
    np.testing.assert_array_equal(store.load(key, 0), before)


def test_the_estimate_counts_only_what_will_be_trained(plan: MakePlan, tmp_path: Path) -> None:
    store = ExpertStore(tmp_path / "store")
    weights = 4 * 9 * 1 + 4 + 2 * 4 + (4 * 4 * 4 + 1) * 10

    def figures(*overrides: str) -> tuple[int, ...]:
        found = estimate(plan(*MTT, *overrides), tmp_path / "run", store)
        return tuple(found[name] for name in ("experts", "experts_cached", "store_bytes", "object_store_bytes"))

    longer, half = "params.mtt.max_start_epoch=5", ["experts.momentum=0.9", "experts.dtype=bfloat16"]
    assert figures() == (2, 0, 2 * 3 * weights * 4, 2 * 3 * weights * 4)
    # in half precision, two bytes a weight, and the end in full precision: the weights and the momentum
    assert figures(*half) == (2, 0, 2 * weights * (3 * 2 + 4 + 4), 2 * 3 * weights * 2)
    list(build_all(plan(*MTT), store, "cpu", rebuild=False))
    assert figures() == (2, 2, 0, 2 * 3 * weights * 4)
    assert figures(longer) == (2, 0, 2 * 3 * weights * 4, 2 * 6 * weights * 4)
    assert figures("budget.experts=3") == (3, 2, 3 * weights * 4, 3 * 3 * weights * 4)


def test_the_estimate_counts_the_epochs_that_are_left(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "epoch_seconds", lambda self, cell: 1.0)
    monkeypatch.setattr(Probe, "trial_seconds", lambda self, cell: 0.0)
    store, longer = ExpertStore(tmp_path / "store"), "params.mtt.max_start_epoch=5"

    def seconds(*overrides: str) -> Any:
        return estimate(plan(*MTT, *overrides), tmp_path / "run", store)["core_seconds"]

    assert seconds() == 2 * 2
    assert seconds(longer) == 2 * 5
    list(build_all(plan(*MTT), store, "cpu", rebuild=False))
    assert seconds() == 0
    assert seconds(longer) == 2 * 3
    assert seconds(longer, "budget.experts=3") == 2 * 3 + 5


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


def test_a_damaged_derived_file_is_refused_and_made_again_on_request(plan: MakePlan, tmp_path: Path) -> None:
    small = "sgr.forgetting_networks: 1, sgr.forgetting_first_epochs: 1, sgr.forgetting_second_epochs: 1"
    window = "datm.max_start_epoch: 2, datm.current_max_start_epoch: 1, datm.expert_epochs: 1"
    made = plan("grid.method=[datm+sgr]", "search.space={}", "params={}", f"params={{{small}, {window}}}")
    store = ExpertStore(tmp_path / "store")
    assert list(build_all(made, store, "cpu", rebuild=False))
    first = store.root / store.derived()[0].name
    whole = first.read_bytes()
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptFileError, match=r"does not match its checksum; add --rebuild"):
        list(build_all(made, store, "cpu", rebuild=False))
    list(build_all(made, store, "cpu", rebuild=True))
    verify_derived(made, list(made.cells), store, rebuild=False)
    assert read_tensors(first)[0]["t_learn"].tolist() == load(whole)["t_learn"].tolist()
