"""The shipped sweep files, and the settings with their sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ddnl_ray.cli import cli
from ddnl_ray.distill import METHODS
from ddnl_ray.errors import RequestError
from ddnl_ray.robust import NAMES, compose
from ddnl_ray.sweep import shipped
from ddnl_ray.sweep.plan import count_cells, make_plan
from ddnl_ray.sweep.read import parse_sweep, read_sweep
from ddnl_ray.sweep.settings import settings_of
from ddnl_ray.sweep.shipped import first_sentence, sweeps_folder

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_all_shipped_files_are_listed() -> None:
    ended = CliRunner().invoke(cli, ["sweeps", "ls", "--json"])
    assert ended.exit_code == 0, ended.output
    said = json.loads(ended.stdout)
    assert [each["file"] for each in said["sweeps"]] == sorted(path.name for path in SWEEPS.glob("*.yaml"))
    assert Path(said["folder"]) == SWEEPS
    by_file = {each["file"]: each for each in said["sweeps"]}
    assert by_file["quickstart.yaml"] == {
        "file": "quickstart.yaml",
        "name": "quickstart",
        "about": "The main job on the embedded digits: noisy labels in, scored distilled sets and a figure out, in "
        "minutes on 2 cores.",
        "cells": 30,
        "profiles": ["smoke"],
    }
    assert all(each["about"] and each["cells"] > 0 for each in said["sweeps"])
    words = CliRunner().invoke(cli, ["sweeps", "ls"]).stdout
    assert "quickstart.yaml             30 cells; profiles: smoke\n    The main job" in words
    assert words.endswith(f"{len(by_file)} sweep files in {SWEEPS}\n")


def test_cells_are_counted_as_the_plan_makes_them() -> None:
    assert count_cells(read_sweep(SWEEPS / "quickstart.yaml")) == 30
    document: dict[str, Any] = {
        "name": "x",
        "data": {"subset": 400},
        "grid": {
            "noise": [{"kind": "symmetric", "rate": [0, 0.2]}, {"kind": "pairflip", "rate": 0}],
            "method": ["full", "random", "mtt"],
            "ipc": [1, 2],
            "seed": [0, 1],
            "mtt.lr_img": [1.0, 2.0],
        },
    }
    sweep = parse_sweep(document, "test")
    assert count_cells(sweep) == len(make_plan(sweep).cells) == 2 * (1 + 4 + 8)


def test_without_the_repository_the_current_folder_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "BESIDE", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="not installed with the package; run the command where that folder is"):
        sweeps_folder()
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "one.yaml").write_text("# One.\nname: one\ngrid: {method: [random]}\n")
    assert sweeps_folder() == Path("sweeps")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# One. Two.\nname: x", "One."),
        (
            "# Tuning of\n# a thing, et al. 2024, v. 2\n# more. For GPUs.\n",
            "Tuning of a thing, et al. 2024, v. 2 more.",
        ),
        ("# no full stop\nname: x", "no full stop"),
        ("name: x\n# late", ""),
    ],
)
def test_the_first_sentence_of_a_comment(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("dataset", ["digits", "cifar10", "folder"])
def test_every_setting_has_a_source(method: str, dataset: str) -> None:
    rows = settings_of(method, dataset, 10, "symmetric:0.4")
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert set(compose(method).parameters) <= set(names)
    assert all(row["source"] for row in rows)
    json.dumps(rows)


def test_values_and_sources_are_those_of_the_recipe() -> None:
    rows = {row["name"]: row for row in settings_of("datm+tad", "cifar10", 10, "symmetric:0.4")}
    assert rows["datm.lr_teacher"]["value"] == 0.001
    assert "noisy benchmark" in rows["datm.lr_teacher"]["source"]
    assert rows["datm.momentum_y"]["source"] == "default of DatmConfig (ddnl_ray.distill.datm)"
    assert rows["tad.top_k"]["source"] == "default of TadConfig (ddnl_ray.robust.tad)"
    assert rows["budget.experts"]["value"] == 100
    assert rows["extractor.epochs"]["value"] == 500
    assert {row["name"]: row for row in settings_of("datm+tad", "digits", 1)}["tad.top_k"] == {
        "name": "tad.top_k",
        "value": 20,
        "source": "ours for digits (ddnl_ray.recipes)",
    }
    two = {row["name"]: row["value"] for row in settings_of("dividemix>datm", "cifar10", 10, "symmetric:0.4")}
    assert two["dividemix: network"] == "resnet18"
    assert "datm.lr_img" in two


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dtm", "cifar10", 10), "unknown method 'dtm': did you mean 'datm'?"),
        (("divdemix>datm", "cifar10", 10), "unknown cleaner 'divdemix': did you mean 'dividemix'?"),
        (("datm", "cifar", 10), "unknown data set 'cifar': did you mean "),
        (("datm", "cifar10", 0), "IPC must be at least 1, but got 0"),
        (("datm", "cifar10", 10, "symetric:0.4"), "'symetric': did you mean 'symmetric'?"),
        (("datm", "cifar10", 10, "symmetric:x"), "--noise needs KIND:RATE, as in symmetric:0.4"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        settings_of(*arguments)
    assert message in str(caught.value)


def test_the_command_groups_settings_by_source() -> None:
    ended = CliRunner().invoke(cli, ["recipe", "show", "mtt", "cifar10", "50"])
    assert ended.exit_code == 0
    assert ended.stdout.startswith("MTT (Cazenavette et al. 2022), authors' table; ")
    assert "  mtt.lr_img " in ended.stdout
    assert "\ndefault of MttConfig (ddnl_ray.distill.mtt):\n" in ended.stdout
    said = json.loads(CliRunner().invoke(cli, ["recipe", "show", "mtt", "cifar10", "50", "--json"]).stdout)
    assert set(said) == {"method", "dataset", "ipc", "noise", "settings"}
    assert "mtt" in METHODS
