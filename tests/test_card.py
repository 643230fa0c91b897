"""The card: a stranger with safetensors and json alone can use the set."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from ddnl_ray.card import expected, write_card
from ddnl_ray.data import Dataset, PrepareConfig, PreparedData, prepare
from ddnl_ray.files import sha256


def data(zca: bool, channels: int = 3, size: int = 4, num_classes: int = 2) -> PreparedData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, channels, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(40) % num_classes
    names = tuple(f"class {label}" for label in range(num_classes))
    dataset = Dataset("toy", names, images, labels, images[:8], labels[:8], 255, labels, "CC0", "test")
    return prepare(dataset, PrepareConfig(val_fraction=0.1, zca=zca))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a stranger does: json and safetensors, nothing of ours."""
    card = json.loads((folder / "card.json").read_text())
    return card, safetensors.numpy.load_file(folder / card["images"]["file"])


def pixels_of(prepared: PreparedData, rows: slice) -> np.ndarray:
    return np.asarray(prepared.transform.invert(prepared.train_images[rows].double()))


def test_a_normalised_set_comes_back_as_pixels(tmp_path: Path) -> None:
    prepared = data(zca=False)
    images, labels = prepared.train_images[:6], torch.tensor([0, 0, 0, 1, 1, 1])
    write_card(tmp_path, images, labels, prepared, {"method": "random", "step_size": 0.02})
    card, tensors = read(tmp_path)
    transform = card["transform"]
    assert transform["kind"] == "normalise"
    mean, std = (np.array(transform[key])[:, None, None] for key in ("mean", "std"))
    pixels = tensors["images"] * std + mean
    np.testing.assert_allclose(pixels, pixels_of(prepared, slice(6)), atol=1e-6)
    assert -1e-6 <= pixels.min() <= pixels.max() <= 1 + 1e-6
    np.testing.assert_allclose(np.round(pixels * 255), pixels * 255, atol=1e-3)
    assert tensors["labels"].tolist() == labels.tolist()
    assert card["labels"] == {"kind": "classes"}
    assert card["step_size"] == 0.02
    assert card["licence"] == "CC0"
    assert card["classes"] == ["class 0", "class 1"]
    assert card["dataset"] == "toy"


def test_a_whitened_set_comes_back_as_pixels(tmp_path: Path) -> None:
    prepared = data(zca=True)
    images = prepared.train_images[:4]
    folder = tmp_path / "trials" / "a"
    write_card(folder, images, torch.full((4, 2), 0.5), prepared, {})
    card, tensors = read(folder)
    assert card["transform"]["kind"] == "zca"
    zca = safetensors.numpy.load_file(folder / card["transform"]["file"])
    pixels = tensors["images"].reshape(4, -1).astype(np.float64) @ zca["unwhiten"] + zca["mean"]
    np.testing.assert_allclose(pixels.reshape(images.shape), pixels_of(prepared, slice(4)), atol=1e-5)
    np.testing.assert_allclose(np.round(pixels * 255), pixels * 255, atol=1e-2)
    back = (pixels - zca["mean"]) @ zca["whiten"]
    np.testing.assert_allclose(back, tensors["images"].reshape(4, -1), atol=1e-5)
    assert card["labels"] == {"kind": "probabilities"}


def test_the_whitening_matrices_lie_on_disk_once_per_run(tmp_path: Path) -> None:
    prepared = data(zca=True)
    folders = [tmp_path / "trials" / name for name in "ab"]
    for folder in [*folders, folders[0]]:  # the first trial runs again
        write_card(folder, prepared.train_images[:2], torch.tensor([0, 1]), prepared, {})
    first, second = ((folder / "zca.safetensors").stat() for folder in folders)
    assert first.st_ino == second.st_ino
    assert first.st_nlink == 3
    other = replace(prepared, fingerprint="other")
    write_card(folders[1], prepared.train_images[:2], torch.tensor([0, 1]), other, {})
    assert (folders[1] / "zca.safetensors").stat().st_ino != first.st_ino


def test_the_card_describes_the_file(tmp_path: Path) -> None:
    prepared = data(zca=False)
    images = prepared.train_images[:2].double().requires_grad_()
    write_card(tmp_path, images, torch.tensor([0, 1]), prepared, {})
    card, tensors = read(tmp_path)
    assert card["format_version"] == 1
    assert card["images"]["sha256"] == sha256((tmp_path / "distilled.safetensors").read_bytes())
    assert card["images"]["shape"] == [2, 3, 4, 4] == list(tensors["images"].shape)
    assert card["images"]["layout"] == "NCHW"
    assert tensors["images"].dtype == np.float32
    assert card["pixels"]["range"] == [float(tensors["images"].min()), float(tensors["images"].max())]
    assert card["pixels"]["space"] == "transformed"
    assert sorted(os.listdir(tmp_path)) == ["card.json", "distilled.safetensors", "preview.png"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_the_preview_has_a_column_per_class(tmp_path: Path, channels: int, soft: bool) -> None:
    prepared = data(zca=False, channels=channels, num_classes=3)
    transform = prepared.transform
    levels = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.5])  # the last is clamped
    pixels = levels.view(6, 1, 1, 1).expand(6, channels, 4, 4)
    owners = torch.tensor([2, 0, 1, 0, 1, 2])
    labels = torch.nn.functional.one_hot(owners, 3).float() if soft else owners
    write_card(tmp_path, transform.apply(pixels), labels, prepared, {})
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    scale = 640 // 14
    assert picture.shape == ((2 * 5 - 1) * scale, (3 * 5 - 1) * scale, 3)
    grid = picture[2 * scale :: 5 * scale, 2 * scale :: 5 * scale, 0]
    expected_levels = [[0.2, 0.4, 0.0], [0.6, 0.8, 1.0]]
    np.testing.assert_allclose(grid / 255, expected_levels, atol=1 / 255)


def test_the_preview_of_a_large_set_is_cut(tmp_path: Path) -> None:
    prepared = data(zca=False, num_classes=2)
    images = prepared.train_images[:1].expand(60, -1, -1, -1)
    write_card(tmp_path, images, torch.arange(60) % 2, prepared, {})
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.size == (9 * (640 // 49), 49 * (640 // 49))


def test_expected_accuracy_by_hand() -> None:
    """Student's quantile for one degree of freedom at 97.5 % is tan(0.475 pi)."""
    result = expected("test", [0.6, 0.7])
    half = math.tan(0.475 * math.pi) * (0.1 / math.sqrt(2)) / math.sqrt(2)
    assert (result.split, result.n) == ("test", 2)
    assert result.mean == pytest.approx(0.65)
    assert result.low == pytest.approx(0.65 - half)
    assert result.high == pytest.approx(0.65 + half)


def test_one_network_gives_no_interval() -> None:
    result = expected("test", [0.6])
    assert (result.mean, result.low, result.high, result.n) == (0.6, None, None, 1)
