"""Whole trials on digits: the rows, the flags, the distilled set and its card."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels
from ddnl_ray.results import SCHEMA, SPLITS, read_rows, write_rows
from ddnl_ray.robust import CleanerTraining
from ddnl_ray.trial import TrialConfig, TrialInputs

METHODS = ("random", "full", "mtt", "datm")
Rows = list[dict[str, Any]]
Config = Callable[..., TrialConfig]
Run = Callable[..., Rows]


@pytest.mark.parametrize("method", METHODS)
def test_rows_fit_the_table(config: Config, run: Run, tmp_path: Path, method: str) -> None:
    rows = run(config(method))
    assert all(set(row) <= set(SCHEMA.names) for row in rows)
    write_rows(tmp_path / "part.parquet", rows, "val_noisy")
    frame = read_rows(tmp_path / "part.parquet")
    assert len(frame) == len(rows) == 2 * 3
    for row, read in zip(rows, frame.to_dict("records"), strict=True):
        assert {name: read[name] for name in row if row[name] is not None} == {
            name: value for name, value in row.items() if value is not None
        }


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_a_trial_without_looks(config: Config, run: Run, inputs: TrialInputs, method: str) -> None:
    settings = config(method)
    rows = run(settings)
    assert {(row["split"], row["eval_seed"]) for row in rows} == {(split, seed) for split in SPLITS for seed in (0, 1)}
    for row in rows:
        assert row["is_final"]
        assert row["is_selected"]
        assert (row["outcome"], row["message"]) == ("ok", "")
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["accuracy_best"] <= 1
        assert math.isfinite(row["loss"])
        assert row["iteration"] == (6 if method in ("mtt", "datm") else 0)
        assert row["ipc"] == (None if method == "full" else 1)
        assert (row["base_method"], row["variant"]) == (method, "none")
        assert (row["run"], row["cell"], row["trial"]) == ("run", "cell", "trial-1")
        assert (row["dataset"], row["noise"], row["noise_rate"], row["label_set"]) == ("digits", "symmetric", 0.2, None)
        assert row["noise_rate_realised"] == inputs.labels.rate_realised
        assert row["config_hash"] == settings.hash
        assert row["expert_key"] == "0123456789abcdef"
        assert json.loads(row["params"]) == settings.params
        assert (row["backbone"], row["eval_backbone"]) == ("convnet1", "convnet1")
        assert row["wall_s"] > 0
        assert row["peak_memory_bytes"] > 0
    seeds = {row["eval_seed"]: row["loss"] for row in rows if row["split"] == "test"}
    assert seeds[0] != seeds[1]


def test_distillation_changes_the_set(config: Config, run: Run, tmp_path: Path) -> None:
    run(config("mtt"), "moved")
    run(config("mtt", {"lr_img": 0.0}), "still")
    moved, still = (
        safetensors.numpy.load_file(tmp_path / "trials" / name / "distilled.safetensors") for name in ("moved", "still")
    )
    assert moved["images"].shape == still["images"].shape == (10, 1, 8, 8)
    assert np.abs(moved["images"] - still["images"]).max() > 1e-3
    assert moved["labels"].tolist() == still["labels"].tolist() == list(range(10))


@pytest.mark.parametrize("method", ["random", "mtt", "datm"])
def test_the_card_needs_safetensors_and_json_alone(
    config: Config, run: Run, inputs: TrialInputs, tmp_path: Path, method: str
) -> None:
    rows = run(config(method))
    folder = tmp_path / "trials" / "trial"
    card = json.loads((folder / "card.json").read_text())
    tensors = safetensors.numpy.load_file(folder / card["images"]["file"])
    images, labels = tensors["images"], tensors["labels"]
    transform = card["transform"]
    pixels = images * np.array(transform["std"])[:, None, None] + np.array(transform["mean"])[:, None, None]
    if method == "random":
        np.testing.assert_allclose(pixels * 16, np.round(pixels * 16), atol=1e-4)
    assert card["labels"]["kind"] == ("probabilities" if method == "datm" else "classes")
    if method == "datm":
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert (card["step_size"] is None) == (method == "random")
    tested = [row["accuracy"] for row in rows if row["split"] == "test"]
    assert card["expected_accuracy"]["mean"] == pytest.approx(np.mean(tested))
    assert card["expected_accuracy"]["n"] == 2
    assert card["expected_accuracy"]["low"] <= card["expected_accuracy"]["mean"] <= card["expected_accuracy"]["high"]
    assert card["noise"]["kind"] == "symmetric"
    assert card["noise"]["rate_realised"] == inputs.labels.rate_realised
    assert card["noise"]["labels_sha256"] == inputs.labels.sha256
    assert card["selected_on"] == "val_noisy"
    assert (card["method"], card["ipc"], card["dataset"]) == (method, 1, "digits")
    assert card["evaluation"]["epochs"] == 4
    assert card["network"] == {"name": "convnet1", "width": 4}
    assert card["licence"] == inputs.data.licence
    with Image.open(folder / "preview.png") as picture:
        assert picture.size[0] > picture.size[1] > 0


def test_a_whitened_card_has_the_matrices(config: Config, run: Run, tmp_path: Path, inputs: TrialInputs) -> None:
    data = prepare(load("digits"), PrepareConfig(subset=200, test_subset=50, val_fraction=0.2, zca=True))
    run(config("random"), inputs=replace(inputs, data=data))
    folder = tmp_path / "trials" / "trial"
    card = json.loads((folder / "card.json").read_text())
    images = safetensors.numpy.load_file(folder / card["images"]["file"])["images"]
    zca = safetensors.numpy.load_file(folder / card["transform"]["file"])
    assert (card["transform"]["kind"], zca["whiten"].shape) == ("zca", (64, 64))
    pixels = images.reshape(10, -1).astype(np.float64) @ zca["unwhiten"] + zca["mean"]
    np.testing.assert_allclose(pixels * 16, np.round(pixels * 16), atol=1e-2)


def test_full_leaves_no_distilled_set(config: Config, run: Run, tmp_path: Path) -> None:
    run(config("full"))
    assert not (tmp_path / "trials" / "trial" / "card.json").exists()


def test_looks_choose_the_selected_set(config: Config, run: Run, tmp_path: Path) -> None:
    """Looks at 2, 4 and 6; the best of them is exported, and where it is not the last, both are scored."""
    chosen = set()
    for seed in range(6):
        rows = run(config("datm", {"lr_img": 50.0}, eval_every=2, seed=seed), f"seed-{seed}")
        looks = [row for row in rows if not row["is_final"] and not row["is_selected"]]
        assert [row["iteration"] for row in looks] == [2, 4, 6]
        assert all(row["split"] == "val_noisy" and row.get("accuracy_best") is None for row in looks)
        accuracies = [row["accuracy"] for row in looks]
        best = (2, 4, 6)[accuracies.index(max(accuracies))]
        final = [row for row in rows if row["is_final"]]
        selected = [row for row in rows if row["is_selected"]]
        assert {row["iteration"] for row in final} == {6}
        assert {row["iteration"] for row in selected} == {best}
        assert len(final) == len(selected) == 2 * 3
        assert len(rows) == 3 + (6 if best == 6 else 12)
        card = json.loads((tmp_path / "trials" / f"seed-{seed}" / "card.json").read_text())
        own = [row["accuracy"] for row in selected if row["split"] == "test"]
        assert card["expected_accuracy"]["mean"] == pytest.approx(np.mean(own))
        chosen.add(best)
    assert len(chosen) > 1


def test_the_selected_set_is_the_one_of_its_iteration(config: Config, run: Run, tmp_path: Path) -> None:
    """The exported set equals the last one of a trial that ends there."""
    for seed in range(6):
        rows = run(config("datm", {"lr_img": 50.0}, eval_every=2, seed=seed), "looking")
        (best,) = {row["iteration"] for row in rows if row["is_selected"]}
        if best < 6:
            break
    assert best < 6
    run(config("datm", {"lr_img": 50.0, "iterations": best}, seed=seed), "short")
    exported, short = (
        safetensors.numpy.load_file(tmp_path / "trials" / name / "distilled.safetensors")
        for name in ("looking", "short")
    )
    np.testing.assert_array_equal(exported["images"], short["images"])
    np.testing.assert_array_equal(exported["labels"], short["labels"])


def test_methods_see_the_noisy_labels(config: Config, run: Run, inputs: TrialInputs, tmp_path: Path) -> None:
    run(config("random", ipc=8))
    exported = safetensors.numpy.load_file(tmp_path / "trials" / "trial" / "distilled.safetensors")
    data, labels = inputs.data, inputs.labels
    assert labels.clean is not None
    distances = (torch.from_numpy(exported["images"])[:, None] - data.train_images[None]).flatten(2).abs().sum(2)
    rows = data.train_index[distances.argmin(1)]
    assert not distances.min(1).values.any()
    assert exported["labels"].tolist() == labels.labels[rows].tolist()
    assert exported["labels"].tolist() != labels.clean[rows].tolist()


def test_splits_have_their_own_labels(config: Config, run: Run, inputs: TrialInputs) -> None:
    """Noise in the validation part alone changes the score on val_noisy, and no other."""
    data, clean = inputs.data, inputs.labels.clean
    assert clean is not None
    only_val = clean.clone()
    only_val[data.val_index] = inputs.labels.labels[data.val_index]
    found = []
    for name, labels in (("clean", clean), ("val", only_val)):
        given = replace(inputs, labels=NoisyLabels(labels, clean, inputs.labels.config, 0, 10))
        rows = run(config("random"), name, inputs=given)
        found.append({row["split"]: row["loss"] for row in rows if row["eval_seed"] == 0})
    assert found[0]["val_noisy"] == found[0]["val_clean"] == found[1]["val_clean"]
    assert found[1]["val_noisy"] != found[0]["val_noisy"]
    assert found[1]["test"] == found[0]["test"]


def test_looks_do_not_change_the_final_set(config: Config, run: Run) -> None:
    with_looks, without = (run(config("mtt", eval_every=every), f"every-{every}") for every in (3, 0))
    assert scored(with_looks, "is_final") == scored(without, "is_final")


def scored(rows: Rows, flag: str) -> list[tuple[Any, ...]]:
    names = ("split", "eval_seed", "accuracy", "accuracy_best", "loss")
    return [tuple(row[name] for name in names) for row in rows if row[flag]]


def test_every_network_is_scored_and_the_first_is_expected(config: Config, run: Run, tmp_path: Path) -> None:
    networks = (NetworkSpec("convnet2", 4), NetworkSpec("convnet1", 4))
    rows = run(config("random", eval_networks=networks))
    assert {(row["eval_backbone"], row["eval_seed"]) for row in rows} == {
        (name, seed) for name in ("convnet1", "convnet2") for seed in (0, 1)
    }
    card = json.loads((tmp_path / "trials" / "trial" / "card.json").read_text())
    own = [row["accuracy"] for row in rows if row["split"] == "test" and row["eval_backbone"] == "convnet2"]
    assert card["expected_accuracy"]["mean"] == pytest.approx(np.mean(own))


def test_iterations_may_be_left_to_the_method(config: Config, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial without ``iterations`` runs the method's own number of them, not none."""
    settings = config("mtt")
    params = {name: value for name, value in settings.params.items() if name != "iterations"}
    seen: list[int] = []

    def stop(iteration: int) -> None:
        seen.append(iteration)
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(settings, params=params), checkpoint_s=0.0, on_progress=stop)
    assert seen == [1, 2, 3]


def test_kept_graphs_give_the_same_set(config: Config, run: Run, tmp_path: Path) -> None:
    for memory in (0, 10**9):
        run(config("datm"), str(memory), graph_memory=memory)
    first, second = (
        safetensors.numpy.load_file(tmp_path / "trials" / name / "distilled.safetensors")
        for name in ("0", "1000000000")
    )
    np.testing.assert_allclose(first["images"], second["images"], rtol=1e-3, atol=1e-4)


def test_the_noise_seed_has_randomness_of_its_own(config: Config, run: Run) -> None:
    first, second = (run(config("random", noise_seed=seed), f"noise-{seed}") for seed in (0, 1))
    assert scored(first, "is_final") != scored(second, "is_final")


def test_human_labels_take_the_published_names(config: Config, run: Run, inputs: TrialInputs) -> None:
    """The data set is called cifar10n, and the nominal rate is the realised one."""
    observed, clean = inputs.labels.labels, inputs.labels.clean
    noise = NoiseConfig("natural", labels="worse")
    labels = NoisyLabels(observed, clean, noise, 0, 10)
    given = replace(inputs, data=replace(inputs.data, name="cifar10"), labels=labels)
    rows = run(config("random", dataset="cifar10", noise=noise), inputs=given)
    for row in rows:
        assert (row["dataset"], row["noise"], row["label_set"]) == ("cifar10n", "natural", "worse")
        assert row["noise_rate"] == row["noise_rate_realised"] == labels.rate_realised


def test_labels_whose_truth_is_unknown(config: Config, run: Run, inputs: TrialInputs) -> None:
    labels = NoisyLabels(inputs.labels.labels, None, NoiseConfig(), 0, 10)
    rows = run(config("random", noise=NoiseConfig()), inputs=replace(inputs, labels=labels))
    assert {row["split"] for row in rows} == {"val_noisy", "test"}
    assert {(row["noise"], row["noise_rate"], row["noise_rate_realised"]) for row in rows} == {("none", 0.0, None)}


def test_the_test_set_chooses_only_where_asked(config: Config, run: Run) -> None:
    rows = run(config("mtt", eval_every=3, select_on="test"))
    assert {row["split"] for row in rows if not row["is_final"] and not row["is_selected"]} == {"test"}


def test_the_hash_depends_on_every_field(config: Config) -> None:
    base = config("mtt")
    changes: dict[str, Any] = {
        "data": "x",
        "dataset": "x",
        "noise": NoiseConfig(),
        "noise_seed": 1,
        "method": "datm",
        "params": {},
        "ipc": 2,
        "network": NetworkSpec("convnet1", 5),
        "augment": None,
        "experts": None,
        "num_experts": 3,
        "expert_seed": 1,
        "expert_dtype": "float16",
        "extractor": SimclrConfig(),
        "anchor_params": {"lr_img": 1.0},
        "cleaner": CleanerTraining(NetworkSpec("convnet1", 5), flip=False),
        "evaluation": replace(base.evaluation, epochs=5),
        "eval_networks": (NetworkSpec("convnet1", 5),),
        "repeats": 3,
        "select_on": "test",
        "eval_every": 1,
        "seed": 1,
    }
    assert set(changes) == set(vars(base))
    hashes = {replace(base, **{name: value}).hash for name, value in changes.items()} | {base.hash}
    assert len(hashes) == len(changes) + 1


def test_the_hash_depends_on_the_precision_where_it_is_not_float32(config: Config) -> None:
    base = config("mtt")
    assert base.experts is not None
    half = replace(base, experts=replace(base.experts, precision="bfloat16"))
    assert half.hash != base.hash
    assert "precision" not in base.identity["experts"]


def test_the_hash_depends_on_the_protocol_where_it_is_not_that_of_before(config: Config) -> None:
    base = config("mtt")
    assert not {"cutmix", "schedule"} & set(base.identity["evaluation"])
    changed = [
        replace(base, evaluation=replace(base.evaluation, **own)) for own in ({"cutmix": 0.5}, {"schedule": "thirds"})
    ]
    assert len({each.hash for each in (base, *changed)}) == 3


def test_a_trial_with_the_augmentation_and_the_evaluation_of_the_idc_lineage(config: Config, run: Run) -> None:
    base = config("mtt")
    evaluation = replace(base.evaluation, augment="diffaug:color_crop_flip", cutmix=0.5, schedule="thirds")
    settings = replace(base, augment="diffaug:color_crop_cutout", evaluation=evaluation)
    rows, plain = run(settings), run(base, "plain")
    assert {row["outcome"] for row in rows} == {"ok"}
    assert rows[0]["loss"] != plain[0]["loss"]
    assert run(settings, "again")[0]["loss"] == rows[0]["loss"]


def test_inputs_are_left_alone(config: Config, run: Run, inputs: TrialInputs) -> None:
    before = {name: torch.from_numpy(array.copy()) for name, array in inputs.data.arrays().items()}
    labels = inputs.labels.labels.clone()
    run(config("datm", eval_every=3))
    assert all(torch.equal(torch.from_numpy(array), before[name]) for name, array in inputs.data.arrays().items())
    assert torch.equal(inputs.labels.labels, labels)
