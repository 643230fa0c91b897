"""Two-stage methods from the sweep file to the rows, in one process: labels cleaned once, then distilled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.features import SimclrConfig
from ddnl_ray.files import read_json
from ddnl_ray.models import NetworkSpec
from ddnl_ray.results import read_rows
from ddnl_ray.robust import CleanedLabels, cleaned
from ddnl_ray.sweep.estimate import estimate, estimate_text
from ddnl_ray.sweep.local import build_all, run_one
from ddnl_ray.sweep.needs import needs, verify_derived
from ddnl_ray.sweep.plan import Plan, make_plan
from ddnl_ray.sweep.protocol import protocol_of
from ddnl_ray.sweep.read import read_sweep
from ddnl_ray.sweep.watcher import Silent

SWEEP = """
name: stages
data: {name: digits, subset: 400, test_subset: 100}
grid: {noise: [{kind: symmetric, rate: 0.4}], method: [coteaching>datm], ipc: [1]}
params:
  datm.max_start_epoch: 2
  datm.current_max_start_epoch: 1
  datm.expert_epochs: 1
  datm.syn_steps: 2
  coteaching.epochs: 5
  coteaching.decay_start: 2
  coteaching.batch_size: 32
  coteaching.relabel: drop
cleaner: {network: convnet1, width: 4}
evaluate: {repeats: 2}
budget: {experts: 2, expert_epochs: 3, iterations: 3, eval_epochs: 5, full_epochs: 2}
model: {name: convnet1, width: 4}
"""
VOLATILE = ["run", "wall_s", "finished_at", "peak_memory_bytes"]

MakePlan = Callable[..., Plan]


@pytest.fixture
def stages(tmp_path: Path) -> MakePlan:
    """Plan the sweep with ``key=value`` overrides."""
    path = tmp_path / "stages.yaml"
    path.write_text(SWEEP)
    return lambda *overrides: make_plan(read_sweep(path, None, overrides))


def only(method: str, *params: str) -> tuple[str, ...]:
    """Return the overrides that leave one method and its parameters."""
    return (f"grid.method=['{method}']", "params={}", f"params={{{', '.join(params)}}}")


def run(plan: Plan, folder: Path, store: Path) -> pd.DataFrame:
    """Run a plan of one trial; return its rows."""
    run_one(plan, folder, ExpertStore(store), "cpu", Silent(), rebuild=False)
    return read_rows(folder / "results.parquet")


def trust(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "trials").glob("*/trust.json")
    found: dict[str, Any] = read_json(path)["cleaning"]
    return found


def cleanings(plan: Plan) -> list[CleanedLabels]:
    """Return what each cell cleans."""
    made = [plan.preparation(cell) for cell in plan.cells]
    return [each for own in made if own is not None for each in own.first if isinstance(each, CleanedLabels)]


class Stop(Exception):
    """Ends a process in the middle of its work."""


@pytest.mark.parametrize("method", ["lossmix>random", "coteaching>datm"])
def test_a_trial_that_is_interrupted_while_it_cleans_ends_as_one_that_is_not(
    stages: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    plan = stages(*(only(method, "lossmix.epochs: 3", "lossmix.folds: 2") if method.startswith("lossmix") else ()))
    assert [cell.config.method for cell in plan.cells] == [method]
    whole = run(plan, tmp_path / "whole", tmp_path / "store")
    monkeypatch.setattr(cleaned, "CHECKPOINT_S", 0.0)
    write = cleaned._Checkpoint.write

    def stop(self: Any, state: Any) -> None:
        write(self, state)
        if state.iteration == 2:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(cleaned._Checkpoint, "write", stop)
        with pytest.raises(Stop):
            run(plan, tmp_path / "pieces", tmp_path / "other")
    begun: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(cleaned._Checkpoint, "write", lambda self, state: begun.append(state.iteration))
        pieces = run(plan, tmp_path / "pieces", tmp_path / "other")
    assert begun[0] == 3
    assert set(whole["outcome"]) == {"ok"}
    pd.testing.assert_frame_equal(whole.drop(columns=VOLATILE), pieces.drop(columns=VOLATILE))
    assert trust(tmp_path / "whole") == trust(tmp_path / "pieces")
    images = [
        next((tmp_path / name).glob("trials/*/distilled.safetensors")).read_bytes() for name in ("whole", "pieces")
    ]
    assert images[0] == images[1]


def test_rows_and_files_say_what_was_cleaned(stages: MakePlan, tmp_path: Path) -> None:
    plan, store = stages(), tmp_path / "store"
    rows = run(plan, tmp_path / "run", store)
    assert {(row.base_method, row.variant) for row in rows.itertuples()} == {("datm", "two_stage_coteaching")}
    assert rows["expert_key"].nunique() == 1
    assert json.loads(rows["params"].iloc[0])["coteaching.epochs"] == 5
    said, (own,) = trust(tmp_path / "run"), cleanings(plan)
    (data,), (labels,) = plan.data.values(), plan.labels.values()
    observed, clean = (each[data.train_index] for each in (labels.labels, labels.clean) if each is not None)
    found = own.cleaned(store)
    assert said["accuracy_before"] == pytest.approx(float((observed == clean).double().mean()))
    assert said["accuracy_after"] == pytest.approx(float((found.hard == clean)[found.kept].double().mean()))
    assert said["rate"] == found.rate
    assert 0 <= said["robust_test_accuracy"] <= 1
    assert len(said["transition"]) == 10
    protocol = protocol_of(tmp_path / "run")
    assert protocol is not None
    changes = {change.name for change in protocol(rows.iloc[0].to_dict()).changes}  # type: ignore[union-attr]
    assert {"coteaching.epochs", "cleaner.network", "cleaner.width", "budget.experts"} <= changes


def test_random_images_come_from_what_is_kept_with_its_new_label(stages: MakePlan, tmp_path: Path) -> None:
    plan = stages(*only("lossmix>random", "lossmix.epochs: 12", "lossmix.folds: 2"), "grid.ipc=[2]")
    run(plan, tmp_path / "run", tmp_path / "store")
    (own,), (data,) = cleanings(plan), plan.data.values()
    rows, labels = own.kept(tmp_path / "store", torch.device("cpu"))
    (path,) = (tmp_path / "run").glob("trials/*/distilled.safetensors")
    tensors = load_file(path)
    kept = data.train_images[rows]
    for image, label in zip(tensors["images"], tensors["labels"], strict=True):
        near = (kept - image).abs().flatten(1).amax(1)
        assert float(near.min()) < 1e-4
        assert int(labels[rows][near.argmin()]) == int(label)


def test_methods_sizes_and_backbones_share_one_cleaning(stages: MakePlan, tmp_path: Path) -> None:
    methods = "grid.method=['coteaching>datm', 'coteaching>random', 'coteaching>full', 'coteaching>dm', datm]"
    plan = stages(methods, "grid.ipc=[1, 2]")
    made = cleanings(plan)
    assert len(made) == 3 * 2 + 1
    assert len({each.key for each in made}) == 1
    other = cleanings(stages(methods, "model.width=8", "evaluate.repeats=1", "budget.iterations=9", "name=other"))
    assert {each.key for each in other} == {made[0].key}
    buffers = {need.buffer.key: need.cell.config.method for need in needs(plan, plan.cells).values()}
    assert sorted(buffers.values()) == ["coteaching>datm", "datm"]
    store = ExpertStore(tmp_path / "store")
    list(build_all(plan, store, "cpu", rebuild=False))
    assert [entry.name for entry in store.derived()] == [made[0].name]


@pytest.mark.parametrize(
    "change",
    [
        "grid.noise_seed=[1]",
        "grid.noise=[{kind: symmetric, rate: 0.2}]",
        "params.coteaching.epochs=6",
        "cleaner.width=8",
        "data.subset=300",
        "experts.seed=1",
    ],
)
def test_what_determines_the_labels_makes_others(stages: MakePlan, change: str) -> None:
    (before,), (after,) = cleanings(stages()), cleanings(stages(change))
    assert before.key != after.key


def test_experts_and_cells_have_names_of_their_own_on_other_labels(stages: MakePlan) -> None:
    first, second = stages(), stages("params.coteaching.relabel=all")
    keys = [key for plan in (first, second) for key in needs(plan, plan.cells)]
    assert len(set(keys)) == 2
    assert first.cells[0].name != second.cells[0].name


def test_what_is_stored_is_not_made_again(stages: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(stages(), tmp_path / "one", tmp_path / "store")
    monkeypatch.setattr(cleaned, "_run", lambda *arguments: pytest.fail("cleaned again"))
    rows = run(stages("grid.ipc=[2]", "name=two"), tmp_path / "two", tmp_path / "store")
    assert set(rows["outcome"]) == {"ok"}


def test_a_grid_and_a_study_may_vary_the_cleaner(stages: MakePlan) -> None:
    axes = ("params={}", "params={coteaching.decay_start: 2}", "grid.coteaching.epochs=[5, 6]")
    methods = "grid.method=[full, 'coteaching>full', 'coteaching>random', random]"
    plan = stages(methods, *axes)
    names = [cell.config.method for cell in plan.cells]
    assert sorted(names) == ["coteaching>full"] * 2 + ["coteaching>random"] * 2 + ["full", "random"]
    assert len({each.key for each in cleanings(plan)}) == 2
    space = "search={trials: 2, space: {coteaching.epochs: {choice: [5, 6]}}}"
    plan = stages(methods, *axes[:2], space)
    assert {cell.config.method for cell in plan.cells if cell.prepares_itself} == {
        "coteaching>full",
        "coteaching>random",
    }


def test_a_class_that_keeps_too_few_images_fails_the_trial_and_says_so(stages: MakePlan, tmp_path: Path) -> None:
    """The plan does not refuse what only the cleaned labels can show; a plain method is refused before."""
    plan = stages(
        *only("lossmix>random", "lossmix.epochs: 3", "lossmix.folds: 2", "lossmix.relabel: drop"), "grid.ipc=[25]"
    )
    rows = run(plan, tmp_path / "run", tmp_path / "store")
    assert set(rows["outcome"]) == {"failed"}
    assert "lossmix leaves class" in rows["message"].iloc[0]
    assert "fewer than the ipc 25; use a smaller ipc" in rows["message"].iloc[0]
    run_again = stages(*only("lossmix>random", "lossmix.epochs: 3", "lossmix.folds: 2"), "grid.ipc=[60]")
    assert len(run_again.cells) == 1
    with pytest.raises(RequestError, match=r"grid\.ipc: 60 is larger than class"):
        stages(*only("random"), "grid.ipc=[60]")


def test_nothing_kept_fails_the_trial_and_not_the_sweep(stages: MakePlan, tmp_path: Path) -> None:
    rows = run(
        stages("params.coteaching.relabel=all", "params.coteaching.sure=1.0"), tmp_path / "run", tmp_path / "store"
    )
    assert set(rows["outcome"]) == {"failed"}
    assert "coteaching keeps no image; " in rows["message"].iloc[0]


def test_what_a_cleaner_trains_is_the_recipes_but_for_the_sweeps_changes(stages: MakePlan) -> None:
    section = ("cleaner={}", "cleaner={width: 8}", "extractor={epochs: 2}")
    for method, source, extractor in (("c2d>random", "", 8), ("knn>random", "", 32), ("knn>random", "heldout", None)):
        plan = stages(*only(method, *([f"knn.source: {source}"] if source else [])), *section)
        config = plan.cells[0].config
        assert config.cleaner is not None
        assert config.cleaner.network == NetworkSpec("convnet2", 8)
        assert not config.cleaner.flip
        expected = None
        if extractor is not None:
            network = NetworkSpec("convnet2", extractor)
            expected = SimclrConfig(network=network, epochs=2, batch_size=256, flip=False)
        assert config.extractor == expected
        made = plan.preparation(plan.cells[0])
        assert made is not None
        assert [each.kind for each in made.first] == ["features", "cleaned"][extractor is None :]
        assert made.experts is None
    with pytest.raises(RequestError, match=r"l2b\.meta is 'known', but a sweep gives no true labels"):
        stages(*only("l2b>random", "l2b.meta: known"))


def test_a_dry_run_names_the_cleaning_and_a_damaged_one_is_refused(stages: MakePlan, tmp_path: Path) -> None:
    plan, store = stages(*only("knn>full"), "extractor.epochs=1"), ExpertStore(tmp_path / "store")
    figures = estimate(plan, tmp_path / "run", store)
    assert figures["derived"] == ["cleaned", "features"]
    words = estimate_text(plan, figures)
    assert "1 cleaned, 1 features; training extractors and cleaning labels is not in the estimate" in words
    (own,) = cleanings(plan)
    own.path(store.root).parent.mkdir(parents=True)
    own.path(store.root).write_bytes(b"spam")
    with pytest.raises(CorruptFileError):
        verify_derived(plan, plan.cells, store, rebuild=False)
    verify_derived(plan, plan.cells, store, rebuild=True)
    assert not own.is_stored(store)
