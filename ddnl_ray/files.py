"""Files that survive faults: atomic writes, checksums, canonical hashes. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ddnl_ray.errors import CorruptFileError


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing so that ``path`` holds its old content until the block ends, and then all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either its old content or all of the new one."""
    with open_atomic(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON."""
    write_atomic(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        CorruptFileError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path} is not valid JSON ({error}); delete it to have it made again") from error


def canonical(value: Any) -> str:
    """Return the one JSON text of ``value`` (sorted keys, no spaces) that hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON-able value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Write tensors atomically as safetensors; ``metadata`` (JSON, NaN and infinity allowed) is kept in the header."""
    from safetensors.torch import save

    header = {"ddnl": json.dumps(dict(metadata or {}), sort_keys=True)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(plain, metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a safetensors file of ours: its tensors (on the CPU) and its metadata.

    Raises:
        CorruptFileError: The file is not safetensors, or was not written by :func:`write_tensors`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if "ddnl" not in header:
                raise CorruptFileError(f"{path} has no ddnl header: it was not written by ddnl-ray")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(header["ddnl"])
    except SafetensorError as error:
        raise CorruptFileError(f"{path} is not a readable safetensors file ({error})") from error
