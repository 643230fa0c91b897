"""What a trial of a robust method needs, made in this process; and the limits in which it is the plain method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.data import PreparedData
from ddnl_ray.experts import ExpertStore
from ddnl_ray.features import SimclrConfig
from ddnl_ray.files import read_json
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.trial import Options, TrialConfig, TrialInputs, run_trial
from ddnl_ray.trial.prepare import make_inputs, needs_of, preparation_of, prepare_and_run

Config = Callable[..., TrialConfig]
EXTRACTOR = SimclrConfig(network=NetworkSpec("convnet1", 4), epochs=1, batch_size=64, flip=False)
TAD: dict[str, Any] = {
    "tad.rounds": 2,
    "tad.probes": 1,
    "tad.probe_epochs": 4,
    "tad.loss_epochs": 1,
    "tad.anchors_per_class": 2,
    "tad.anchor_iterations": 2,
    "tad.top_k": 5,
    "tad.minimum_trusted": 2,
}
SGR: dict[str, Any] = {
    "sgr.forgetting_networks": 1,
    "sgr.forgetting_first_epochs": 3,
    "sgr.forgetting_second_epochs": 3,
    "sgr.forgetting_batch_size": 32,
    "sgr.neighbours": 5,
}
RDC: dict[str, Any] = {
    "rdc.warm_up": 2,
    "rdc.labelled_batch": 16,
    "rdc.unlabelled_batch": 16,
    "rdc.flip": False,
    "rdc.restarts": 1,
    "rdc.gmc_weight": 0.1,
}


@pytest.fixture
def robust(config: Config) -> Config:
    """Make the configuration of a composed method."""

    def make(method: str, params: dict[str, Any] | None = None, **changes: Any) -> TrialConfig:
        base, *parts = method.split("+")
        plain = config(base)
        own = (TAD if "tad" in parts else {}) | (SGR if {"sgr", "tiat"} & set(parts) else {})
        own |= RDC if "rdc" in parts else {}
        if "tad" in parts:
            changes = {"extractor": EXTRACTOR, "anchor_params": plain.params} | changes
        return replace(plain, method=method, params={**plain.params, **own, **(params or {})}, **changes)

    return make


def outcome(config: TrialConfig, inputs: TrialInputs, folder: Path) -> list[dict[str, Any]]:
    """Run a trial; return its rows."""
    rows = run_trial(config, inputs, folder, Options(run="run", cell="cell", trial="trial"))
    assert {row["outcome"] for row in rows} == {"ok"}, rows[0]["message"]
    return rows


def made(config: TrialConfig, digits: PreparedData, inputs: TrialInputs, root: Path) -> TrialInputs:
    return make_inputs(config, digits, inputs.labels, ExpertStore(root))


SCORES = ("split", "eval_seed", "accuracy", "accuracy_best", "loss")


@pytest.mark.parametrize("base", ["mtt", "datm"])
@pytest.mark.parametrize(
    ("parts", "params"),
    [
        ("+tad", {"tad.loops": "none", "tad.consistency_weight": 0.0}),
        ("+tiat", {"tiat.beta": 0.0, "tiat.init_from_subset": False}),
        ("+rdc", {"rdc.ssl": "none", "rdc.gmc": "none"}),
        ("+rdc", {"rdc.warm_up": 9, "rdc.gmc_weight": 0.0}),
        ("+rdc", {"rdc.warm_up": 5, "rdc.ssl": "none", "rdc.gmc_weight": 0.0}),
    ],
)
def test_without_effect_it_is_the_plain_method_bit_for_bit(
    config: Config,
    robust: Config,
    digits: PreparedData,
    inputs: TrialInputs,
    tmp_path: Path,
    base: str,
    parts: str,
    params: dict[str, Any],
) -> None:
    """The last epoch of the experts is read by TIAT; else both read the same snapshots, under names of their own."""
    results = []
    for number, own in enumerate((config(base), robust(f"{base}{parts}", params))):
        given = made(own, digits, inputs, tmp_path / "store")
        rows = outcome(own, given, tmp_path / str(number))
        results.append([[row[name] for name in SCORES] for row in rows])
    assert results[0] == results[1]


def test_tad_trains_and_starts_from_the_chosen_images_and_says_how_right_it_was(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    own = robust("datm+tad")
    given = made(own, digits, inputs, tmp_path / "store")
    assert given.trusted is not None
    assert given.targets is None
    assert len(given.trusted.rows) == len(given.trusted.labels) < len(digits.train_images)
    assert given.trusted.rows.tolist() == sorted(set(given.trusted.rows.tolist()))
    assert given.trust is not None
    assert [each["round"] for each in given.trust["rounds"]] == [1, 2]
    assert given.trust["rounds"][-1]["rows"] == len(given.trusted.rows)
    plain = made(replace(own, method="datm", params=robust("datm").params), digits, inputs, tmp_path / "store")
    assert plain.expert_key != given.expert_key
    rows = outcome(own, given, tmp_path / "trial")
    assert {(row["base_method"], row["variant"]) for row in rows} == {("datm", "tad")}
    assert read_json(tmp_path / "trial" / "trust.json") == given.trust


def test_sgr_and_tiat_have_targets_and_a_subset(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    own = robust("mtt+sgr+tiat", {"tiat.beta": 0.5})
    given = made(own, digits, inputs, tmp_path / "store")
    assert given.trusted is not None
    assert given.trust is not None
    assert set(given.trust) == {"prior_auc", "confidence_auc", "subset"}
    assert given.trust["subset"]["images"] == len(given.trusted.rows)
    experts, targets = given.experts, given.targets
    assert experts is not None
    assert targets is not None
    assert len(targets) == len(experts) == 2
    for start in range(3):
        moved = (targets.snapshot(1, start) - experts.snapshot(1, start)).norm()
        own_move = (experts.snapshot(1, start + 2) - experts.snapshot(1, start)).norm()
        assert 0.2 < float(moved / own_move) < 5
    rows = outcome(own, given, tmp_path / "trial")
    assert {(row["base_method"], row["variant"]) for row in rows} == {("mtt", "sgr_tiat")}
    only = outcome(robust("mtt+sgr+tiat", {"tiat.beta": 0.0}), given, tmp_path / "other")
    assert [row["loss"] for row in rows] != [row["loss"] for row in only]


def test_tiat_alone_tunes_plain_experts(
    config: Config, robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    alone = made(robust("datm+tiat"), digits, inputs, tmp_path / "store")
    plain = made(config("datm"), digits, inputs, tmp_path / "store")
    guided = made(robust("datm+sgr+tiat"), digits, inputs, tmp_path / "store")
    assert alone.expert_key == plain.expert_key != guided.expert_key
    assert alone.targets is not None
    assert plain.targets is None


@pytest.mark.parametrize("base", ["mtt", "datm"])
def test_rdc_has_golden_experts_and_says_how_right_their_golden_sets_are(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path, base: str
) -> None:
    own, store = robust(f"{base}+rdc"), ExpertStore(tmp_path / "store")
    given = make_inputs(own, digits, inputs.labels, store)
    assert (given.trusted, given.targets) == (None, None)
    assert given.golden is not None
    assert len(given.golden) == 2
    assert all(0 < int(golden.member.sum()) < len(digits.train_images) for golden in given.golden)
    options = Options(run="run", cell="cell", trial="trial")
    rows = prepare_and_run(own, digits, inputs.labels, store, tmp_path / "trial", options)
    assert {row["outcome"] for row in rows} == {"ok"}, rows[0]["message"]
    assert {(row["base_method"], row["variant"]) for row in rows} == {(base, "rdc")}
    said = read_json(tmp_path / "trial" / "trust.json")
    assert said == given.trust
    assert [each["expert"] for each in said["golden"]] == [0, 1]
    clean, observed = digits.clean_labels, inputs.labels.labels[digits.train_index]
    assert clean is not None
    clean = clean[digits.train_index]
    for each, golden in zip(said["golden"], given.golden, strict=True):
        member, right = golden.member, golden.labels == clean
        assert each["members"] == int(member.sum())
        assert each["precision"] == pytest.approx(float(right[member].double().mean()))
        assert each["recall"] == pytest.approx(float((member & right)[observed == clean].double().mean()))


def test_the_contrast_changes_images_and_needs_nothing_new(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    given = made(robust("mtt+rdc"), digits, inputs, tmp_path / "store")
    for late in ({"rdc.gmc": "supcon"}, {"rdc.gmc_weight": 0.0}, {"rdc.mixup": 0.5, "rdc.views": 1}):
        own = preparation_of(robust("mtt+rdc", late), digits, inputs.labels)
        assert own.experts.key == given.expert_key  # type: ignore[union-attr]
        assert all(derived.is_stored(ExpertStore(tmp_path / "store")) for derived in own.then)  # type: ignore[union-attr]
    losses = []
    for number, weight in enumerate((0.0, 0.1, 1.0)):
        rows = outcome(robust("mtt+rdc", {"rdc.gmc_weight": weight}), given, tmp_path / str(number))
        losses.append([row["loss"] for row in rows])
    assert losses[0] != losses[1] != losses[2]


def test_without_ssl_the_experts_are_the_plain_ones_and_their_golden_sets_are_mined(
    config: Config, robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    given = made(robust("datm+rdc", {"rdc.ssl": "none"}), digits, inputs, tmp_path / "store")
    assert given.expert_key == made(config("datm"), digits, inputs, tmp_path / "store").expert_key
    assert given.golden is not None
    assert all(bool(golden.member.any()) for golden in given.golden)


def test_golden_sets_are_read_from_experts_at_their_end(
    robust: Config, digits: PreparedData, inputs: TrialInputs
) -> None:
    own = robust("mtt+rdc")
    preparation = preparation_of(own, digits, inputs.labels)
    assert preparation is not None
    (need,) = needs_of(own, preparation)
    assert (need.last_epoch, need.train_to) == (4, 5)


def test_what_is_stored_is_not_made_again(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    first = {name: made(robust(name), digits, inputs, store) for name in ("datm+tad", "datm+sgr+tiat", "mtt+rdc")}

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("made again")

    places = ("stages.train_simclr", "stages.curate", "stages.forgetting_history", "rdc_experts.replayed")
    for place in places:
        monkeypatch.setattr(f"ddnl_ray.robust.{place}", fail)
    monkeypatch.setattr("ddnl_ray.trial.prepare.build_buffer", fail)
    for name, before in first.items():
        again = made(robust(name, ipc=2), digits, inputs, store)
        assert again.experts is not None
        assert before.experts is not None
        assert torch.equal(again.experts.snapshot(1, 2), before.experts.snapshot(1, 2))


def test_targets_grow_with_the_window_and_keep_what_they_have(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    short, long = (robust("mtt+tiat", {"max_start_epoch": last}) for last in (2, 4))
    grown = made(short, digits, inputs, tmp_path / "store"), made(long, digits, inputs, tmp_path / "store")
    at_once = made(long, digits, inputs, tmp_path / "other")
    for epoch in range(4):
        wanted = at_once.targets.snapshot(0, epoch)  # type: ignore[union-attr]
        np.testing.assert_allclose(grown[1].targets.snapshot(0, epoch), wanted, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["datm+tad", "datm+sgr", "datm+tiat", "datm+sgr+tiat", "datm+rdc"])
def test_the_names_of_what_is_made_depend_on_labels_and_settings(
    robust: Config, digits: PreparedData, inputs: TrialInputs, name: str
) -> None:
    def keys(config: TrialConfig, labels: Any = inputs.labels) -> set[str]:
        found = preparation_of(config, digits, labels)
        assert found is not None
        return {each.key for each in (*found.first, *found.then, found.experts, found.targets) if each is not None}

    base = keys(robust(name))
    assert base == keys(robust(name, ipc=5, seed=3, repeats=1))
    other = replace(inputs.labels, labels=inputs.labels.labels.roll(1), config=NoiseConfig())
    changed = keys(robust(name), other)
    features = {each for each in base & changed if name == "datm+tad"}
    assert len(base & changed) == len(features) == (1 if name == "datm+tad" else 0)
    setting = {"tad.top_k": 6} if "tad" in name else {"sgr.prior_weight": 0.3}
    setting = {"rdc.confidence": 0.9} if "rdc" in name else setting
    assert keys(robust(name, setting)) != base


def test_beta_needs_nothing_new(robust: Config, digits: PreparedData, inputs: TrialInputs) -> None:
    made = [preparation_of(robust("datm+sgr+tiat", {"tiat.beta": beta}), digits, inputs.labels) for beta in (0.1, 0.9)]
    assert made[0] is not None
    assert made[1] is not None
    assert made[0].experts.key == made[1].experts.key
    assert made[0].targets is not None
    assert made[1].targets is not None
    assert made[0].targets.key == made[1].targets.key


def test_the_targets_reach_every_start(robust: Config, digits: PreparedData, inputs: TrialInputs) -> None:
    config = robust("mtt+tiat")
    preparation = preparation_of(config, digits, inputs.labels)
    assert preparation is not None
    experts, targets = needs_of(config, preparation)
    assert experts.epochs == (0, 1, 2, 3, 4, 5)
    assert targets.epochs == (0, 1, 2)
    wider, further = needs_of(config, preparation, max_start_epoch=4)
    assert (wider.last_epoch, further.last_epoch) == (5, 3)


def test_what_cannot_be_made_is_a_failed_trial(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    """An extractor whose rate is absurd diverges."""
    config = robust("datm+tad", extractor=replace(EXTRACTOR, lr=1e30, epochs=3))
    options = Options(run="run", cell="cell", trial="trial")
    store = ExpertStore(tmp_path / "store")
    (row,) = prepare_and_run(config, digits, inputs.labels, store, tmp_path / "trial", options)
    assert row["outcome"] == "failed"
    assert "diverged" in row["message"]
    assert "RequestError" in (tmp_path / "trial" / "error.log").read_text()


def test_the_prior_is_judged_as_it_is_configured(
    robust: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path
) -> None:
    found = [
        made(robust("mtt+sgr", {"sgr.prior_weight": weight}), digits, inputs, tmp_path / "store").trust
        for weight in (0.0, 1.0)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0]["prior_auc"] != found[1]["prior_auc"]
