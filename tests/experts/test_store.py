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
from torch import Tensor

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.experts import ArrayExperts, BufferId, ExpertRecipe, ExpertStore, Trajectory, segments, train_expert
from ddnl_ray.experts import identity as identity_module
from ddnl_ray.experts.policy import Policy
from ddnl_ray.experts.segments import Segment, connected, signed
from ddnl_ray.models import NetworkSpec
from ddnl_ray.seeds import SeedTree

EPOCHS, PARAMS = 4, 7
RECIPE = ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=EPOCHS)
BUFFER = BufferId("data", "labels", RECIPE, 0)
KEY_SCRIPT = """
from ddnl_ray.experts import BufferId, ExpertRecipe
from ddnl_ray.models import NetworkSpec

def result():
    return BufferId("data", "labels", ExpertRecipe(network=NetworkSpec("convnet2", 4), epochs=4), 0).key
"""


def trajectory(seed: int = 0, first: int = 0, last: int = EPOCHS, momentum: bool = False) -> Trajectory:
    """A part of an endless random walk."""
    generator = torch.Generator().manual_seed(seed)
    snapshots = torch.randn(100, PARAMS, generator=generator)
    velocity = -snapshots[last] if momentum else None
    return Trajectory(snapshots[first : last + 1].clone(), [0.5] * (last - max(first - 1, 0)), first, velocity)


def buffer(**changes: Any) -> BufferId:
    return dataclasses.replace(BUFFER, **changes)


def segment(store: ExpertStore, index: int, first: int = 0, last: int = EPOCHS, key: str = BUFFER.key) -> Segment:
    return Segment(store.root / key, index, first, last)


def flip(path: Path, row: int, name: str = "snapshots") -> None:
    """Flip one bit of one row of a tensor in a file."""
    content = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])[name]
    rows = header["shape"][0] if len(header["shape"]) == 2 else 1
    start, end = header["data_offsets"]
    content[8 + size + start + row * (end - start) // rows + 3] ^= 1
    path.write_bytes(content)


def rewrite(manifest: Path, sign: bool = True, **changes: Any) -> None:
    """Change values of a manifest, and by default its own checksum with them."""
    values = json.loads(manifest.read_text()) | changes
    manifest.write_text(json.dumps(signed(values) if sign else values))


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
    assert filled.reach(BUFFER.key, 4) == [4, -1, 4, -1]
    assert filled.missing(BUFFER.key, 4, EPOCHS) == [1, 3]
    assert filled.missing(BUFFER.key, 4, 0) == [1, 3]
    assert filled.missing(BUFFER.key, 4, EPOCHS + 1) == [0, 1, 2, 3]
    assert filled.missing("absent", 2, 0) == [0, 1]
    filled.verify(BUFFER.key, 4, range(EPOCHS + 1))


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


# --- growing -------------------------------------------------------------------------------------------------------


def test_a_trajectory_grows_by_segments(filled: ExpertStore) -> None:
    first = segment(filled, 0).data.read_bytes()
    filled.save(BUFFER, 0, trajectory(0, 5, 7))
    filled.save(BUFFER, 0, trajectory(0, 8, 8))
    assert filled.segments(BUFFER.key)[0] == [segment(filled, 0, *ends) for ends in ((0, 4), (5, 7), (8, 8))]
    assert segment(filled, 0).data.read_bytes() == first
    assert filled.reach(BUFFER.key, 3) == [8, -1, 4]
    assert filled.missing(BUFFER.key, 3, 8) == [1, 2]
    truth = trajectory(0, 0, 8).snapshots.numpy()
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0), truth)
    wanted = [8, 0, 5, 4, 7, 5]
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0, wanted), truth[wanted])
    with pytest.raises(
        CorruptFileError, match=r"^expert 2 of buffer .* is not stored up to epoch 5 \(it ends at 4\); train it with"
    ):
        filled.load(BUFFER.key, 2, [0, 5])


def test_files_are_named_by_expert_and_epochs(filled: ExpertStore) -> None:
    filled.save(BUFFER, 2, trajectory(2, 5, 12))
    assert sorted(path.name for path in (filled.root / BUFFER.key).iterdir()) == [
        "buffer.json",
        *("expert-00000.00000-00004.json", "expert-00000.00000-00004.safetensors"),
        *("expert-00002.00000-00004.json", "expert-00002.00000-00004.safetensors"),
        *("expert-00002.00005-00012.json", "expert-00002.00005-00012.safetensors"),
    ]


def test_a_gap_is_not_read_over(filled: ExpertStore) -> None:
    filled.save(BUFFER, 0, trajectory(0, 6, 9))
    assert filled.reach(BUFFER.key, 1) == [4]
    assert filled.missing(BUFFER.key, 1, 9) == [0]
    end = filled.end(BUFFER.key, 0)
    assert end is not None
    assert end.epoch == 4
    filled.save(BUFFER, 0, trajectory(0, 5, 5))
    assert filled.reach(BUFFER.key, 1) == [9]
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0), trajectory(0, 0, 9).snapshots.numpy())


def test_a_later_part_alone_is_nothing(tmp_path: Path) -> None:
    store = ExpertStore(tmp_path)
    store.save(BUFFER, 0, trajectory(0, 1, 3))
    assert store.segments(BUFFER.key) == {}
    assert store.reach(BUFFER.key, 1) == [-1]
    assert store.end(BUFFER.key, 0) is None


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_segments_may_overlap(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Two processes that trained the same expert to different epochs leave segments that both begin at 0."""
    store, ends = ExpertStore(tmp_path), [(0, 2), (0, 4), (3, 6), (5, 6)]
    for place in order:
        store.save(BUFFER, 0, trajectory(0, *ends[place]))
    assert store.reach(BUFFER.key, 1) == [6]
    np.testing.assert_array_equal(store.load(BUFFER.key, 0), trajectory(0, 0, 6).snapshots.numpy())
    wanted = [6, 3, 4, 5]
    np.testing.assert_array_equal(store.load(BUFFER.key, 0, wanted), trajectory(0, 0, 6).snapshots[wanted].numpy())


@pytest.mark.parametrize(
    ("there", "chain"),
    [
        ([], []),
        ([(1, 5)], []),
        ([(0, 0)], [(0, 0)]),
        ([(0, 3), (0, 8), (4, 6)], [(0, 8)]),
        ([(0, 3), (2, 5), (4, 9), (6, 7)], [(0, 3), (4, 9)]),
        ([(0, 3), (2, 5), (4, 4), (6, 7)], [(0, 3), (2, 5), (6, 7)]),
        ([(0, 3), (5, 7)], [(0, 3)]),
        ([(0, 3), (5, 7), (2, 4)], [(0, 3), (2, 4), (5, 7)]),
    ],
)
def test_the_segments_that_connect(there: list[tuple[int, int]], chain: list[tuple[int, int]]) -> None:
    made = [Segment(Path("key"), 0, *ends) for ends in there]
    for each in (made, made[::-1]):
        assert [(one.first, one.last) for one in connected(each)] == chain


def test_a_segment_is_never_rewritten(filled: ExpertStore) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (filled.root / BUFFER.key).iterdir()}
    filled.save(BUFFER, 0, trajectory(1))
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_an_extended_expert_is_the_one_that_was_trained_through(
    tmp_path: Path, dtype: str, momentum: float, optimizer: str
) -> None:
    """Bit for bit, however coarsely the snapshots are stored."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(22, 1, 8, 8, generator=generator), torch.randint(0, 3, (22,), generator=generator)
    made = dataclasses.replace(
        RECIPE, batch_size=8, lr=0.1, augment="flip_crop", momentum=momentum, optimizer=optimizer, epochs=5
    )
    stored, seed = buffer(recipe=made, dtype=dtype), SeedTree.root(0)
    whole, parts = ExpertStore(tmp_path / "whole"), ExpertStore(tmp_path / "parts")
    whole.save(stored, 0, train_expert(x, y, 3, made, seed))
    for last in (1, 3, 5):
        short = dataclasses.replace(made, epochs=last)
        parts.save(stored, 0, train_expert(x, y, 3, short, seed, parts.end(stored.key, 0)))
    assert len(parts.segments(stored.key)[0]) == 3
    np.testing.assert_array_equal(parts.load(stored.key, 0), whole.load(stored.key, 0))
    ends = [store.end(stored.key, 0) for store in (whole, parts)]
    for end in ends:
        assert end is not None
        assert (end.epoch, end.weights.dtype) == (5, torch.float32)
        assert ends[0] is not None
        assert torch.equal(end.weights, ends[0].weights)
        assert (end.velocity is None) == (momentum == 0)
        if end.velocity is not None:
            assert ends[0].velocity is not None
            assert torch.equal(end.velocity, ends[0].velocity)


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_named_with_its_segment_and_the_next_step(filled: ExpertStore) -> None:
    path = segment(filled, 2).data
    flip(path, 3)
    message = f"^expert segment {re.escape(str(path))} is corrupt: snapshot 3 does not match its checksum.*--rebuild"
    with pytest.raises(CorruptFileError, match=message):
        filled.load(BUFFER.key, 2)
    with pytest.raises(CorruptFileError, match=message):
        filled.verify(BUFFER.key, 4, range(EPOCHS + 1))
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0), trajectory(0).snapshots.numpy())


def test_snapshots_of_later_segments_are_named_by_their_epoch(filled: ExpertStore) -> None:
    filled.save(BUFFER, 0, trajectory(0, 5, 7))
    flip(segment(filled, 0, 5, 7).data, 1)
    filled.load(BUFFER.key, 0, [0, 4, 5, 7])
    with pytest.raises(CorruptFileError, match=r"expert-00000\.00005-00007\.safetensors is corrupt: snapshot 6 does"):
        filled.load(BUFFER.key, 0)


def test_a_flipped_bit_outside_the_window_is_not_read(filled: ExpertStore) -> None:
    """Only the snapshots that a trial reads are verified: that is what makes opening a large buffer cheap."""
    flip(segment(filled, 0).data, 3)
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0, [0, 1, 2, 4]), trajectory().snapshots[[0, 1, 2, 4]])
    filled.verify(BUFFER.key, 4, [0, 1])
    with pytest.raises(CorruptFileError, match="snapshot 3"):
        filled.load(BUFFER.key, 0, [3])


@pytest.mark.parametrize(
    ("dtype", "tensor", "said"),
    [
        ("float32", "velocity", "its velocity does not match its checksum"),
        ("bfloat16", "velocity", "its velocity does not match its checksum"),
        ("bfloat16", "tail", "its tail does not match its checksum"),
        ("float32", "snapshots", "snapshot 4 does not match its checksum"),
    ],
)
def test_the_end_is_verified_where_training_would_go_on(tmp_path: Path, dtype: str, tensor: str, said: str) -> None:
    store, stored = ExpertStore(tmp_path), buffer(recipe=dataclasses.replace(RECIPE, momentum=0.9), dtype=dtype)
    store.save(stored, 0, trajectory(momentum=True))
    end = store.end(stored.key, 0)
    assert end is not None
    assert end.velocity is not None
    assert torch.equal(end.weights, trajectory().snapshots[-1])
    assert torch.equal(end.velocity, -trajectory().snapshots[-1])
    flip(segment(store, 0, key=stored.key).data, EPOCHS if tensor == "snapshots" else 0, tensor)
    store.verify(stored.key, 1, range(EPOCHS))
    for look in (lambda: store.end(stored.key, 0), lambda: store.verify(stored.key, 1, range(EPOCHS + 2))):
        with pytest.raises(CorruptFileError, match=f"00004.safetensors is corrupt: {said}"):
            look()
    assert store.discard_corrupt(stored.key, 1) == [0]


def test_discarding_what_is_corrupt_leaves_the_rest(filled: ExpertStore) -> None:
    flip(segment(filled, 2).data, 0)
    assert filled.discard_corrupt(BUFFER.key, 2) == []  # expert 2 is not asked for
    assert filled.discard_corrupt(BUFFER.key, 4) == [2]
    assert filled.missing(BUFFER.key, 3, EPOCHS) == [1, 2]
    assert not segment(filled, 2).data.exists()
    filled.save(BUFFER, 2, trajectory(2))
    assert filled.discard_corrupt(BUFFER.key, 4) == []


def test_only_the_corrupt_segment_is_discarded(filled: ExpertStore) -> None:
    for first, last in ((5, 6), (7, 9)):
        filled.save(BUFFER, 0, trajectory(0, first, last))
    flip(segment(filled, 0, 5, 6).data, 0)
    assert filled.discard_corrupt(BUFFER.key, 3) == [0]
    assert filled.reach(BUFFER.key, 3) == [4, -1, 4]
    filled.save(BUFFER, 0, trajectory(0, 5, 6))
    assert filled.reach(BUFFER.key, 1) == [9]


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_a_truncated_segment_is_corrupt(filled: ExpertStore, keep: int) -> None:
    path = segment(filled, 0).data
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"expert-00000\.00000-00004\.safetensors is corrupt"):
        filled.load(BUFFER.key, 0)
    assert filled.discard_corrupt(BUFFER.key, 1) == [0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "it has format version 99; this ddnl reads 2"),
        ({"format_version": None}, "it has format version None; this ddnl reads 2"),
        ({"shape": [EPOCHS + 1, PARAMS + 1]}, "its shape is not the one in its manifest"),
        ({"key": "0123456789abcdef"}, f"its manifest is that of key 0123456789abcdef, not {BUFFER.key}"),
        ({"expert": 1}, "its manifest is that of expert 1, not 0"),
        ({"first": 1}, "its manifest is that of first 1, not 0"),
        ({"last": 5}, "its manifest is that of last 5, not 4"),
        ({"snapshots": ["x"]}, "its manifest does not hold 5 checksums, for epochs 0 to 4"),
        ({"snapshots": 5}, "its manifest does not hold 5 checksums, for epochs 0 to 4"),
        ({"shape": [1, PARAMS]}, "its manifest does not hold 5 checksums, for epochs 0 to 4"),
        ({"end": 1}, "its manifest holds no checksums of its end"),
        ({"extra": 1}, "its manifest does not match its own checksum"),
    ],
)
def test_a_manifest_of_something_else_is_refused(filled: ExpertStore, changes: dict[str, Any], message: str) -> None:
    rewrite(segment(filled, 0).manifest, **changes)
    with pytest.raises(CorruptFileError, match=f"00004.safetensors is corrupt: {message}"):
        filled.load(BUFFER.key, 0)


@pytest.mark.parametrize(
    "changes",
    [{"losses": [1.0]}, {"losses": [float("nan")]}, {"bytes": 3}, {"manifest_sha256": "0"}, {"dtype": "float16"}],
)
def test_a_manifest_that_was_changed_is_refused(filled: ExpertStore, changes: dict[str, Any]) -> None:
    rewrite(segment(filled, 0).manifest, sign=False, **changes)
    with pytest.raises(CorruptFileError, match="its manifest does not match its own checksum"):
        filled.load(BUFFER.key, 0)


def test_the_files_of_another_expert_are_refused(filled: ExpertStore) -> None:
    one, other = segment(filled, 0), segment(filled, 2)
    one.data.write_bytes(other.data.read_bytes())
    one.manifest.write_bytes(other.manifest.read_bytes())
    with pytest.raises(CorruptFileError, match="its manifest is that of expert 2, not 0"):
        filled.load(BUFFER.key, 0)


@pytest.mark.parametrize(("text", "message"), [("[]", "its manifest holds no values"), ("{", "is not valid JSON")])
def test_a_manifest_that_is_none_is_refused(filled: ExpertStore, text: str, message: str) -> None:
    segment(filled, 0).manifest.write_text(text)
    with pytest.raises(CorruptFileError, match=message):
        filled.load(BUFFER.key, 0)
    assert filled.discard_corrupt(BUFFER.key, 1) == [0]


def test_segments_of_unlike_networks_are_refused(filled: ExpertStore) -> None:
    filled.save(BUFFER, 0, Trajectory(torch.zeros(2, PARAMS + 1), [0.5, 0.5], 5))
    with pytest.raises(CorruptFileError, match="its snapshots are not of the size and type of the others"):
        filled.load(BUFFER.key, 0)


@pytest.mark.parametrize("part", ["data", "manifest"])
def test_a_segment_of_one_file_is_missing(filled: ExpertStore, part: str) -> None:
    """The manifest is written last, so its absence means that saving was interrupted."""
    path: Path = getattr(segment(filled, 0), part)
    path.unlink()
    assert filled.missing(BUFFER.key, 3, EPOCHS) == [0, 1]
    filled.verify(BUFFER.key, 3, range(EPOCHS + 1))
    filled.save(BUFFER, 0, trajectory())
    assert filled.missing(BUFFER.key, 3, EPOCHS) == [1]
    np.testing.assert_array_equal(filled.load(BUFFER.key, 0), trajectory().snapshots.numpy())


def test_an_exception_while_saving_leaves_the_segment_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExpertStore(tmp_path)

    def fail(path: Path, value: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(segments, "write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            store.save(BUFFER, 0, trajectory())
    assert store.missing(BUFFER.key, 1, 0) == [0]
    store.save(BUFFER, 0, trajectory())
    assert store.missing(BUFFER.key, 1, EPOCHS) == []
    assert len(os.listdir(tmp_path / BUFFER.key)) == 2


# --- names ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class NamedSource:
    """A policy that is known by its name alone."""

    name: str

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Policy:
        raise NotImplementedError


KEY_CHANGES: dict[str, Any] = {
    "data": "x",
    "labels": "x",
    "seed": 1,
    "dtype": "bfloat16",
    "policy": NamedSource("trusting"),
}
RECIPE_CHANGES: dict[str, Any] = {
    "network": NetworkSpec("convnet2", 5),
    "batch_size": 255,
    "lr": 0.02,
    "momentum": 0.1,
    "weight_decay": 0.1,
    "augment": None,
    "optimizer": "gsam",
    "rho": 0.02,
    "alpha": 0.2,
    "precision": "bfloat16",
    "cutmix": 0.5,
}
SCHEDULES = [{"schedule": "thirds", "schedule_epochs": epochs} for epochs in (3, 60)]


def test_the_key_depends_on_every_ingredient() -> None:
    assert {field.name for field in dataclasses.fields(BufferId)} == {*KEY_CHANGES, "recipe"}
    assert {field.name for field in dataclasses.fields(ExpertRecipe)} == {*RECIPE_CHANGES, *SCHEDULES[0], "epochs"}
    variants = [buffer(**{name: value}) for name, value in KEY_CHANGES.items()]
    for name, value in RECIPE_CHANGES.items():
        variants.append(buffer(recipe=dataclasses.replace(RECIPE, **{name: value})))
    variants.append(buffer(recipe=dataclasses.replace(RECIPE, network=NetworkSpec("convnet1", 4))))
    variants += [buffer(recipe=dataclasses.replace(RECIPE, **schedule)) for schedule in SCHEDULES]
    keys = {variant.key for variant in variants} | {BUFFER.key}
    assert len(keys) == len(variants) + 1
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)


def test_a_policy_names_its_buffer_and_its_description() -> None:
    named = [buffer(policy=NamedSource(name)) for name in ("one", "another")]
    assert len({each.key for each in named}) == 2
    assert all(identity_module.key_of(each.identity) == each.key for each in named)


def test_the_key_is_that_of_an_endless_trajectory() -> None:
    assert buffer(recipe=dataclasses.replace(RECIPE, epochs=99)).key == BUFFER.key


def test_the_key_is_that_of_buffers_from_before_there_was_a_choice_of_precision() -> None:
    assert BUFFER.key == "46fc88ab17c38fcc"
    assert "precision" not in BUFFER.identity["recipe"]


def test_the_key_depends_on_the_format_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = BUFFER.key
    monkeypatch.setattr(identity_module, "FORMAT_VERSION", 1)
    assert BUFFER.key != before


def test_the_key_is_the_same_in_another_process(elsewhere: Callable[[str, int], Any]) -> None:
    assert elsewhere(KEY_SCRIPT, 12345) == BUFFER.key


def test_buffers_are_listed(filled: ExpertStore) -> None:
    filled.save(BUFFER, 2, trajectory(2, 5, 9))
    (listed,) = filled.buffers()
    folder = filled.root / BUFFER.key
    assert (listed.key, listed.experts, listed.last_epoch) == (BUFFER.key, 2, EPOCHS)
    assert listed.num_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert listed.about["dataset"] == "toy"
    assert listed.about["recipe"]["network"] == {"name": "convnet2", "width": 4}
    assert "epochs" not in listed.about["recipe"]
    (folder / ".expert-00001.00000-00004.safetensors.12345678.tmp").write_bytes(b"half of what another process writes")
    assert next(iter(filled.buffers())) == listed
    assert list(ExpertStore(filled.root / "absent").buffers()) == []


def test_a_buffer_of_the_first_format_is_listed_as_empty_and_collected(tmp_path: Path) -> None:
    store = ExpertStore(tmp_path)
    old = tmp_path / "0123456789abcdef"
    old.mkdir()
    (old / "buffer.json").write_text('{"dataset": "toy"}')
    for name in ("expert-00000.json", "expert-00000.safetensors"):
        (old / name).write_bytes(b"{}")
    (listed,) = store.buffers()
    assert (listed.experts, listed.last_epoch, listed.num_bytes) == (0, -1, 22)
    assert [removed.key for removed in store.collect(0)] == [old.name]
    assert os.listdir(tmp_path) == []


def test_a_buffer_is_found_by_the_start_of_its_name(tmp_path: Path) -> None:
    store = ExpertStore(tmp_path)
    with pytest.raises(RequestError, match=f"^unknown expert buffer 'a': the store {tmp_path} holds none$"):
        store.find("a")
    for key in ("abcd000000000000", "abce000000000000", "1234000000000000"):
        (tmp_path / key).mkdir()
        (tmp_path / key / "buffer.json").write_text("{}")
    assert store.find("1") == "1234000000000000"
    assert store.find("abce") == "abce000000000000"
    assert store.find("abcd000000000000") == "abcd000000000000"
    with pytest.raises(
        RequestError, match=r"^'abc' is the start of 2 buffers: abcd000000000000, abce000000000000; give more of it$"
    ):
        store.find("abc")
    for name in ("abcf000000000000", ""):
        with pytest.raises(RequestError, match=f"^unknown expert buffer '{name}': .*Known: 1234000000000000, abcd0"):
            store.find(name)


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
