from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ddnl_ray.data import load
from ddnl_ray.errors import DataError

Plant = Callable[..., None]


@pytest.fixture
def plant(png: Callable[..., bytes]) -> Plant:
    """Write images of one value each below a folder per class; the value is 10 * class + number."""

    def write(root: Path, num: int, size: int = 4, classes: tuple[str, ...] = ("ant", "bee")) -> None:
        for label, name in enumerate(classes):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(num):
                image = np.full((size, size, 3), 10 * label + number, np.uint8)
                (root / name / f"{number}.png").write_bytes(png(image))

    return write


@pytest.mark.parametrize("test_folder", ["test", "val", "valid"])
def test_train_and_test_folders(tmp_path: Path, plant: Plant, test_folder: str) -> None:
    plant(tmp_path / "train", 3)
    plant(tmp_path / test_folder, 1)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    dataset = load(f"folder:{tmp_path}")
    assert dataset.name == "folder"
    assert dataset.classes == ("ant", "bee")
    assert dataset.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_images[:, 0, 0, 0].tolist() == [0, 10]
    assert dataset.test_labels.tolist() == [0, 1]
    assert dataset.clean_labels is None
    assert dataset.train_files == tuple(f"train/{name}/{number}.png" for name in ("ant", "bee") for number in range(3))


def test_class_folders_alone_hold_out_a_fixed_fifth(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path, 10)
    first, again = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}")
    assert first.fingerprint == again.fingerprint
    assert torch.bincount(first.test_labels).tolist() == [2, 2]
    values = [*first.train_images[:, 0, 0, 0].tolist(), *first.test_images[:, 0, 0, 0].tolist()]
    assert sorted(values) == list(range(20))
    assert (first.train_images[:, 0, 0, 0] // 10 == first.train_labels).all()
    assert first.train_files is not None
    found = [10 * (name[:3] == "bee") + int(name[4]) for name in first.train_files]
    assert first.train_images[:, 0, 0, 0].tolist() == found


def test_what_was_held_out_comes_back_behind_the_training_images(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path / "alone", 10)
    first = load(f"folder:{tmp_path / 'alone'}")
    whole = first.with_held_out()
    assert len(whole.train_images) == 20
    assert torch.equal(whole.train_images[:16], first.train_images)
    assert torch.equal(whole.train_images[:, 0, 0, 0] // 10, whole.train_labels.to(torch.uint8))
    assert whole.train_files is not None
    found = [10 * (name[:3] == "bee") + int(name[4]) for name in whole.train_files]
    assert whole.train_images[:, 0, 0, 0].tolist() == found
    assert whole.with_held_out() is whole
    plant(tmp_path / "split" / "train", 3)
    plant(tmp_path / "split" / "test", 1)
    split = load(f"folder:{tmp_path / 'split'}")
    assert split.with_held_out() is split


def test_sizes(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path / "train", 2)
    plant(tmp_path / "test", 1, size=6)
    with pytest.raises(DataError, match=r"images differ in size: .*train/ant/0\.png is 4x4 .* --set data\.size=64"):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}", size=5).train_images.shape == (4, 3, 5, 5)


def test_grey_in_training_and_colour_in_test_become_colour(
    tmp_path: Path, plant: Plant, png: Callable[..., bytes]
) -> None:
    plant(tmp_path / "train", 1)
    plant(tmp_path / "test", 1)
    for name in ("ant", "bee"):
        (tmp_path / "train" / name / "0.png").write_bytes(png(np.full((4, 4), 9, np.uint8)))
    assert load(f"folder:{tmp_path}").train_images.shape == (2, 3, 4, 4)


def test_labels_override(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path / "train", 2)
    plant(tmp_path / "test", 1)
    labels = tmp_path / "labels.csv"
    labels.write_text("label,clean_label\nbee,ant\nant,ant\nbee,bee\nant,bee\n")
    dataset = load(f"folder:{tmp_path}", labels=labels)
    assert dataset.train_labels.tolist() == [1, 0, 1, 0]
    assert dataset.clean_labels is not None
    assert dataset.clean_labels.tolist() == [0, 0, 1, 1]
    assert str(labels) in dataset.source


def test_each_fault_is_named(tmp_path: Path, plant: Plant) -> None:
    with pytest.raises(DataError, match=r"no folder at .*gone"):
        load(f"folder:{tmp_path / 'gone'}")
    with pytest.raises(DataError, match=r"one sub-folder per class, at least 2, but holds \[\]"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train" / "ant").mkdir(parents=True)
    (tmp_path / "train" / "bee").mkdir()
    with pytest.raises(DataError, match=r"no images below .*train; known file endings: "):
        load(f"folder:{tmp_path}")
    plant(tmp_path / "train", 1)
    with pytest.raises(DataError, match="has train/ but no test images; looked for test/, val/, valid/"):
        load(f"folder:{tmp_path}")
    plant(tmp_path / "test", 1, classes=("ant", "beee"))
    with pytest.raises(DataError, match=r"beee is not a class of train/: did you mean 'bee'\?"):
        load(f"folder:{tmp_path}")
