from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddnl_ray.data import load
from ddnl_ray.errors import DataError

Make = Callable[..., np.ndarray]
WriteParquet = Callable[..., None]


def test_one_file_holds_out_a_fixed_fifth(tmp_path: Path, pixels: Make, write_parquet: WriteParquet) -> None:
    path, images = tmp_path / "mine.parquet", pixels(20, 4)
    write_parquet(path, images, [0, 1] * 10)
    dataset = load(f"parquet:{path}")
    assert dataset.name == "parquet"
    assert (len(dataset.train_images), len(dataset.test_images)) == (16, 4)
    assert dataset.classes == ("0", "1")
    assert dataset.clean_labels is None
    found = {image.numpy().tobytes() for image in (*dataset.train_images, *dataset.test_images)}
    assert found == {image.transpose(2, 0, 1).tobytes() for image in images}
    assert dataset.fingerprint == load(f"parquet:{path}").fingerprint
    assert dataset.train_files is not None
    rows = [int(name.removeprefix("mine.parquet row ")) for name in dataset.train_files]
    np.testing.assert_array_equal(dataset.train_images.numpy(), images[rows].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("test_name", ["test.parquet", "val.parquet", "validation-00000-of-00001.parquet"])
def test_a_folder_with_splits(tmp_path: Path, pixels: Make, write_parquet: WriteParquet, test_name: str) -> None:
    images = pixels(5, 4)
    write_parquet(tmp_path / "data" / "train.parquet", images[:3], [0, 1, 1])
    write_parquet(tmp_path / "data" / test_name, images[3:], [1, 0])
    dataset = load(f"parquet:{tmp_path}")
    assert dataset.train_labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(dataset.test_images.permute(0, 2, 3, 1).numpy(), images[3:])


def test_plain_bytes_and_fine_labels(tmp_path: Path, pixels: Make, png: Callable[..., bytes]) -> None:
    images = pixels(10, 4)
    table = pa.table({"img": [png(image) for image in images], "fine_label": [0, 1] * 5})
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(load(f"parquet:{tmp_path / 'a.parquet'}").train_images) == 8


def test_class_names_come_from_the_list_then_the_metadata(
    tmp_path: Path, pixels: Make, write_parquet: WriteParquet
) -> None:
    feature = {"names": ["ant", "bee"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    write_parquet(tmp_path / "a.parquet", pixels(10, 4), [0, 1] * 5, metadata=metadata)
    assert load(f"parquet:{tmp_path}").classes == ("ant", "bee")
    (tmp_path / "classes.txt").write_text("Ameise\tx\nBiene\n")
    assert load(f"parquet:{tmp_path}").classes == ("Ameise", "Biene")


@pytest.mark.parametrize("raw", ["no json", "[]", "{}", '{"info": {"features": {"label": {"dtype": "int64"}}}}'])
def test_foreign_metadata_are_ignored(tmp_path: Path, pixels: Make, write_parquet: WriteParquet, raw: str) -> None:
    write_parquet(tmp_path / "a.parquet", pixels(10, 4), [0, 1] * 5, metadata={"huggingface": raw})
    assert load(f"parquet:{tmp_path}").classes == ("0", "1")


def test_each_fault_is_named(tmp_path: Path, pixels: Make, write_parquet: WriteParquet) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match=r"no parquet file at .*; looked for .*/\*\.parquet"):
        load(f"parquet:{tmp_path}")
    path.write_text("no parquet")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        load(f"parquet:{path}")
    write_parquet(path, pixels(4, 4), [0, 1, 0, 1], image_column="picture")
    with pytest.raises(DataError, match=r"has no column 'image' or 'img'; .*Known: label, picture"):
        load(f"parquet:{path}")
    write_parquet(path, pixels(4, 4), [0, 1, 0, 1], label_column="lable")
    with pytest.raises(DataError, match=r"has no column 'label' or 'fine_label'; did you mean 'lable'\?"):
        load(f"parquet:{path}")
    write_parquet(path, pixels(4, 4), [0, 1, None, 1])
    with pytest.raises(DataError, match=r"a\.parquet row 2: 'label' must be an integer, but is None"):
        load(f"parquet:{path}")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "x.png"}], "label": [0]}), path)
    with pytest.raises(DataError, match=r"row 0: column 'image' must hold encoded bytes.* but holds NoneType"):
        load(f"parquet:{path}")
    pq.write_table(pa.table({"image": [b"x"] * 4, "label": [0, 1, 0, 1]}), path)
    with pytest.raises(DataError, match=r"a\.parquet row \d is not a readable image"):
        load(f"parquet:{path}")
    write_parquet(path, pixels(12, 4), [0, 2] * 6)
    with pytest.raises(DataError, match=r"every class needs a training image, but class 1 \('1'\) has none"):
        load(f"parquet:{path}")
