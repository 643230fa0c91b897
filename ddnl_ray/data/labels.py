"""Labels from a file of the user's, in place of those of the source."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ddnl_ray.errors import DataError, nearest


def read_labels(path: Path, classes: Sequence[str], num: int) -> tuple[Tensor, Tensor | None]:
    """Read the labels of the training images.

    A column of text is taken as class names if every value is one, else as class indices; a column of numbers
    is taken as class indices. Row i (counted from 0) belongs to training image i.

    Args:
        path: A ``.csv`` or ``.parquet`` file with a column ``label`` and, where the truth is known,
            ``clean_label``.
        classes: Class names.
        num: Number of training images.

    Returns:
        The observed labels, int64 [num], and the true ones or None.

    Raises:
        DataError: The file is missing or unreadable, or has another length, or a value that is no class; the
        message
            names the row, the value and what was expected.
    """
    if not path.is_file():
        raise DataError(f"no label file at {path}; it needs a column 'label' and one row per training image")
    columns = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    if "label" not in columns:
        raise DataError(f"{path} has no column 'label'; {nearest('label', columns)}")
    observed = _to_indices(path, "label", columns["label"], classes, num)
    if "clean_label" not in columns:
        return observed, None
    return observed, _to_indices(path, "clean_label", columns["clean_label"], classes, num)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a csv file, as text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable csv file ({error})") from error
    return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    """Return the label columns of a parquet file."""
    if path.suffix != ".parquet":
        raise DataError(f"a label file must end in .csv or .parquet, but got {path}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file ({error})") from error
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _to_indices(path: Path, column: str, values: Sequence[Any], classes: Sequence[str], num: int) -> Tensor:
    """Return a column as class indices."""
    if len(values) != num:
        raise DataError(f"{path} must have one row per training image, {num}, but column {column!r} has {len(values)}")
    index_of = {name: index for index, name in enumerate(classes)}
    if all(isinstance(value, str) and value.strip() in index_of for value in values):
        return torch.tensor([index_of[value.strip()] for value in values], dtype=torch.int64)
    indices: list[int] = []
    for row, value in enumerate(values):
        index = _index(value)
        if index is None or not 0 <= index < len(classes):
            raise DataError(
                f"{path} row {row}: {column!r} must be a class index in 0..{len(classes) - 1}, or all rows "
                f"class names, but is {value!r}; {nearest(str(value), classes)}"
            )
        indices.append(index)
    return torch.tensor(indices, dtype=torch.int64)


def _index(value: Any) -> int | None:
    """Return a whole number, or text that is one, as an integer; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return int(value) if isinstance(value, int | str) or float(value).is_integer() else None
    except (TypeError, ValueError):
        return None
