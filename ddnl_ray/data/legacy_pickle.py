"""The CIFAR archives' pickles, read without running anything that they name.

A pickle is a program that may import and call any function. The published CIFAR batches need three names:
NumPy's array, its constructor and its type descriptor. Here these are stand-ins that keep plain values; any
other name is refused before it is imported.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddnl_ray.errors import DataError


class _TypeCode:
    """Stands in for ``numpy.dtype``: keeps the type code."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and field names: only single bytes are accepted later."""


class _Array:
    """Stands in for ``numpy.ndarray``: keeps the shape and the raw bytes."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep (version, shape, type, whether columns come first, raw bytes)."""
        self.state = state

    def bytes_array(self) -> npt.NDArray[np.uint8]:
        """Return the values.

        Raises:
            ValueError: They are not unsigned bytes in row order.
        """
        _, shape, kind, column_order, raw = self.state
        if not isinstance(kind, _TypeCode) or kind.code != "u1" or column_order:
            raise ValueError("the array must hold unsigned bytes in row order")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _new_array(kind: Any, shape: Any, code: Any) -> _Array:
    """Stand in for the constructor that array pickles call."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for ``codecs.encode``, with which Python 3 writes bytes in old pickle protocols."""
    if encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "dtype"): _TypeCode,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Refuses every name that :data:`_ALLOWED` does not list."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image data never need")
        return _ALLOWED[module, name]


def read_batch(path: Path, label_key: str) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Read one batch file.

    Args:
        path: For example ``data_batch_1``.
        label_key: ``labels`` or ``fine_labels``.

    Returns:
        The pixels, uint8 [N, 3072], and the N labels.

    Raises:
        DataError: The file is not such a batch, or names something that would run.
    """
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, labels = entries["data"].bytes_array(), [int(label) for label in entries[label_key]]
        if pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32 or len(pixels) != len(labels):
            raise ValueError(f"{list(pixels.shape)} pixels and {len(labels)} labels do not fit")
    # A damaged pickle can raise almost anything.
    except Exception as error:
        raise DataError(f"{path} is not a CIFAR batch ({type(error).__name__}: {error}); fetch it again") from error
    return pixels, labels
