"""Human label noise: the published label sets of CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ddnl_ray.errors import DataError, RequestError

COLUMNS = {
    "cifar10": {
        "aggre": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
        "worse": "worse_label",
    },
    "cifar100": {"fine": "noisy_label"},
}
"""Data set to its label sets, and the name that each has in the published files."""

FILE_NAMES = {
    "cifar10": ("CIFAR-10_human.pt", "cifar10n_labels.parquet"),
    "cifar100": ("CIFAR-100_human.pt", "cifar100n_labels.parquet"),
}

_CLEAN = "clean_label"


def read_natural(
    label_set: str,
    clean_N: NDArray[np.int64],
    *,
    dataset: str,
    num_classes: int,
    root: Path | None = None,
    file: Path | None = None,
) -> NDArray[np.int64]:
    """Return one human label set of CIFAR-N, checked against the data set.

    Args:
        label_set: ``aggre``, ``random1``, ``random2``, ``random3``, ``worse`` or ``fine``.
        clean_N: The data set's own training labels, in file order.
        dataset: ``cifar10`` or ``cifar100``.
        num_classes: C.
        root: The data folder, in which the label file is looked for.
        file: The label file, where it is elsewhere.

    Returns:
        The given labels, shape ``(N,)``.

    Raises:
        RequestError: The data set has no human labels, or not this set.
        DataError: The file is missing, unreadable, lacks the set, or belongs to other images: its
            ``clean_label`` differs from the data set's labels.
    """
    if dataset not in COLUMNS:
        raise RequestError(
            f"human labels exist for {' and '.join(COLUMNS)}, but the data set is {dataset!r}; "
            "labels of your own are given with the data set and kind: none"
        )
    if label_set not in COLUMNS[dataset]:
        known = ", ".join(COLUMNS[dataset])
        raise RequestError(f"{dataset} has no human label set {label_set!r}; its sets are {known}")
    path = _find(dataset, root) if file is None else file
    columns = read_label_file(path)
    column = COLUMNS[dataset][label_set]
    for name in (_CLEAN, column):
        if name not in columns:
            raise DataError(f"{path} has no {name}; it has {', '.join(sorted(columns)) or 'no label columns'}")
    given_N, published_N = columns[column], columns[_CLEAN]
    if published_N.shape != clean_N.shape or given_N.shape != clean_N.shape:
        raise DataError(
            f"{path} has {len(published_N)} labels, but the training set has {len(clean_N)} images: "
            "it belongs to another data set or to a part of it"
        )
    wrong = np.flatnonzero(published_N != clean_N)
    if wrong.size:
        raise DataError(
            f"clean_label of {path} differs from the data set's labels in {wrong.size} of {len(clean_N)} "
            f"rows, first in row {wrong[0]}: the file is in another order or belongs to another data set"
        )
    if given_N.size and not (given_N.min() >= 0 and given_N.max() < num_classes):
        raise DataError(f"{column} of {path} holds labels outside 0 to {num_classes - 1}")
    return given_N


def read_label_file(path: Path) -> dict[str, NDArray[np.int64]]:
    """Read all integer columns of a CIFAR-N label file, by name.

    Args:
        path: The published ``.pt`` (a pickled dictionary of NumPy arrays or lists, read without running any
            code that it may hold), or a ``.parquet`` with the same names as columns.

    Raises:
        DataError: The file is missing, of another type, or unreadable.
    """
    if not path.is_file():
        raise DataError(f"the label file {path} does not exist")
    if path.suffix == ".pt":
        content = _load_pt(path)
    elif path.suffix == ".parquet":
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is not a readable Parquet file ({error})") from error
        content = {name: table.column(name).to_numpy() for name in table.column_names}
    else:
        raise DataError(f"human labels are read from .pt or .parquet, but got {path}")
    arrays = {name: np.asarray(values) for name, values in content.items()}
    return {
        name: array.astype(np.int64)
        for name, array in arrays.items()
        if array.ndim == 1 and np.issubdtype(array.dtype, np.integer)
    }


def _find(dataset: str, root: Path | None) -> Path:
    """Return the label file of ``dataset`` below ``root``."""
    if root is None:
        raise DataError(
            f"human labels need their file, but no data folder is given; set file to {FILE_NAMES[dataset][0]}"
        )
    candidates = [folder / name for folder in (root, root / dataset) for name in FILE_NAMES[dataset]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise DataError(f"the human labels of {dataset} are missing; looked for {looked}")


def _numpy_names() -> list[Any]:
    """Return the names that a pickled integer array may use, as NumPy 1 and NumPy 2 spell them."""
    reconstruct = np.zeros(0).__reduce__()[0]
    scalar = np.int64(0).__reduce__()[0]
    integers = [np.dtype(code) for code in "bhilqBHILQ"]
    return [
        (function, f"{module}.{name}")
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for function, name in ((reconstruct, "_reconstruct"), (scalar, "scalar"))
    ] + [np.ndarray, np.dtype, *{type(dtype) for dtype in integers}]


def _load_pt(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of integer arrays; any other pickled object is refused, not run."""
    try:
        with torch.serialization.safe_globals(_numpy_names()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is refused: it holds something else than integer arrays and lists ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a readable label file ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a dictionary of labels, but holds a {type(content).__name__}")
    return content


def _first_line(error: Exception) -> str:
    """Return the first line of a message: torch appends a page of advice that would weaken the protection."""
    return str(error).partition("\n")[0]
