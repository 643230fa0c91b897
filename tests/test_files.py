"""Files: atomic, canonical, and honest about damage."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.files import (
    canonical,
    digest,
    open_atomic,
    read_json,
    read_tensors,
    sha256,
    write_atomic,
    write_json,
    write_tensors,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_write_atomic_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace"])
def test_an_exception_while_writing_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")

    def fail(*args: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.bin"
    write_atomic(path, b"old")

    def write_half() -> None:
        with open_atomic(path) as file:
            file.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file.bin"]


def test_the_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda number: seen.append((tmp_path / "file.bin").exists()))
    write_atomic(tmp_path / "file.bin", b"new")
    assert seen == [False]


def test_json_round_trip_and_its_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None], "a": 0.1})
    assert (tmp_path / "a.json").read_text() == '{\n "a": 0.1,\n "b": [\n  1,\n  null\n ]\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": 0.1, "b": [1, None]}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"a\.json is not valid JSON .*delete it to have it made again"):
        read_json(tmp_path / "a.json")


def test_canonical_text() -> None:
    assert canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"\\u00e9"],"b":1}'
    with pytest.raises(ValueError, match="Out of range float"):
        canonical({"a": math.nan})


def test_digest_never_changes() -> None:
    """Frozen: the names of stored buffers and trials are digests."""
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()[:16] == "015abd7f5cc57a2d"
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(memoryview(b"abc")) == sha256(b"abc")


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


def test_tensors_round_trip(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.arange(6.0).view(2, 3).T,
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "rows": torch.tensor([3, 1], dtype=torch.int64),
        "scalar": torch.tensor(0.25),
        "leaf": torch.ones(2, requires_grad=True),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"loss": math.inf, "looks": [math.nan], "name": "é"})
    read, meta = read_tensors(tmp_path / "t.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach()), name
    assert meta["loss"] == math.inf
    assert math.isnan(meta["looks"][0])
    assert meta["name"] == "é"
    assert os.listdir(tmp_path) == ["t.safetensors"]


def test_tensors_without_metadata(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t.safetensors", {"a": torch.ones(1)})
    assert read_tensors(tmp_path / "t.safetensors")[1] == {}


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(CorruptFileError, match=r"t\.safetensors is not a readable safetensors file"):
        read_tensors(path)
    path.write_bytes(safetensors.torch.save({"a": torch.ones(1)}))
    with pytest.raises(CorruptFileError, match="has no ddnl header"):
        read_tensors(path)
    write_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="is not a readable safetensors file"):
        read_tensors(path)
