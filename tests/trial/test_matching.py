"""Trials of the matching family: cards that say how images are cut, golden sets that are judged, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ddnl_ray.data import PreparedData
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.experts import ExpertStore
from ddnl_ray.files import read_json
from ddnl_ray.trial import Options, TrialConfig, TrialInputs
from ddnl_ray.trial.prepare import make_inputs, prepare_and_run

Config = Callable[..., TrialConfig]
SHORT: dict[str, Any] = {"iterations": 6, "batch_real": 8}
IDM = SHORT | {"batch_train": 16, "model_train_steps": 2, "net_num": 4, "net_generate_interval": 2}
RDC = {
    "rdc.warm_up": 1,
    "rdc.steps_per_epoch": 2,
    "rdc.labelled_batch": 8,
    "rdc.unlabelled_batch": 8,
    "rdc.flip": False,
    "rdc.views": 1,
}
ACCDD = SHORT | {"inner_loop": 2, "n_data": 16, "batch_train": 8, "match_augment": None, "train_augment": None}
PARAMS: dict[str, dict[str, Any]] = {
    "dm": SHORT,
    "dsa": SHORT | {"outer": 2, "inner": 1},
    "idm": IDM,
    "accdd": ACCDD,
    "dance": SHORT | {"match_augment": None},
    "idm+rdc": IDM | RDC,
    "accdd+rdc": ACCDD | RDC | {"rdc.cycle": 2},
}
WITH_EXPERTS = {"accdd", "dance", "accdd+rdc"}
QUARTERED = {"idm", "accdd", "dance", "idm+rdc", "accdd+rdc"}


@pytest.fixture
def matching(config: Config) -> Config:
    """Make the configuration of a method of the family."""

    def make(method: str, **changes: Any) -> TrialConfig:
        plain = config("mtt" if method in WITH_EXPERTS else "random")
        evaluation = EvalRecipe(epochs=2, batch_size=32, augment=None, lr=0.05, schedule="thirds", cutmix=0.5)
        return replace(plain, method=method, params=PARAMS[method], evaluation=evaluation, **changes)

    return make


def inputs_of(config: TrialConfig, digits: PreparedData, inputs: TrialInputs, root: Path) -> TrialInputs:
    return make_inputs(config, digits, inputs.labels, ExpertStore(root))


@pytest.mark.parametrize("method", PARAMS)
def test_each_method_ends_with_a_set_and_a_card(
    matching: Config, digits: PreparedData, inputs: TrialInputs, tmp_path: Path, method: str
) -> None:
    folder = tmp_path / "trials" / "one"
    options = Options(run="run", cell="cell", trial="one")
    rows = prepare_and_run(matching(method), digits, inputs.labels, ExpertStore(tmp_path / "store"), folder, options)
    assert {row["outcome"] for row in rows} == {"ok"}, rows[0]["message"]
    assert {row["variant"] for row in rows} == {"rdc" if method.endswith("+rdc") else "none"}
    card = read_json(folder / "card.json")
    images = load_file(folder / "distilled.safetensors")["images"]
    assert images.shape == (10, 1, 8, 8)
    assert (card["formation"] is not None) == (method in QUARTERED)
    if card["formation"] is not None:
        assert card["formation"]["factor"] == 2


def test_a_card_is_enough_to_cut_the_images_as_training_does(
    matching: Config, digits: PreparedData, inputs: TrialInputs, run: Callable[..., Any], tmp_path: Path
) -> None:
    """What the card says in words, done with torch's own interpolation."""
    run(matching("idm"), "one")
    folder = tmp_path / "trials" / "one"
    factor = read_json(folder / "card.json")["formation"]["factor"]
    images = load_file(folder / "distilled.safetensors")["images"]
    crops = [crop for image in images for row in image.chunk(factor, 1) for crop in row.chunk(factor, 2)]
    cut = F.interpolate(torch.stack(crops), size=8, mode="bilinear", align_corners=False)
    from ddnl_ray.distill.base import Distilled

    decoded = Distilled(images, torch.arange(10), factor=factor).decoded()
    torch.testing.assert_close(decoded.images, cut)


def test_golden_sets_are_judged_refresh_by_refresh(matching: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    run(matching("idm+rdc"), "one")
    said = read_json(tmp_path / "trials" / "one" / "trust.json")["refreshes"]
    assert [each["iteration"] for each in said] == [2, 4, 6]
    for each in said:
        assert 0 < each["members"] <= 160
        assert 0 <= each["precision"] <= 1


def test_a_new_cycle_is_not_a_choice(
    matching: Config, digits: PreparedData, inputs: TrialInputs, run: Callable[..., Any], tmp_path: Path
) -> None:
    config = matching("accdd+rdc")
    run(config, "one", inputs=inputs_of(config, digits, inputs, tmp_path / "store"))
    said = read_json(tmp_path / "trials" / "one" / "trust.json")["refreshes"]
    assert [each["iteration"] for each in said] == [2, 4, 6]


class Interrupt:
    """Raises at the first checkpoint."""

    def __call__(self, iteration: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["idm", "idm+rdc", "accdd+rdc"])
def test_interrupted_at_every_checkpoint_it_ends_the_same(
    matching: Config,
    digits: PreparedData,
    inputs: TrialInputs,
    run: Callable[..., Any],
    tmp_path: Path,
    method: str,
) -> None:
    config = matching(method)
    given = inputs_of(config, digits, inputs, tmp_path / "store")
    run(config, "whole", inputs=given)
    for start in range(30):
        try:
            run(config, "pieces", inputs=given, checkpoint_s=0.0, on_progress=Interrupt())
            break
        except KeyboardInterrupt:
            assert start < 29
    assert start >= 6
    folders = [tmp_path / "trials" / name for name in ("whole", "pieces")]
    assert folders[0].joinpath("distilled.safetensors").read_bytes() == (
        folders[1].joinpath("distilled.safetensors").read_bytes()
    )
    if method != "idm":
        assert read_json(folders[0] / "trust.json") == read_json(folders[1] / "trust.json")
