"""An export shows the pixels that were distilled, and says what it is."""

from __future__ import annotations

import csv
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ddnl_ray.cards import FORMATS, Card, export, read_card
from ddnl_ray.cards.exporting import class_folders
from ddnl_ray.data import Normalise, Zca
from ddnl_ray.data.folder import load_folder
from ddnl_ray.data.images import decode
from ddnl_ray.data.parquet import read_part
from ddnl_ray.distill import Distilled
from ddnl_ray.errors import RequestError

CLASSES = ("ant", "bee", "cat")


def make(pixels: torch.Tensor, labels: torch.Tensor, whiten: bool = False, **changes: object) -> Card:
    """A card in memory, of uint8 pixels."""
    images = pixels.float() / 255
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(50, *images.shape[1:], generator=generator)
    transform = Zca.fit(noise) if whiten else Normalise.fit(noise)
    about = {
        "labels": {"kind": "probabilities" if labels.is_floating_point() else "classes"},
        "transform": {
            "kind": "zca" if whiten else "normalise",
            "file": "zca.safetensors",
            "forward": "",
            "inverse": "",
        },
        "expected_accuracy": {"mean": 0.5},
        "classes": list(CLASSES),
        "method": "random",
    }
    training = Distilled(transform.apply(images), labels, **changes)  # type: ignore[arg-type]
    return Card(Path("card"), about, training, transform)


def read_back(folder: Path, kind: str) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Pixels [n, C, H, W] and labels of an export, in the order of the set."""
    if kind == "npz":
        arrays = np.load(folder / "train.npz", allow_pickle=False)
        assert arrays["classes"].tolist() == list(CLASSES)
        return arrays["images"].transpose(0, 3, 1, 2), arrays["labels"].tolist()
    if kind == "parquet":
        part = read_part([folder / "train.parquet"])
        assert part.class_names == CLASSES
        return decode(part.images).numpy(), part.labels.tolist()
    data = load_folder(folder)
    assert data.classes == CLASSES
    files = [*(data.train_files or ()), *(data.held_files or ())]
    images, labels = torch.cat([data.train_images, data.test_images]), torch.cat([data.train_labels, data.test_labels])
    order = sorted(range(len(files)), key=lambda row: Path(files[row]).name)
    return images[order].numpy(), labels[order].tolist()


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), channels=st.sampled_from([1, 3]), size=st.integers(2, 9), soft=st.booleans())
def test_pixels_and_labels_come_back_bit_for_bit(
    kind: str, whiten: bool, seed: int, channels: int, size: int, soft: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (15, channels, size, size), generator=generator, dtype=torch.uint8)
    classes = torch.arange(15) % 3
    labels = F.one_hot(classes, 3) * 0.4 + 0.2 if soft else classes
    with tempfile.TemporaryDirectory() as folder:
        about = export(make(pixels, labels, whiten), kind, Path(folder) / "out")
        found, own = read_back(Path(folder) / "out", kind)
    np.testing.assert_array_equal(found, pixels.numpy())
    assert own == classes.tolist()
    assert about["pixels"]["share_cut"] == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_soft_labels_are_kept(tmp_path: Path, kind: str) -> None:
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]])
    export(make(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), soft), kind, tmp_path / "out")
    if kind == "npz":
        found = np.load(tmp_path / "out" / "train.npz")["soft_labels"]
    elif kind == "parquet":
        import pyarrow.parquet as pq

        found = np.array(pq.read_table(tmp_path / "out" / "train.parquet")["soft_label"].to_pylist())
    else:
        rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").read_text().splitlines()))
        assert [row["file"] for row in rows] == ["ant/000000.png", "cat/000001.png", "bee/000002.png"]
        assert [(row["label"], row["class"]) for row in rows] == [("0", "ant"), ("2", "cat"), ("1", "bee")]
        found = np.array([[float(row[f"soft_{label}"]) for label in range(3)] for row in rows])
    np.testing.assert_allclose(found, soft.numpy(), atol=1e-7)


def test_what_lies_outside_of_the_range_is_cut_and_counted(tmp_path: Path) -> None:
    card = make(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]))
    pixels = torch.tensor([[-0.5, 0.2], [1.0, 1.5]]).view(1, 1, 2, 2)
    training = dataclasses.replace(card.training, images=card.transform.apply(pixels))
    about = export(dataclasses.replace(card, training=training), "npz", tmp_path / "out")
    assert np.load(tmp_path / "out" / "train.npz")["images"].ravel().tolist() == [0, 51, 255, 255]
    assert about["pixels"]["share_cut"] == 0.5


def test_a_formation_is_kept_or_decoded(tmp_path: Path) -> None:
    pixels = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).repeat_interleave(2, 0) * 10
    card = make(pixels, torch.tensor([0, 2]), factor=2, mirrored=True)
    card = dataclasses.replace(card, about={**card.about, "formation": {"factor": 2}})
    stored = export(card, "npz", tmp_path / "stored")
    assert (stored["images"]["shape"], stored["formation"]) == ([2, 4, 4, 1], {"factor": 2})
    decoded = export(card, "npz", tmp_path / "decoded", "decoded")
    assert (decoded["images"]["shape"], decoded["formation"]) == ([16, 4, 4, 1], None)
    arrays = np.load(tmp_path / "decoded" / "train.npz")
    assert arrays["labels"].tolist() == [0] * 4 + [2] * 4 + [0] * 4 + [2] * 4
    assert [image[0, 0, 0] for image in arrays["images"][:4]] == [0, 20, 80, 100]  # the corners of the crops
    np.testing.assert_array_equal(arrays["images"][8:], arrays["images"][:8, :, ::-1])


def test_a_folder_in_use_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    card = make(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.arange(3))
    used, empty, file = (tmp_path / name for name in ("used", "empty", "file"))
    used.mkdir()
    (used / "mine.txt").write_text("mine")
    file.touch()
    with pytest.raises(RequestError, match="is not empty, and nothing is overwritten"):
        export(card, "npz", used)
    with pytest.raises(RequestError, match="is a file; name a folder"):
        export(card, "npz", file)
    with pytest.raises(RequestError, match="unknown export format 'parket': did you mean 'parquet'"):
        export(card, "parket", empty)
    with pytest.raises(RequestError, match="unknown formation 'decode': did you mean 'decoded'"):
        export(card, "npz", empty, "decode")
    empty.mkdir()
    export(card, "npz", empty)
    assert sorted(path.name for path in empty.iterdir()) == ["card.json", "train.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "used"]
    assert [path.name for path in used.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("ddnl_ray.cards.exporting.write_json", full)
    with pytest.raises(OSError, match="disk full"):
        export(make(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.arange(3)), "imagefolder", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (("a", "b"), ["a", "b"]),
        (("b", "a"), ["0_b", "1_a"]),
        (("a/b", "c"), ["0_a_b", "1_c"]),
        (("..", "x"), ["0___", "1_x"]),
        (("A", "a"), ["0_A", "1_a"]),
        (tuple(str(i) for i in range(11)), [f"{i:02d}_{i}" for i in range(11)]),
    ],
)
def test_class_folders_keep_the_order_of_the_classes(classes: tuple[str, ...], folders: list[str]) -> None:
    assert class_folders(classes) == folders
    assert sorted(folders) == folders


def test_the_export_of_a_trial(finished: Path, tmp_path: Path) -> None:
    about = export(read_card(finished), "parquet", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "card.json").read_text()) == about
    original = json.loads((finished / "card.json").read_text())
    for name in ("method", "ipc", "dataset", "classes", "noise", "licence", "evaluation", "step_size"):
        assert about[name] == original[name]
    assert about["labels"]["soft"] == "probabilities"
    assert len(read_part([tmp_path / "out" / "train.parquet"]).images) == 10
