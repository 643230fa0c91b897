"""Archives of expert buffers: what went in comes out, equal buffers give equal bytes, unsound files are refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.errors import CorruptFileError, DataError
from ddnl_ray.experts import (
    BufferId,
    ExpertRecipe,
    ExpertStore,
    Moved,
    Trajectory,
    export_buffers,
    import_archive,
)
from ddnl_ray.experts.segments import signed
from ddnl_ray.models import NetworkSpec

RECIPE = ExpertRecipe(network=NetworkSpec("convnet2", 4), momentum=0.9)
BUFFERS = [BufferId("data", "labels", RECIPE, seed, dtype) for seed, dtype in ((0, "float32"), (1, "bfloat16"))]
KEYS = sorted(buffer.key for buffer in BUFFERS)
Files = dict[str, bytes]


def trajectory(seed: int, first: int, last: int, params: int = 7) -> Trajectory:
    """A part of an endless random walk."""
    snapshots = torch.randn(20, params, generator=torch.Generator().manual_seed(seed))
    losses = [0.5] * (last - max(first - 1, 0))
    return Trajectory(snapshots[first : last + 1].clone(), losses, first, -snapshots[last])


def files(root: Path) -> Files:
    """Return what a store holds, but for the marks of use."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "used"
    }


@pytest.fixture
def store(tmp_path: Path) -> ExpertStore:
    """Two buffers; the first has two experts, one of them in two segments, the second has one."""
    made = ExpertStore(tmp_path / "store")
    for buffer in BUFFERS:
        made.describe(buffer, {"dataset": "toy"})
        made.save(buffer, 0, trajectory(0, 0, 3))
    made.save(BUFFERS[0], 0, trajectory(0, 4, 6))
    made.save(BUFFERS[0], 4, trajectory(4, 0, 3))
    return made


@pytest.fixture
def other(tmp_path: Path) -> ExpertStore:
    """An empty store."""
    return ExpertStore(tmp_path / "other")


@pytest.fixture
def archive(store: ExpertStore, tmp_path: Path) -> Path:
    """An archive of both buffers."""
    export_buffers(store, KEYS, tmp_path / "experts.tar")
    return tmp_path / "experts.tar"


# --- round trips ---------------------------------------------------------------------------------------------------


def test_what_is_exported_is_imported(store: ExpertStore, other: ExpertStore, tmp_path: Path) -> None:
    path = tmp_path / "new" / "experts.tar"
    exported = export_buffers(store, reversed(KEYS), path)
    assert os.listdir(path.parent) == ["experts.tar"]
    sizes = {key: sum(file.stat().st_size for file in (store.root / key).glob("expert-*")) for key in KEYS}
    first = BUFFERS[0].key
    assert exported == [
        Moved(key, 2 if key == first else 1, 3 if key == first else 1, sizes[key], skipped=0) for key in KEYS
    ]
    assert import_archive(other, path) == exported
    assert files(other.root) == files(store.root)
    assert {buffer.key for buffer in other.buffers()} == set(KEYS)
    for index in (0, 4):
        np.testing.assert_array_equal(other.load(first, index), store.load(first, index))
    end, expected = other.end(first, 0), store.end(first, 0)
    assert end is not None
    assert expected is not None
    assert end.velocity is not None
    assert expected.velocity is not None
    assert torch.equal(end.velocity, expected.velocity)


def test_an_archive_begins_with_its_index(store: ExpertStore, archive: Path) -> None:
    with tarfile.open(archive, "r:") as tar:
        infos = tar.getmembers()
        index = json.loads(tar.extractfile(infos[0]).read())  # type: ignore[union-attr]
        names = [info.name for info in infos]
        assert names[0] == "archive.json"
        assert names[1:] == sorted(names[1:])
        assert names[1:] == sorted(f"{path.parent.name}/{path.name}" for path in store.root.glob("*/expert-*"))
        assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in infos} == {(0, 0, 0, "", 0o644)}
        assert (index["format_version"], index["segment_format_version"]) == (1, 2)
        assert set(index["buffers"]) == set(KEYS)
        assert index["buffers"][KEYS[0]]["dataset"] == "toy"
        for member, info in zip(index["members"], infos[1:], strict=True):
            content = (store.root / member["name"]).read_bytes()
            expected = {"name": info.name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            assert member == expected


def test_equal_buffers_give_equal_archives(store: ExpertStore, other: ExpertStore, archive: Path) -> None:
    import_archive(other, archive)
    other.touch(KEYS[0])
    again = archive.with_name("again.tar")
    export_buffers(other, [KEYS[1], KEYS[0], KEYS[1]], again)
    assert again.read_bytes() == archive.read_bytes()


def test_what_does_not_connect_stays_at_home(store: ExpertStore, other: ExpertStore, tmp_path: Path) -> None:
    key = BUFFERS[1].key
    store.save(BUFFERS[1], 0, trajectory(0, 9, 9))
    store.save(BUFFERS[1], 0, trajectory(0, 2, 3))
    store.save(BUFFERS[1], 1, trajectory(1, 5, 6))
    (moved,) = export_buffers(store, [key], tmp_path / "one.tar")
    assert (moved.experts, moved.segments) == (1, 1)
    import_archive(other, tmp_path / "one.tar")
    assert other.reach(key, 2) == [3, -1]


def test_what_is_there_already_is_skipped(store: ExpertStore, other: ExpertStore, archive: Path) -> None:
    first, second = BUFFERS[0], BUFFERS[1]
    other.describe(first, {"dataset": "mine"})
    other.save(first, 0, trajectory(0, 0, 3))
    before = {name: (other.root / name).stat().st_mtime_ns for name in files(other.root)}
    by_key = {moved.key: moved for moved in import_archive(other, archive)}
    assert {name: (other.root / name).stat().st_mtime_ns for name in before} == before
    assert json.loads((other.root / first.key / "buffer.json").read_text())["dataset"] == "mine"
    assert (by_key[first.key].experts, by_key[first.key].segments, by_key[first.key].skipped) == (2, 2, 1)
    assert other.reach(first.key, 5) == store.reach(first.key, 5)
    again = import_archive(other, archive)
    assert {(moved.experts, moved.segments, moved.num_bytes) for moved in again} == {(0, 0, 0)}
    assert {moved.key: moved.skipped for moved in again} == {first.key: 3, second.key: 1}


def test_an_import_is_a_use(other: ExpertStore, archive: Path) -> None:
    import_archive(other, archive)
    for key in KEYS:
        os.utime(other.root / key / "used", (1, 1))
    import_archive(other, archive)
    assert other.collect(1) == []


def test_a_half_saved_segment_is_completed(other: ExpertStore, store: ExpertStore, archive: Path) -> None:
    left = other.root / BUFFERS[1].key / "expert-00000.00000-00003.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"interrupted")
    import_archive(other, archive)
    assert files(other.root) == files(store.root)


def test_segments_are_not_held_in_memory(other: ExpertStore, tmp_path: Path) -> None:
    """Files of 8 MB go through in pieces of 1 MB."""
    home = ExpertStore(tmp_path / "home")
    home.describe(BUFFERS[0], {})
    home.save(BUFFERS[0], 0, trajectory(0, 0, 9, params=200_000))
    tracemalloc.start()
    export_buffers(home, [BUFFERS[0].key], tmp_path / "large.tar")
    import_archive(other, tmp_path / "large.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "large.tar").stat().st_size > 8e6
    assert peak < 4e6


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "it does not match its checksum"),
        (lambda content: content[:-1], r"it has \d+ bytes instead of \d+"),
        (lambda content: content + b"x", r"it has \d+ bytes instead of \d+"),
    ],
)
def test_a_corrupt_segment_is_not_exported(
    store: ExpertStore, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = store.root / BUFFERS[0].key / "expert-00004.00000-00003.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    out = tmp_path / "out" / "experts.tar"
    out.parent.mkdir()
    out.write_bytes(b"an older one")
    with pytest.raises(CorruptFileError, match=f"^expert segment {re.escape(str(path))} is corrupt: {message}"):
        export_buffers(store, KEYS, out)
    assert os.listdir(out.parent) == ["experts.tar"]
    assert out.read_bytes() == b"an older one"


def test_a_corrupt_manifest_is_not_exported(store: ExpertStore, tmp_path: Path) -> None:
    path = store.root / BUFFERS[0].key / "expert-00004.00000-00003.json"
    path.write_text(path.read_text().replace("0.5", "0.25", 1))
    with pytest.raises(CorruptFileError, match="its manifest does not match its own checksum"):
        export_buffers(store, KEYS, tmp_path / "experts.tar")
    assert not (tmp_path / "experts.tar").exists()


def test_a_buffer_without_an_expert_is_not_exported(other: ExpertStore, tmp_path: Path) -> None:
    other.describe(BUFFERS[0], {})
    with pytest.raises(
        DataError, match=rf"^expert buffer {BUFFERS[0].key} in .* has nothing to export: .*train it with"
    ):
        export_buffers(other, [BUFFERS[0].key], tmp_path / "experts.tar")
    assert not (tmp_path / "experts.tar").exists()


Member = tuple[tarfile.TarInfo, bytes]


def unpacked(path: Path) -> tuple[dict[str, Any], list[Member]]:
    """Return the index of an archive and its other members."""
    with tarfile.open(path, "r:") as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]
    return json.loads(members[0][1]), members[1:]


def pack(path: Path, index: Any, members: list[Member]) -> None:
    """Write an archive, however unsound."""
    content = index if isinstance(index, bytes) else json.dumps(index).encode()
    with tarfile.open(path, "w:") as tar:
        for info, data in [(tarfile.TarInfo("archive.json"), content), *members]:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def plain(name: str, data: bytes = b"evil") -> Member:
    return tarfile.TarInfo(name), data


def listed(member: Member) -> dict[str, Any]:
    info, data = member
    return {"name": info.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def add(index: Any, members: list[Member], member: Member) -> None:
    """Add a member that the index lists."""
    index["members"].append(listed(member))
    members.append(member)


def change(index: Any, members: list[Member], place: int, data: bytes) -> None:
    """Give a member another content, and the index its size and checksum."""
    members[place] = (members[place][0], data)
    index["members"][place] = listed(members[place])


def change_manifest(index: Any, members: list[Member], **changes: Any) -> None:
    """Change the first manifest, and all checksums with it."""
    values = json.loads(members[0][1]) | changes
    change(index, members, 0, json.dumps(signed(values)).encode())


def link(kind: bytes) -> Callable[[Any, list[Member]], None]:
    """Replace the first segment by a link to a file outside."""

    def attack(index: Any, members: list[Member]) -> None:
        info = members[1][0]
        info.type, info.linkname = kind, "/etc/passwd"
        change(index, members, 1, b"")

    return attack


def rename_all(index: Any, members: list[Member], old: str, new: str) -> None:
    """Rename a buffer in the names of its members."""
    for place, (info, _) in enumerate(members):
        info.name = index["members"][place]["name"] = info.name.replace(old, new)


Attack = Callable[[Any, list[Member]], None]
ATTACKS: dict[str, tuple[Attack, str]] = {
    "absolute": (
        lambda index, members: add(index, members, plain("/tmp/expert-00000.00000-00001.json")),
        "'/tmp/expert-00000.00000-00001.json' leads out of the store",
    ),
    "parent": (
        lambda index, members: add(index, members, plain(f"{KEYS[0]}/../../expert-00000.00000-00001.json")),
        f"'{KEYS[0]}/../../expert-00000.00000-00001.json' leads out of the store",
    ),
    "unlisted": (
        lambda index, members: members.append(plain("../evil.sh")),
        "it holds '../evil.sh', which archive.json does not list",
    ),
    "unknown": (
        lambda index, members: add(index, members, plain(f"{KEYS[0]}/used")),
        f"'{KEYS[0]}/used' is not the name of a file of an expert segment",
    ),
    "deep": (
        lambda index, members: add(index, members, plain(f"a/{KEYS[0]}/expert-00000.00000-00001.json")),
        f"'a/{KEYS[0]}/expert-00000.00000-00001.json' is not the name of a file of an expert segment",
    ),
    "twin name": (
        lambda index, members: add(index, members, plain(f"{KEYS[0]}/expert-000000.00000-00001.json")),
        f"'{KEYS[0]}/expert-000000.00000-00001.json' is not the name of a file of an expert segment",
    ),
    "another buffer": (
        lambda index, members: add(index, members, plain("0123456789abcdef/expert-00000.00000-00001.json")),
        "'0123456789abcdef/expert-00000.00000-00001.json' belongs to no buffer that archive.json describes",
    ),
    "symbolic link": (link(tarfile.SYMTYPE), "expert-00000.00000-00003.safetensors' is not a plain file"),
    "hard link": (link(tarfile.LNKTYPE), "expert-00000.00000-00003.safetensors' is not a plain file"),
    "folder": (link(tarfile.DIRTYPE), "expert-00000.00000-00003.safetensors' is not a plain file"),
    "device": (link(tarfile.CHRTYPE), "expert-00000.00000-00003.safetensors' is not a plain file"),
    "size": (
        lambda index, members: index["members"][1].update(size=3),
        r"expert-00000.00000-00003.safetensors' has \d+ bytes, but archive.json says 3",
    ),
    "content": (
        lambda index, members: index["members"][1].update(sha256="0" * 64),
        "expert-00000.00000-00003.safetensors' does not match its checksum",
    ),
    "last content": (
        lambda index, members: index["members"][-1].update(sha256="0" * 64),
        r"safetensors' does not match its checksum",
    ),
    "missing": (
        lambda index, members: members.pop(1),  # type: ignore[arg-type, return-value]
        "expert-00000.00000-00003.safetensors', which archive.json lists, is missing: the file is not whole",
    ),
    "manifest alone": (
        lambda index, members: (members.pop(1), index["members"].pop(1)),  # type: ignore[return-value]
        "expert-00000.00000-00003.json' is there without '.*expert-00000.00000-00003.safetensors'",
    ),
    "twice in the tar": (
        lambda index, members: members.append(members[0]),
        "it holds '.*expert-00000.00000-00003.json' twice",
    ),
    "twice in the index": (
        lambda index, members: index["members"].append(index["members"][0]),
        "its archive.json lists a member twice",
    ),
    "version": (
        lambda index, members: index.update(format_version=99),
        "it has format version 99 with segments of version 2; this ddnl reads 1 and 2",
    ),
    "segment version": (
        lambda index, members: index.update(segment_format_version=1),
        "it has format version 1 with segments of version 1; this ddnl reads 1 and 2",
    ),
    "no version": (lambda index, members: index.pop("format_version"), r"its archive.json cannot be read \(KeyError"),
    "no members": (lambda index, members: index.pop("members"), r"its archive.json cannot be read \(KeyError"),
    "odd members": (lambda index, members: index.update(members=[1]), r"its archive.json cannot be read \(TypeError"),
    "odd buffers": (lambda index, members: index.update(buffers=3), r"its archive.json cannot be read \(AttributeErr"),
    "odd buffer": (
        lambda index, members: index["buffers"].update({KEYS[0]: "x"}),
        r"its archive.json cannot be read \(AttributeError",
    ),
    "description": (
        lambda index, members: index["buffers"][KEYS[0]].update(seed=7),
        f"buffer '{KEYS[0]}' is not made of what archive.json says, which is buffer [0-9a-f]{{16}}",
    ),
    "evil key": (
        lambda index, members: index["buffers"].update({"..": index["buffers"][KEYS[0]]}),
        rf"buffer '\.\.' is not made of what archive.json says, which is buffer {KEYS[0]}",
    ),
    "swapped": (
        lambda index, members: change_manifest(index, members, key=KEYS[1]),
        f"is corrupt: its manifest is that of key {KEYS[1]}, not {KEYS[0]}",
    ),
    "another file": (
        lambda index, members: change_manifest(index, members, sha256="0" * 64),
        "expert-00000.00000-00003.safetensors' is corrupt: its manifest is that of another file",
    ),
    "manifest": (lambda index, members: change(index, members, 0, b"{"), "00003.json' is not valid JSON"),
    "manifest with NaN": (
        lambda index, members: change(index, members, 0, members[0][1].replace(b"0.5", b"NaN")),
        "00003.safetensors' is corrupt: its manifest does not match its own checksum",
    ),
    "old manifest": (
        lambda index, members: change_manifest(index, members, format_version=1),
        "it has format version 1; this ddnl reads 2",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_unsound_archive_is_refused(other: ExpertStore, archive: Path, tmp_path: Path, name: str) -> None:
    attack, message = ATTACKS[name]
    index, members = unpacked(archive)
    attack(index, members)
    pack(archive, index, members)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(
        CorruptFileError, match=rf"^archive {archive} is refused: .*{message}.*\. Nothing was imported;"
    ):
        import_archive(other, archive)
    assert files(other.root) == {}
    assert list(other.buffers()) == []
    assert not [path for path in tmp_path.rglob("*") if ".import-" in path.name]
    assert set(os.listdir(tmp_path)) - set(before) <= {"other"}


def test_an_archive_that_was_packed_again_is_as_good(store: ExpertStore, other: ExpertStore, archive: Path) -> None:
    """The attacks above fail for their own reason, and not because of how they are packed."""
    pack(archive, *unpacked(archive))
    import_archive(other, archive)
    assert files(other.root) == files(store.root)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_archive_is_refused(other: ExpertStore, archive: Path, part: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(part * len(content.rstrip(b"\0")))])
    with pytest.raises(CorruptFileError, match=rf"^archive {archive} is refused: .*copy it again, or write it again"):
        import_archive(other, archive)
    assert files(other.root) == {}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\0" * 10240, b"\x1f\x8b" + b"\0" * 2000])
def test_a_file_that_is_no_archive_is_refused(other: ExpertStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"x\.tar is refused: "):
        import_archive(other, tmp_path / "x.tar")


@pytest.mark.parametrize("index", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_an_index_that_is_none_is_refused(other: ExpertStore, archive: Path, index: bytes) -> None:
    pack(archive, index, unpacked(archive)[1])
    with pytest.raises(CorruptFileError, match=r"is refused: its archive\.json cannot be read"):
        import_archive(other, archive)


def test_another_tar_is_refused(other: ExpertStore, archive: Path) -> None:
    with tarfile.open(archive, "w:") as tar:
        tar.addfile(*((info := tarfile.TarInfo("thesis.tex")), io.BytesIO(b"")))
        assert info.size == 0
    with pytest.raises(CorruptFileError, match=r"its first member is not archive\.json, so it was not written by"):
        import_archive(other, archive)


def test_a_missing_archive_is_named(other: ExpertStore, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tar", tmp_path):
        with pytest.raises(DataError, match=f"^there is no archive at {path}; write one with `ddnl experts export`$"):
            import_archive(other, path)


def test_a_refused_archive_leaves_what_was_there(store: ExpertStore, archive: Path) -> None:
    index, members = unpacked(archive)
    ATTACKS["last content"][0](index, members)
    pack(archive, index, members)
    for path in (store.root / index["members"][-2]["name"], store.root / index["members"][-1]["name"]):
        path.unlink()
    before = files(store.root)
    with pytest.raises(CorruptFileError, match="does not match its checksum"):
        import_archive(store, archive)
    assert files(store.root) == before


def test_an_interrupt_leaves_nothing_behind(other: ExpertStore, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ddnl_ray.experts.archive.manifest_fault", stop)
    with pytest.raises(KeyboardInterrupt):
        import_archive(other, archive)
    assert list(other.root.iterdir()) == []


def test_manifests_come_last(other: ExpertStore, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stops at any moment leaves whole segments or none."""
    names: list[str] = []
    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        names.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    import_archive(other, archive)
    kinds = [Path(name).suffix for name in names]
    assert kinds == [".safetensors"] * 4 + [".json"] * 6
    assert names[4:6] == ["buffer.json"] * 2


def test_what_a_killed_import_left_is_collected(store: ExpertStore) -> None:
    left = store.root / ".import-12345678" / KEYS[0]
    left.mkdir(parents=True)
    (left / "expert-00000.00000-00003.safetensors").write_bytes(b"half")
    assert len(list(store.buffers())) == 2
    assert store.collect(1) == []
    assert left.exists()
    os.utime(left.parent, (1, 1))
    assert store.collect(1) == []
    assert not left.parent.exists()
    assert len(list(store.buffers())) == 2
