"""Images in parquet files, as data set hubs publish them: a column of encoded images and one of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.images import Encoded, decode
from ddnl_ray.data.split import stratified_holdout
from ddnl_ray.errors import DataError, nearest

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
HELD_OUT = 0.2
_SPLIT_SEED = 0


@dataclass(frozen=True)
class ParquetPart:
    """The rows of one split.

    Attributes:
        images: The encoded images.
        labels: int64 [N].
        class_names: From the files' metadata, if they have it.
    """

    images: list[Encoded]
    labels: Tensor
    class_names: tuple[str, ...] | None


def load_parquet(path: Path, size: int | None = None) -> Dataset:
    """Read ``parquet:PATH``.

    Args:
        path: A parquet file, or a folder with ``train*.parquet`` and ``test*``, ``valid*`` or
            ``val*.parquet``, or with any other parquet files. Without test files a fixed, stratified fifth is
            held out as test set.
        size: Height and width to resize to, for images that differ in size.

    Raises:
        DataError: Files, columns or class names are missing or wrong.
    """
    train_files, test_files = find_splits(path)
    train = read_part(train_files)
    test = read_part(test_files) if test_files else None
    num_train = len(train.images)
    images = decode(train.images + (test.images if test else []), size)
    labels = train.labels if test is None else torch.cat([train.labels, test.labels])
    if test is None:
        num_held = round(HELD_OUT * num_train)
        kept, held = stratified_holdout(labels.numpy(), num_held, _SPLIT_SEED)
        rows, test_rows = torch.from_numpy(kept), torch.from_numpy(held)
    else:
        rows, test_rows = torch.arange(num_train), torch.arange(num_train, len(images))
    return Dataset(
        name="parquet",
        classes=_class_names(path, train),
        train_images=images[rows],
        train_labels=labels[rows],
        test_images=images[test_rows],
        test_labels=labels[test_rows],
        max_value=255,
        clean_labels=None,
        licence="unknown: the owner of the images decides",
        source=str(path),
        train_files=tuple(Path(train.images[row].name).name for row in rows.tolist()),
        held_files=tuple(Path(train.images[row].name).name for row in test_rows.tolist()) if test is None else None,
    )


def find_splits(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the training and the test files of a parquet file or folder; the latter may be none.

    Raises:
        DataError: There is no parquet file.
    """
    if path.is_file():
        return [path], []
    for folder in (path, path / "data"):
        train = sorted(folder.glob("train*.parquet"))
        if train:
            tests = (sorted(folder.glob(pattern)) for pattern in ("test*.parquet", "val*.parquet"))
            return train, next(filter(None, tests), [])
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise DataError(f"no parquet file at {path}; looked for {path}/*.parquet and {path}/data/train*.parquet")
    return files, []


def read_part(files: Sequence[Path]) -> ParquetPart:
    """Read the rows of one split from its files, in their order.

    Raises:
        DataError: A file is not parquet, or an image or label column is missing or holds something else.
    """
    images: list[Encoded] = []
    labels: list[int] = []
    names: tuple[str, ...] | None = None
    for file in files:
        try:
            schema = pq.read_schema(file)
            image_column = _column(file, schema.names, IMAGE_COLUMNS)
            label_column = _column(file, schema.names, LABEL_COLUMNS)
            table = pq.read_table(file, columns=[image_column, label_column])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} is not a readable parquet file ({error}); fetch it again") from error
        names = names or _names_in_metadata(schema, label_column)
        for row, value in enumerate(table.column(image_column).to_pylist()):
            images.append(Encoded(f"{file} row {row}", _image_bytes(file, row, image_column, value)))
        for row, value in enumerate(table.column(label_column).to_pylist()):
            if not isinstance(value, int):
                raise DataError(f"{file} row {row}: {label_column!r} must be an integer, but is {value!r}")
            labels.append(value)
    return ParquetPart(images, torch.tensor(labels, dtype=torch.int64), names)


def _image_bytes(file: Path, row: int, column: str, value: Any) -> bytes:
    """Return the encoded bytes of a cell: bytes, or a struct that has them."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(
            f"{file} row {row}: column {column!r} must hold encoded bytes, or {{bytes, path}} with bytes, "
            f"but holds {type(content).__name__}"
        )
    return content


def _column(file: Path, present: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the first of the wanted columns that is present."""
    for name in wanted:
        if name in present:
            return name
    raise DataError(f"{file} has no column {' or '.join(map(repr, wanted))}; {nearest(wanted[0], present)}")


def _names_in_metadata(schema: Any, label_column: str) -> tuple[str, ...] | None:
    """Return the class names that the hub's tools write into a schema's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        feature = json.loads(raw)["info"]["features"][label_column]
    except (ValueError, KeyError, TypeError):
        return None
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the class names of a ``classes.txt``: the first tab-separated field of each line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line.split("\t")[0].strip() for line in lines if line.strip())


def _class_names(path: Path, train: ParquetPart) -> tuple[str, ...]:
    """Return the class names from ``classes.txt``, else the files' metadata, else numbers."""
    listed = (path if path.is_dir() else path.parent) / "classes.txt"
    if listed.is_file():
        return read_classes(listed)
    return train.class_names or tuple(str(label) for label in range(int(train.labels.max()) + 1))
