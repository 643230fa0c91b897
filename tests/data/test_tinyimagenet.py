from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddnl_ray.data import load
from ddnl_ray.errors import DataError

WNIDS = ("n02", "n01", "n03")  # the published list is not sorted


@pytest.fixture
def tree(tmp_path: Path, pixels: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Path:
    """The published layout, with two training images per class; one of them is grey, as some are."""
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (folder / f"{wnid}_0.JPEG").write_bytes(png(np.full((64, 64, 3), 10 * label, np.uint8), "JPEG"))
        (folder / f"{wnid}_1.JPEG").write_bytes(png(np.full((64, 64), 10 * label, np.uint8), "JPEG"))
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "val" / "images").mkdir(parents=True)
    for number in range(2):
        (root / "val" / "images" / f"val_{number}.JPEG").write_bytes(png(pixels(1, 64)[0], "JPEG"))
    (root / "val" / "val_annotations.txt").write_text("val_1.JPEG\tn03\t0\t0\t62\t62\nval_0.JPEG\tn01\t0\t0\t9\t9\n")
    return tmp_path


@pytest.mark.parametrize("below", ["", "tiny-imagenet-200"])
def test_published_tree(tree: Path, below: str) -> None:
    dataset = load("tinyimagenet", root=tree / below)
    assert dataset.classes == ("n01", "n02", "n03")
    assert dataset.train_images.shape == (6, 3, 64, 64)
    assert dataset.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    # n01 is the second of the published list, so its pixels are 10.
    assert dataset.train_images.float().mean(dim=(1, 2, 3)).tolist() == [10, 10, 0, 0, 20, 20]
    assert dataset.test_labels.tolist() == [2, 0]
    assert dataset.clean_labels is dataset.train_labels


def test_parquet(tmp_path: Path, pixels: Callable[..., np.ndarray], write_parquet: Callable[..., None]) -> None:
    images = pixels(6, 64)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", images[:4], [0, 1, 2, 0])
    write_parquet(tmp_path / "valid-00000-of-00001.parquet", images[4:], [2, 1])
    with pytest.raises(DataError, match=r"classes\.txt is missing; it lists the WordNet identifiers"):
        load("tinyimagenet", root=tmp_path)
    (tmp_path / "classes.txt").write_text("n01\tgoldfish\nn02\tshark, a fish\nn03\tcock\n")
    dataset = load("tinyimagenet", root=tmp_path)
    assert dataset.classes == ("n01", "n02", "n03")
    assert dataset.train_labels.tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(dataset.test_images.permute(0, 2, 3, 1).numpy(), images[4:])
    (tmp_path / "valid-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"has train\*\.parquet but no val\*\.parquet"):
        load("tinyimagenet", root=tmp_path)


def test_absent_data_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("tinyimagenet", root=tmp_path)
    assert f"looked for wnids.txt or train*.parquet in {tmp_path}, {tmp_path / 'tiny-imagenet-200'}" in str(
        caught.value
    )


def test_missing_pieces_are_named(tree: Path) -> None:
    root = tree / "tiny-imagenet-200"
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("val_0.JPEG\tn99\t0\n")
    with pytest.raises(DataError, match=r"val_annotations\.txt line 1 must be FILE<tab>WNID.*n99"):
        load("tinyimagenet", root=tree)
    annotations.write_text("val_7.JPEG\tn01\t0\n")
    with pytest.raises(DataError, match=r"val_7\.JPEG is not a readable image"):
        load("tinyimagenet", root=tree)
    annotations.unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt is missing; it holds the labels"):
        load("tinyimagenet", root=tree)
    for file in (root / "train" / "n02" / "images").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"no \*\.JPEG in .*n02"):
        load("tinyimagenet", root=tree)


@pytest.mark.slow
def test_real_subset(real_data: Path) -> None:
    dataset = load("tinyimagenet", root=real_data / "tinyimagenet_subset")
    assert dataset.num_classes == 200
    assert dataset.train_images.shape[1:] == (3, 64, 64)
    assert list(dataset.classes) == sorted(dataset.classes)
