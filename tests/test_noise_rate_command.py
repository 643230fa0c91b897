"""``ddnl noise-rate``: what it prints and writes, and what it refuses before it trains."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddnl_ray.cli import main


@dataclass(frozen=True)
class Said:
    """What the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)


Command = Callable[..., Said]
QUICK = ("--epochs", 8, "--folds", 2)
SMALL = ("digits", "--subset", 200, *QUICK)


@pytest.fixture
def noise_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ddnl", "noise-rate", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture
def refused(noise_rate: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command, which must end with 2 and train nothing."""

    def no_training(*_: object) -> None:
        raise AssertionError("a network was trained")

    monkeypatch.setattr("ddnl_ray.lnl.heldout.train_experts", no_training)

    def run(*arguments: object) -> Said:
        said = noise_rate(*arguments)
        assert (said.code, said.out) == (2, "")
        return said

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of bright and dark images, one of which is in the wrong class."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 50)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(30):
            own = 250 - level if (name, index) == ("dark", 7) else level
            noise = rng.integers(-30, 31, (8, 8))
            noise[:4] += 30 if own > 100 else -20  # instance normalisation hides brightness, not structure
            pixels = np.clip(own + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index:02d}.png")
    return tmp_path / "photos"


def test_a_subset_of_digits_end_to_end(noise_rate: Command, tmp_path: Path) -> None:
    said = noise_rate(*SMALL, "--corrupt", "symmetric:0.4", "--json")
    assert said.code == 0
    assert set(said.json) == {"n", "classes", "estimates", "confusions", "suspects"}
    assert said.json["n"] == 200
    assert said.json["classes"] == [str(digit) for digit in range(10)]
    assert [item["estimator"] for item in said.json["estimates"]] == ["confident", "lossmix", "knn", "knn_vote"]
    assert said.err.splitlines()[0].startswith("fold 1 of 2, epoch 8 of 8: ")
    out = tmp_path / "noise-rate"
    assert sorted(path.name for path in out.iterdir()) == [
        "labels-suggested.csv",
        "noise-rate.html",
        "noise-rate.json",
    ]
    assert json.loads((out / "noise-rate.json").read_text()) == said.json
    page = (out / "noise-rate.html").read_text()
    assert "digits, with symmetric:0.4 added" in page
    assert page.count('<img src="data:image/png;base64,') == min(96, len(said.json["suspects"])) > 0
    with (out / "labels-suggested.csv").open() as file:
        labels = [int(row["label"]) for row in csv.DictReader(file)]
    assert len(labels) == 1437  # all of the training set, for data.labels of a sweep
    assert all(labels[suspect["index"]] == suspect["suggested"] for suspect in said.json["suspects"])
    again = noise_rate(*SMALL, "--corrupt", "symmetric:0.4", "--json", "--out", "again")
    assert again.json == said.json


def test_the_outcome_in_words(noise_rate: Command) -> None:
    options = ("--alpha", 2, "--ipc", 5, "--features", "simclr", "--corrupt", "pairflip:0.2", "--out", "a/b")
    said = noise_rate(*SMALL, *options)
    assert said.code == 0
    assert said.out.startswith("An estimated ")
    for words in ("confident learning", "loss mixture", "neighbours, vote", "Corollary IV, published", "true rate"):
        assert words in said.out
    assert "error" in said.out
    assert "--set 'grid.noise=[{kind: pairflip, rate: 0.2}]'" in said.out
    assert said.out.endswith("page: a/b/noise-rate.html\n")
    assert "PAC-Bayes gap" in said.out
    assert "features of SimCLR" in Path("a/b/noise-rate.html").read_text()


def test_a_folder_names_the_files_of_its_suspects(noise_rate: Command, photos: Path) -> None:
    said = noise_rate(f"folder:{photos}", "--epochs", 20, "--folds", 2, "--json")
    assert said.code == 0
    assert said.json["classes"] == ["bright", "dark"]
    assert "dark/07.png" in [suspect["file"] for suspect in said.json["suspects"]]
    first = said.json["suspects"][0]
    assert (first["file"], first["given"], first["suggested"]) == ("dark/07.png", 1, 0)


def test_every_image_of_a_folder_is_audited(noise_rate: Command, photos: Path, tmp_path: Path) -> None:
    """Sweeps hold out a fifth of such a folder; they still read the labels that are suggested for the others."""
    from ddnl_ray.data import load

    said = noise_rate(f"folder:{photos}", *QUICK, "--json")
    assert said.json["n"] == 60
    kept = load(f"folder:{photos}")
    assert len(kept.train_labels) == 48
    out = tmp_path / "noise-rate"
    assert load(f"folder:{photos}", labels=out / "labels-suggested.csv").train_labels.shape == (48,)
    assert "12 images that sweeps hold out as their test set are audited too" in (out / "noise-rate.html").read_text()


def test_the_gap_of_the_networks_is_said_without_an_alpha(noise_rate: Command) -> None:
    said = noise_rate(*SMALL)
    assert "Corollary IV is not given" in said.out
    assert "PAC-Bayes gap" in said.out
    assert "With P = Q it would be" in said.out


def test_alpha_comes_from_a_run(noise_rate: Command, tmp_path: Path) -> None:
    """Crossovers of 200 images at which an image is worth two: IPC* = 10 (1 - rate)."""
    write_run(tmp_path / "known", 200)
    options = ("--calibrated-on", tmp_path / "known", "--ipc", 6, "--corrupt", "symmetric:0.4")
    said = noise_rate(*SMALL, *options, "--json")
    published, derived = said.json["estimates"][-2:]
    assert (published["estimator"], derived["estimator"]) == ("pac_bayes_published", "pac_bayes_derived")
    assert published["rate"] == pytest.approx(0.4, abs=0.03)
    assert published["low"] < published["rate"]
    assert derived["vacuous"]
    said = noise_rate(*SMALL, *options)
    assert "calibrated on 4 crossovers of datm under symmetric noise on digits" in said.out
    assert "Leaving each rate out, its mean absolute error is" in said.out


def test_a_run_of_another_size_does_not_calibrate(refused: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "known", 1000)
    said = refused(*SMALL, "--calibrated-on", tmp_path / "known", "--ipc", 6)
    assert "distilled from 1000 training images, but there are 200 labels" in said.err


def write_run(run: Path, num_images: int) -> None:
    """Write the folder of a run whose crossovers are IPC* = 10 (1 - rate)."""
    from ddnl_ray.results import write_rows

    rows = []
    for draw in range(3):
        for rate in (0.0, 0.2, 0.4, 0.6):
            noise = {"noise": "symmetric" if rate else "none", "noise_rate": rate, "noise_rate_realised": rate}
            place = {"run": run.name, "dataset": "digits", "noise_seed": draw, "seed": 0, "eval_seed": 0}
            flags = {"split": "test", "is_final": True, "is_selected": True, "outcome": "ok", "variant": "none"}
            flags |= {"format_version": 1, "code_version": "0", "wall_s": 1.0, "config_hash": "0"}
            nets = {"backbone": "convnet1", "eval_backbone": "convnet1", "params": "{}"}
            common = {**noise, **place, **flags, **nets, "iteration": 1, "loss": 0.1}
            rows.append({**common, "cell": f"f{rate}-{draw}", "trial": "f", "base_method": "full", "accuracy": 0.5})
            for ipc in (1, 2, 5, 10, 20):
                wobble = 1 + 0.02 * (draw - 1) + 0.01 * (rate == 0.2)
                accuracy = 0.5 + 0.1 * float(np.log(ipc / (10 * (1 - rate) * wobble)))
                own = {"cell": f"d{rate}-{ipc}-{draw}", "trial": "d", "base_method": "datm", "ipc": ipc}
                rows.append({**common, **own, "accuracy": accuracy})
    run.mkdir()
    write_rows(run / "results.parquet", rows, "val_noisy")
    size = {"dataset": "digits", "train_images": num_images, "classes": 10}
    (run / "summary.json").write_text(json.dumps({"data": [size]}))


def test_given_labels_are_audited(noise_rate: Command, tmp_path: Path) -> None:
    from ddnl_ray.data import load

    labels = load("digits").train_labels.tolist()
    labels[0] = (labels[0] + 1) % 10
    (tmp_path / "mine.csv").write_text("\n".join(["label", *map(str, labels)]))
    said = noise_rate(*SMALL, "--labels", "mine.csv")
    assert said.code == 0
    assert "true rate" not in said.out  # nobody says what is true
    assert "--set data.labels=mine.csv" in said.out


WRONG = [
    (["digitz"], "unknown data set 'digitz': did you mean 'digits'?"),
    (["digits", "--labels", "short.csv"], "short.csv must have one row per training image, 1437, but column 'label'"),
    (["digits", "--labels", "one.csv"], "every class needs a training image, but class 0 ('0') has none"),
    (["folder:one"], "one must hold one sub-folder per class, at least 2, but holds ['cat']"),
    (["folder:nowhere"], "no folder at nowhere"),
    (["folder:empty"], "no images below empty"),
    (["folder:broken"], "x.png is not a readable image"),
    (["parquet:nowhere"], "no parquet file at nowhere"),
    (["digits", "--subset", 40], "40 images are too few for 5 folds of 10 classes, which need 50"),
    (["digits", "--subset", 55], "labelled images, but 5 folds need 5 of every class"),
    (["digits", "--subset", 2000], "data.subset must be at most the 1437 images"),
    (["digits", "--folds", 1], "folds must be at least 2, but got 1"),
    (["digits", "--epochs", 0], "epochs must be at least 1, but got 0"),
    (["digits", "--features", "simcl"], "unknown features 'simcl': did you mean 'simclr'?"),
    (["digits", "--alpha", 2], "Corollary IV needs --ipc and one of --alpha and --calibrated-on, or none of them"),
    (["digits", "--ipc", 2], "Corollary IV needs --ipc and one of --alpha and --calibrated-on, or none of them"),
    (["digits", "--alpha", 2, "--calibrated-on", "x", "--ipc", 2], "both give alpha; leave one out"),
    (["digits", "--calibrated-on", "nowhere", "--ipc", 2], "nowhere is not a run folder"),
    (["digits", "--alpha", 2, "--ipc", 100], "hold the clean content of 2000 samples, but there are 1437"),
    (["digits", "--alpha", -1, "--ipc", 1], "alpha must be finite and > 0"),
    (["digits", "--corrupt", "symmetric"], "noise of kind symmetric needs rate"),
    (["digits", "--corrupt", "symetric:0.4"], "unknown noise kind 'symetric': did you mean 'symmetric'?"),
    (["digits", "--corrupt", "symmetric:much"], "--corrupt needs KIND:RATE, as in symmetric:0.4, but got"),
    (["digits", "--corrupt", "symmetric:1"], "noise rate must be in [0, 1), but got 1.0"),
    (["digits", "--out", "short.csv"], "--out short.csv is a file; name a folder"),
    (["digits", "--device", "gpu"], "'gpu' is not a device here"),
    ([], "Missing argument 'DATA'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(map(str, words)) for words, _ in WRONG])
def test_wrong_requests_end_with_2_before_training(
    refused: Command, tmp_path: Path, arguments: list[object], message: str
) -> None:
    (tmp_path / "short.csv").write_text("label\n1\n2\n")
    (tmp_path / "one.csv").write_text("label\n" + "3\n" * 1437)
    for name in ("one/cat", "empty/ant", "empty/bee", "broken/ant", "broken/bee"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ant", "bee"):
        for file in ("x.png", "y.png", "z.png"):
            (tmp_path / "broken" / name / file).write_bytes(b"no image")
    assert message in refused(*arguments).err
    assert not (tmp_path / "noise-rate").exists()


def test_noise_is_not_added_to_labels_that_may_be_wrong(refused: Command, photos: Path) -> None:
    assert "noise is added to true labels" in refused(f"folder:{photos}", "--corrupt", "symmetric:0.2").err


def test_a_folder_that_may_not_be_read_is_refused(
    refused: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    said = refused(f"folder:{photos}")
    assert f"folder:{photos} cannot be read ([Errno 13] Permission denied" in said.err
