"""show, evaluate, verify, export from end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.card import seal
from ddnl_ray.files import read_tensors, sha256, write_json, write_tensors

Ddnl = Callable[..., Any]
RETRAINED = {"network", "width", "mean", "low", "high", "n", "accuracies"}


def test_show_says_what_it_is_and_how_to_use_it(ddnl: Ddnl, finished: Path) -> None:
    said = ddnl("show", finished)
    assert (said.code, said.err) == (0, "")
    for text in (
        "method     datm",
        "made of    digits, symmetric 20 % label noise (",
        "10 of 1 x 8 x 8, 1 per class, 10 classes",
        "soft: a probability for every class (probabilities)",
        "as networks see them (normalise)",
        " % on test (95 % interval ",
        "n = 3), convnet2, width 16",
        "learnt",
        f'safetensors.torch.load_file("{finished}/distilled.safetensors")',
        "z = (x - mean) / std",
    ):
        assert text in said.out
    assert len(said.out.splitlines()) < 24
    assert ddnl("show", finished / "card.json").out == said.out
    assert ddnl("show", finished, "--json").json == json.loads((finished / "card.json").read_text())


def test_evaluate_trains_the_networks_that_are_named(ddnl: Ddnl, finished: Path) -> None:
    arguments = ["--network", "convnet1", "--network", "convnet2", "--repeats", 2, "--epochs", 3, "--json"]
    said = ddnl("evaluate", finished, *arguments)
    assert said.code == 0, said.err
    found = said.json
    assert set(found) == {"card", "dataset", "method", "epochs", "test_images", "note", "promised", "results"}
    assert (found["epochs"], found["test_images"], found["note"]) == (3, 200, "")
    assert [(each["network"], each["width"], each["n"]) for each in found["results"]] == [
        ("convnet1", None, 2),
        ("convnet2", 16, 2),
    ]
    assert all(set(each) == RETRAINED and 0 <= each["mean"] <= 1 for each in found["results"])
    assert said.err.splitlines()[0].startswith("convnet1 1/2: ")
    words = ddnl("evaluate", finished, "--repeats", 1, "--epochs", 1, "--width", 4).out.splitlines()
    assert words[0].startswith("convnet2 width 4: ")
    assert words[1].startswith("the card promises ")


def test_verify_passes_a_good_set(ddnl: Ddnl, finished: Path) -> None:
    said = ddnl("verify", finished, "--json")
    assert said.code == 0
    found = said.json
    assert (found["passed"], found["problems"], found["n"]) == (True, [], 3)
    assert set(found["test"]) == {"passed", "mean", "n", "bound", "sd", "df", "level"}
    assert (found["test"]["level"], found["test"]["df"]) == (0.99, 4)
    words = ddnl("verify", finished, "--repeats", 2).out.splitlines()
    assert words[0] == "files: as written"
    assert words[-1].startswith("PASS: ")
    assert "one-sided 99 % prediction interval for the mean of 2 networks" in words[-1]


def test_verify_fails_a_set_that_is_worth_less(ddnl: Ddnl, card: Path) -> None:
    """Labels of other classes, with every checksum right."""
    path = card / "distilled.safetensors"
    tensors, _ = read_tensors(path)
    write_tensors(path, {**tensors, "labels": tensors["labels"].roll(1, 0)}, {"format_version": 1})
    about = json.loads((card / "card.json").read_text())
    about["images"]["sha256"] = sha256(path.read_bytes())
    write_json(card / "card.json", seal(about))
    said = ddnl("verify", card)
    assert said.code == 1
    assert said.out.splitlines()[-1].startswith("FAIL: ")


def test_verify_names_damage_before_anything_is_trained(
    ddnl: Ddnl, card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnl_ray.cards.retrain", None)
    path = card / "distilled.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"spam")
    said = ddnl("verify", card)
    assert said.code == 1
    assert said.out.startswith("distilled.safetensors does not match its checksum: it has ")
    assert said.out.splitlines()[-1] == f"FAIL: {card} is not as it was written; fetch it again"
    said = ddnl("verify", card, "--json")
    assert (said.code, said.json["passed"], said.json["test"]) == (1, False, None)
    assert "does not match its checksum" in said.json["problems"][0]


@pytest.mark.parametrize("command", ["show", "evaluate", "export --format npz --out out"])
def test_a_damaged_card_is_not_used(ddnl: Ddnl, card: Path, command: str, tmp_path: Path) -> None:
    (card / "distilled.safetensors").unlink()
    name, *rest = command.split()
    said = ddnl(name, card, *rest[:-1], *([tmp_path / "out"] if rest else []))
    assert said.code == 2
    assert "is damaged: distilled.safetensors is missing" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["show", "evaluate", "verify", "export --format npz --out out"])
def test_what_is_no_card_ends_with_2(ddnl: Ddnl, tmp_path: Path, finished: Path, command: str) -> None:
    name, *rest = command.split()
    for folder, message in (
        (tmp_path / "nowhere", "there is nothing; name the folder that holds card.json"),
        (tmp_path, "it holds no card.json"),
        (finished.parents[1], "it is a run with 1 cards; name one, for example "),
        (finished / "preview.png", "it holds no card.json"),
    ):
        said = ddnl(name, folder, *rest)
        assert said.code == 2
        assert said.err.startswith(f"ddnl: {folder} is not a card: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--network", "convnt3"], "unknown network 'convnt3': did you mean 'convnet3'?"),
        (["evaluate", "--network", "convnet5"], "convnet5 is too deep for images of 8 x 8 pixels"),
        (["evaluate", "--epochs", "0"], "epochs must be at least 1, but got 0"),
        (["evaluate", "--repeats", "0"], "--repeats must be at least 1, but got 0"),
        (["verify", "--repeats", "0"], "--repeats must be at least 1, but got 0"),
        (["verify", "--data", "digit"], "unknown data set 'digit': did you mean 'digits'?"),
        (["verify", "--device", "gpu"], "'gpu' is not a device here"),
        (["export", "--format", "zip", "--out", "x"], "unknown export format 'zip'"),
    ],
)
def test_wrong_requests_end_with_2(ddnl: Ddnl, finished: Path, arguments: list[str], message: str) -> None:
    command, *options = arguments
    said = ddnl(command, finished, *options)
    assert said.code == 2
    assert message in said.err


def test_export_writes_what_others_read(ddnl: Ddnl, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = ddnl("export", finished, "--format", "imagefolder", "--out", out)
    assert said.code == 0
    assert said.out.startswith(f"10 images of 1 x 8 x 8, imagefolder: {out}\n")
    assert len(list(out.glob("*/*.png"))) == 10
    again = ddnl("export", finished, "--format", "imagefolder", "--out", out)
    assert again.code == 2
    assert "is not empty, and nothing is overwritten" in again.err
    shutil.rmtree(out)
    assert ddnl("export", finished, "--format", "npz", "--out", out, "--json").json["out"] == str(out)
    assert ddnl("verify", out).code == 2
