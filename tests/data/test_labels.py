from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ddnl_ray.data import read_labels
from ddnl_ray.errors import DataError

CLASSES = ("cat", "dog", "owl")


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "observed", "clean"),
    [
        ("label\n0\n2\n1\n", [0, 2, 1], None),
        ("label\ncat\nowl\ndog\n", [0, 2, 1], None),
        ("\ufefflabel,file\n cat ,a\nowl,b\n dog,c\n", [0, 2, 1], None),
        ("label,clean_label\n0,cat\n2,cat\n1,dog\n", [0, 2, 1], [0, 0, 1]),
    ],
)
def test_csv(tmp_path: Path, text: str, observed: list[int], clean: list[int] | None) -> None:
    found, truth = read_labels(write(tmp_path, text), CLASSES, 3)
    assert found.tolist() == observed
    assert (truth is None) == (clean is None)
    if truth is not None:
        assert truth.tolist() == clean


@pytest.mark.parametrize("values", [[0, 2, 1], ["cat", "owl", "dog"], ["0", "2", "1"], [0.0, 2.0, 1.0]])
def test_parquet(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"label": values, "clean_label": [1, 1, 1]}).to_parquet(path)
    observed, clean = read_labels(path, CLASSES, 3)
    assert observed.tolist() == [0, 2, 1]
    assert clean is not None
    assert clean.tolist() == [1, 1, 1]


def test_names_that_are_numbers_win_over_indices_in_text_only(tmp_path: Path) -> None:
    classes = ("1", "2", "3")
    assert read_labels(write(tmp_path, "label\n1\n2\n"), classes, 2)[0].tolist() == [0, 1]
    assert read_labels(write(tmp_path, "label\n0\n2\n"), classes, 2)[0].tolist() == [0, 2]
    pd.DataFrame({"label": [1, 2]}).to_parquet(tmp_path / "labels.parquet")
    assert read_labels(tmp_path / "labels.parquet", classes, 2)[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\n0\n1\n", "must have one row per training image, 3, but column 'label' has 2"),
        ("lable\n0\n1\n2\n", "has no column 'label'; did you mean 'lable'?"),
        (
            "label\n0\n3\n1\n",
            "row 1: 'label' must be a class index in 0..2, or all rows class names, but is '3'",
        ),
        (
            "label\n0\n1\n-1\n",
            "row 2: 'label' must be a class index in 0..2, or all rows class names, but is '-1'",
        ),
        ("label\ncat\ndgo\nowl\n", "row 0: 'label' must be a class index in 0..2, or all rows class names"),
        ("label,clean_label\n0,0\n1,1\n2,\n", "row 2: 'clean_label' must be a class index"),
        ("label,clean_label\n0,0\n1,1\n2\n", "row 2: 'clean_label' must be a class index in 0..2"),
        (
            "label\n0.5\n1\n2\n",
            "row 0: 'label' must be a class index in 0..2, or all rows class names, but is '0.5'",
        ),
    ],
)
def test_each_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(write(tmp_path, text), CLASSES, 3)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("values", [[0, 1, None], [0.0, 1.0, 1.5], [True, False, True]])
def test_parquet_values_that_are_no_class(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"label": values}).to_parquet(path)
    with pytest.raises(DataError, match=r"row [02]: 'label' must be a class index"):
        read_labels(path, CLASSES, 3)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label file at .*gone\.csv; it needs a column 'label'"):
        read_labels(tmp_path / "gone.csv", CLASSES, 3)
    (tmp_path / "labels.txt").write_text("label\n0\n")
    with pytest.raises(DataError, match=r"must end in \.csv or \.parquet, but got .*labels\.txt"):
        read_labels(tmp_path / "labels.txt", CLASSES, 3)
    (tmp_path / "labels.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        read_labels(tmp_path / "labels.parquet", CLASSES, 3)
    (tmp_path / "labels.csv").write_bytes(b"label\n\xff\xfe\n")
    with pytest.raises(DataError, match="is not a readable csv file"):
        read_labels(tmp_path / "labels.csv", CLASSES, 3)
