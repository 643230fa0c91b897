"""Small image files and tables that the tests write themselves."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Encode [H, W] or [H, W, 3] uint8 values losslessly."""
    return encode


@pytest.fixture
def pixels() -> Callable[..., np.ndarray]:
    """Random uint8 images, [N, H, W, 3] or, grey, [N, H, W]."""

    def make(num: int, size: int, seed: int = 0, grey: bool = False) -> np.ndarray:
        shape = (num, size, size) if grey else (num, size, size, 3)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def write_parquet() -> Callable[..., None]:
    """Write encoded images and labels as the hub does."""

    def write(
        path: Path,
        images: Sequence[np.ndarray],
        labels: Sequence[Any],
        image_column: str = "image",
        label_column: str = "label",
        metadata: dict[str, str] | None = None,
    ) -> None:
        cells = [{"bytes": encode(image), "path": f"{row}.png"} for row, image in enumerate(images)]
        table = pa.table({image_column: cells, label_column: list(labels)})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), path)

    return write
