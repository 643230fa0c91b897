"""The store of experts on remote storage: what is brought, when, and what becomes of damage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import BufferId, ExpertRecipe, ExpertStore, Trajectory, export_buffers, import_archive
from ddnl_ray.experts.train import TrainingState
from ddnl_ray.models import NetworkSpec
from ddnl_ray.storage.remote import RemoteFolder
from ddnl_ray.testing.objects import Killed, Objects

Remote = Callable[..., RemoteFolder]

BUFFER = BufferId("data", "labels", ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=4), 0)
KEY = BUFFER.key


def trajectory(index: int, first: int, last: int) -> Trajectory:
    generator = torch.Generator().manual_seed(index)
    snapshots = torch.randn(last + 1, 7, generator=generator)[first:]
    return Trajectory(snapshots, [], first, torch.zeros(7) if BUFFER.recipe.momentum else None)


@pytest.fixture
def store(remote: Remote) -> ExpertStore:
    """A machine that has written two experts, the first in two segments."""
    store = ExpertStore(remote("writer"))
    store.describe(BUFFER, {"dataset": "toy"})
    for index, first, last in ((0, 0, 2), (0, 3, 4), (1, 0, 4)):
        store.save(BUFFER, index, trajectory(index, first, last))
    store.touch(KEY)
    return store


def copies(store: ExpertStore) -> set[str]:
    return {path.name for path in store.root.rglob("*.safetensors")}


def test_another_machine_reads_what_one_has_written(store: ExpertStore, remote: Remote) -> None:
    other = ExpertStore(remote("reader"))
    assert other.reach(KEY, 3) == [4, 4, -1]
    assert copies(other) == set()  # asking how far experts are brings nothing
    for index in (0, 1):
        np.testing.assert_array_equal(other.load(KEY, index), store.load(KEY, index))
    end = other.end(KEY, 0)
    assert isinstance(end, TrainingState)
    assert end.epoch == 4
    (listed,) = other.buffers()
    assert (listed.key, listed.experts, listed.last_epoch, listed.about["dataset"]) == (KEY, 2, 4, "toy")
    assert other.find(KEY[:4]) == KEY


def test_only_the_segments_of_the_window_are_brought_and_once(
    store: ExpertStore, remote: Remote, objects: Objects
) -> None:
    other = ExpertStore(remote("reader"))
    first = other.load(KEY, 0, [0, 2])
    assert copies(other) == {"expert-00000.00000-00002.safetensors"}
    objects.steps.clear()
    np.testing.assert_array_equal(other.load(KEY, 0, [0, 2]), first)
    assert [step for step, _ in objects.steps] == ["list"]
    other.load(KEY, 0, [4])
    assert copies(other) == {"expert-00000.00000-00002.safetensors", "expert-00000.00003-00004.safetensors"}


def test_a_segment_is_seen_when_all_of_it_is_there(remote: Remote, objects: Objects) -> None:
    """The writer dies at each step in turn; a reader sees the segment whole or not at all."""
    seen = []
    for number in range(40):
        folder = f"writer {number}"
        left = iter(range(number, -1, -1))

        def before(_step: str, _path: str, left: Any = left) -> None:
            if next(left, 0) == 0:
                raise Killed

        objects.before = before
        try:
            ExpertStore(remote(folder)).save(BUFFER, 0, trajectory(0, 0, 2))
            died = False
        except Killed:
            died = True
        objects.before = lambda _step, _path: None
        reader = ExpertStore(remote(f"reader {number}"))
        seen.append(reader.reach(KEY, 1))
        if seen[-1] == [2]:
            assert reader.load(KEY, 0).shape == (3, 7)
        if not died:
            break
    assert seen[-1] == [2]
    assert seen[0] == [-1]
    assert len(seen) > 6
    assert seen == sorted(seen)


def test_damage_on_this_machine_is_made_good_from_the_store(store: ExpertStore, remote: Remote) -> None:
    other = ExpertStore(remote("reader"))
    whole = other.load(KEY, 1)
    path = other.root / KEY / "expert-00001.00000-00004.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 0xFF]) + content[-8:])
    np.testing.assert_array_equal(other.load(KEY, 1), whole)
    assert path.read_bytes() == content


def test_damage_in_the_store_is_refused_and_discarded_on_request(
    store: ExpertStore, remote: Remote, objects: Objects
) -> None:
    path = Path(objects.root) / "bucket" / "run" / KEY / "expert-00001.00000-00004.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 0xFF]) + content[-8:])
    other = ExpertStore(remote("reader"))
    with pytest.raises(CorruptFileError, match=r"expert-00001\.00000-00004\.safetensors does not match its checksum"):
        other.load(KEY, 1)
    path.write_bytes(content[:-1])
    with pytest.raises(CorruptFileError, match=f"it has {len(content) - 1} bytes instead of {len(content)}"):
        other.verify(KEY, 2, range(5))
    assert other.discard_corrupt(KEY, 2) == [1]
    assert other.reach(KEY, 2) == [4, -1]
    other.verify(KEY, 2, range(5))
    assert not path.exists()


def test_archives_go_from_and_to_remote_stores(store: ExpertStore, remote: Remote, tmp_path: Path) -> None:
    local, archive = ExpertStore(tmp_path / "local"), tmp_path / "experts.tar"
    export_buffers(ExpertStore(remote("exporter")), [KEY], archive)
    assert [moved.segments for moved in import_archive(local, archive)] == [3]
    np.testing.assert_array_equal(local.load(KEY, 0), store.load(KEY, 0))
    store.collect(0)
    assert list(store.buffers()) == []
    assert [moved.segments for moved in import_archive(ExpertStore(remote("importer")), archive)] == [3]
    np.testing.assert_array_equal(ExpertStore(remote("reader")).load(KEY, 0), local.load(KEY, 0))
    assert [moved.skipped for moved in import_archive(ExpertStore(remote("again")), archive)] == [3]


def test_what_nobody_uses_is_collected_there_and_here(store: ExpertStore, remote: Remote, objects: Objects) -> None:
    other = ExpertStore(remote("reader"))
    other.load(KEY, 0)
    assert other.collect(1) == []
    assert other.collect_copies(1) == 0
    old = time.time() - 9 * 86400
    for path in other.root.rglob("*.*"):
        os.utime(path, (old, old))
    other.load(KEY, 0, [0])  # used again
    assert other.collect_copies(1) > 0
    assert copies(other) == {"expert-00000.00000-00002.safetensors"}
    os.utime(Path(objects.root) / "bucket" / "run" / KEY / "used", (old, old))
    assert [buffer.key for buffer in other.collect(1)] == [KEY]
    assert other.folder.entries() == []
    assert copies(other) == set()
