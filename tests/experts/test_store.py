"""The store: what is written comes back, damage is noticed and named, names follow from the content."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ArrayExperts, BufferId, ExpertRecipe, ExpertStore, Trajectory
from ddnl_ray.experts import store as store_module
from ddnl_ray.models import NetworkSpec

EPOCHS, PARAMS = 4, 7
RECIPE = ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=EPOCHS)
BUFFER = BufferId("data", "labels", RECIPE, 0)
KEY_SCRIPT = """
from ddnl_ray.experts import BufferId, ExpertRecipe
from ddnl_ray.models import NetworkSpec

def result():
    return BufferId("data", "labels", ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=4), 0).key
"""


def trajectory(seed: int = 0) -> Trajectory:
    generator = torch.Generator().manual_seed(seed)
    return Trajectory(torch.randn(EPOCHS + 1, PARAMS, generator=generator), [1.0, 0.5, 0.25, 0.125])


def buffer(**changes: Any) -> BufferId:
    return dataclasses.replace(BUFFER, **changes)


def flip(shard: Path, row: int, bytes_per_row: int = 4 * PARAMS) -> None:
    """Flip one bit of one snapshot in a shard."""
    content = bytearray(shard.read_bytes())
    (header,) = struct.unpack("<Q", content[:8])
    content[8 + header + row * bytes_per_row + 3] ^= 1
    shard.write_bytes(content)


@pytest.fixture
def filled(tmp_path: Path) -> ExpertStore:
    """A store with experts 0 and 2 of one buffer."""
    store = ExpertStore(tmp_path / "store")
    store.describe(BUFFER, {"dataset": "toy"})
    for index in (0, 2):
        store.save(BUFFER, index, trajectory(index))
    return store


def test_what_is_saved_is_loaded(filled: ExpertStore) -> None:
    for index in (0, 2):
        loaded = filled.load(BUFFER.key, index)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, trajectory(index).snapshots.numpy())
    assert filled.missing(BUFFER.key, 4) == [1, 3]
    assert filled.missing("absent", 2) == [0, 1]
    filled.verify(BUFFER.key, 4)


def test_a_window_is_loaded_in_the_order_asked_for(filled: ExpertStore) -> None:
    loaded = filled.load(BUFFER.key, 0, [4, 0, 1])
    np.testing.assert_array_equal(loaded, trajectory().snapshots[[4, 0, 1]].numpy())


@pytest.mark.parametrize(("dtype", "unit"), [("float32", 0.0), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_storage_types_keep_their_precision(tmp_path: Path, dtype: str, unit: float) -> None:
    """The relative error of rounding to nearest is at most the unit roundoff."""
    store, stored = ExpertStore(tmp_path), buffer(dtype=dtype)
    exact = trajectory().snapshots
    store.save(stored, 0, trajectory())
    loaded = store.load(stored.key, 0)
    experts = ArrayExperts([loaded], tuple(range(EPOCHS + 1)), EPOCHS, dtype)
    for epoch in range(EPOCHS + 1):
        error = (experts.snapshot(0, epoch) - exact[epoch]).abs()
        assert bool((error <= unit * exact[epoch].abs()).all())
        assert unit == 0 or error.max() > 0


def test_a_flipped_bit_is_named_with_its_shard_and_the_next_step(filled: ExpertStore) -> None:
    shard = filled.shard(BUFFER.key, 2)
    flip(shard, 3)
    message = f"expert shard {re.escape(str(shard))} is corrupt: snapshot 3 does not match its checksum.*--rebuild"
    with pytest.raises(CorruptFileError, match=message):
        filled.load(BUFFER.key, 2)
    with pytest.raises(CorruptFileError, match=message):
        filled.verify(BUFFER.key, 4)
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0), trajectory(0).snapshots.numpy())


def test_a_flipped_bit_outside_the_window_is_not_read(filled: ExpertStore) -> None:
    """Only the snapshots that a trial reads are verified: that is what makes opening a large buffer cheap."""
    flip(filled.shard(BUFFER.key, 0), 3)
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0, [0, 1, 2, 4]), trajectory().snapshots[[0, 1, 2, 4]])
    filled.verify(BUFFER.key, 4, epochs=[0, 1])
    with pytest.raises(CorruptFileError, match="snapshot 3"):
        filled.load(BUFFER.key, 0, [3])


def test_discarding_what_is_corrupt_leaves_the_rest(filled: ExpertStore) -> None:
    flip(filled.shard(BUFFER.key, 2), 0)
    assert filled.discard_corrupt(BUFFER.key, 4) == [2]
    assert filled.missing(BUFFER.key, 3) == [1, 2]
    assert not filled.shard(BUFFER.key, 2).exists()
    filled.save(BUFFER, 2, trajectory(2))
    assert filled.discard_corrupt(BUFFER.key, 4) == []


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_a_truncated_shard_is_corrupt(filled: ExpertStore, keep: int) -> None:
    shard = filled.shard(BUFFER.key, 0)
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"expert-00000\.safetensors is corrupt"):
        filled.load(BUFFER.key, 0)


def test_another_format_version_is_refused(filled: ExpertStore) -> None:
    manifest = filled.shard(BUFFER.key, 0).with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 99}))
    with pytest.raises(CorruptFileError, match="it has format version 99; this ddnl reads 1"):
        filled.load(BUFFER.key, 0)


def test_a_manifest_of_another_shape_is_refused(filled: ExpertStore) -> None:
    manifest = filled.shard(BUFFER.key, 0).with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"shape": [EPOCHS + 1, PARAMS + 1]}))
    with pytest.raises(CorruptFileError, match="its shape is not the one in its manifest"):
        filled.load(BUFFER.key, 0)


def test_a_shard_without_a_manifest_is_missing(filled: ExpertStore) -> None:
    """The manifest is written last, so its absence means that saving was interrupted."""
    filled.shard(BUFFER.key, 0).with_suffix(".json").unlink()
    assert filled.missing(BUFFER.key, 3) == [0, 1]
    with pytest.raises(CorruptFileError, match="it has no manifest"):
        filled.load(BUFFER.key, 0)
    filled.verify(BUFFER.key, 3)


def test_a_manifest_without_a_shard_is_missing(filled: ExpertStore) -> None:
    filled.shard(BUFFER.key, 0).unlink()
    assert filled.missing(BUFFER.key, 3) == [0, 1]
    with pytest.raises(CorruptFileError, match="is corrupt"):
        filled.load(BUFFER.key, 0)


def test_an_exception_while_saving_leaves_the_shard_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExpertStore(tmp_path)

    def fail(path: Path, value: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            store.save(BUFFER, 0, trajectory())
    assert store.missing(BUFFER.key, 1) == [0]
    store.save(BUFFER, 0, trajectory())
    assert store.missing(BUFFER.key, 1) == []
    assert sorted(os.listdir(tmp_path / BUFFER.key)) == ["expert-00000.json", "expert-00000.safetensors"]


KEY_CHANGES: dict[str, Any] = {"data": "x", "labels": "x", "seed": 1, "dtype": "bfloat16"}
RECIPE_CHANGES: dict[str, Any] = {
    "network": NetworkSpec("convnet2", 5),
    "epochs": 5,
    "batch_size": 255,
    "lr": 0.02,
    "momentum": 0.1,
    "weight_decay": 0.1,
    "augment": None,
    "optimizer": "gsam",
    "rho": 0.02,
    "alpha": 0.2,
}


def test_the_key_depends_on_every_ingredient() -> None:
    assert {field.name for field in dataclasses.fields(BufferId)} == {*KEY_CHANGES, "recipe"}
    assert {field.name for field in dataclasses.fields(ExpertRecipe)} == set(RECIPE_CHANGES)
    variants = [buffer(**{name: value}) for name, value in KEY_CHANGES.items()]
    for name, value in RECIPE_CHANGES.items():
        variants.append(buffer(recipe=dataclasses.replace(RECIPE, **{name: value})))
    variants.append(buffer(recipe=dataclasses.replace(RECIPE, network=NetworkSpec("convnet1", 4))))
    keys = {variant.key for variant in variants} | {BUFFER.key}
    assert len(keys) == len(variants) + 1
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)


def test_the_key_depends_on_the_format_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = BUFFER.key
    monkeypatch.setattr(store_module, "FORMAT_VERSION", 2)
    assert BUFFER.key != before


def test_the_key_is_the_same_in_another_process(elsewhere: Callable[[str, int], Any]) -> None:
    assert elsewhere(KEY_SCRIPT, 12345) == BUFFER.key


def test_buffers_are_listed(filled: ExpertStore) -> None:
    (listed,) = filled.buffers()
    folder = filled.root / BUFFER.key
    assert (listed.key, listed.experts) == (BUFFER.key, 2)
    assert listed.num_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert listed.about["dataset"] == "toy"
    assert listed.about["recipe"]["network"] == {"name": "convnet2", "width": 4}
    (folder / ".expert-00001.safetensors.12345678.tmp").write_bytes(b"half a shard that another process writes")
    assert next(iter(filled.buffers())) == listed
    assert list(ExpertStore(filled.root / "absent").buffers()) == []


def test_collect_keeps_what_is_recent_and_what_is_named(filled: ExpertStore) -> None:
    old, recent, named = BUFFER, buffer(seed=1), buffer(seed=2)
    days_ago = time.time() - 10 * 86400
    for each in (old, recent, named):
        filled.describe(each, {})
        filled.touch(each.key)
        if each is not recent:
            os.utime(filled.root / each.key / "used", (days_ago, days_ago))
    assert filled.collect(11) == []
    assert [removed.key for removed in filled.collect(9, keep=[named.key])] == [old.key]
    assert sorted(os.listdir(filled.root)) == sorted([recent.key, named.key])


def test_collect_takes_a_buffer_that_was_never_used_by_its_age(filled: ExpertStore) -> None:
    assert filled.collect(1) == []
    days_ago = time.time() - 2 * 86400
    os.utime(filled.root / BUFFER.key / "buffer.json", (days_ago, days_ago))
    assert [removed.key for removed in filled.collect(1)] == [BUFFER.key]


def test_touch_makes_a_buffer_recent(filled: ExpertStore) -> None:
    days_ago = time.time() - 2 * 86400
    os.utime(filled.root / BUFFER.key / "buffer.json", (days_ago, days_ago))
    filled.touch(BUFFER.key)
    assert filled.collect(1) == []


def test_no_temporary_files_are_left(filled: ExpertStore) -> None:
    names = sorted(os.listdir(filled.root / BUFFER.key))
    assert names == [
        "buffer.json",
        "expert-00000.json",
        "expert-00000.safetensors",
        "expert-00002.json",
        "expert-00002.safetensors",
    ]
