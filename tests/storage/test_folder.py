"""What every folder promises, wherever it is."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.files import write_atomic
from ddnl_ray.storage import Folder, Held, LocalFolder

Open = Callable[[str], Folder]
NAME = "trials/c-0000/card.json"


def write(folder: Folder, name: str, content: bytes) -> None:
    write_atomic(folder.path / name, content)
    folder.publish(name)


def test_what_is_published_is_read_elsewhere(place: Open) -> None:
    here, there = place("here"), place("there")
    here.check(write=True)
    assert not there.exists(NAME)
    assert (there.entries(), there.children()) == ([], [])
    write(here, NAME, b"{}")
    write(here, "parts/empty", b"")
    assert there.exists(NAME)
    assert not there.exists("trials/c-0000")
    assert there.fetch(NAME).read_bytes() == b"{}"
    assert there.fetch("parts/empty").read_bytes() == b""
    assert [(entry.name, entry.num_bytes) for entry in there.entries()] == [("parts/empty", 0), (NAME, 2)]
    assert [entry.name for entry in there.entries("trials")] == [NAME]
    assert there.children() == ["parts", "trials"]


def test_the_last_of_several_versions_is_fetched(place: Open) -> None:
    here, there = place("here"), place("there")
    for content in (b"a", b"bb", b"ccc" * 100_000):
        write(here, NAME, content)
        assert there.fetch(NAME).read_bytes() == content


def test_hidden_files_are_not_listed(place: Open) -> None:
    here = place("here")
    write(here, ".lock", b"x")
    write(here, ".tune/state", b"x")
    write(here, "sweep.yaml", b"x")
    assert [entry.name for entry in here.entries()] == ["sweep.yaml"]
    assert here.children() == ["sweep.yaml"]


def test_deleting_takes_what_is_there(place: Open) -> None:
    here, there = place("here"), place("there")
    write(here, NAME, b"{}")
    there.delete([NAME, "never/there"])
    assert not here.exists(NAME)
    assert here.entries() == []


def test_pulling_makes_a_copy_like_the_folder(place: Open) -> None:
    here, there = place("here"), place("there")
    for number in range(20):
        write(here, f"parts/{number}.parquet", bytes(number + 1))
    write(here, "trials/a/distilled.safetensors", b"big")
    there.pull("parts")
    assert sorted(path.name for path in (there.path / "parts").iterdir()) == sorted(f"{n}.parquet" for n in range(20))
    assert here.path == there.path or not (there.path / "trials").exists()
    here.delete(["parts/3.parquet"])
    write(here, "parts/4.parquet", b"another size")
    there.pull("", lambda name: not name.endswith(".safetensors"))
    assert not (there.path / "parts/3.parquet").exists()
    assert (there.path / "parts/4.parquet").read_bytes() == b"another size"
    assert here.path == there.path or not (there.path / "trials").exists()


def test_concurrent_writers_of_one_name_leave_one_of_them_whole(place: Open) -> None:
    contents = [bytes([number]) * (200_000 + number) for number in range(6)]
    folders = [place(f"writer {number}") for number in range(6)]
    seen, done = set(), threading.Event()

    def read() -> None:
        folder = place("reader")
        while not done.is_set():
            if folder.exists(NAME):
                seen.add(folder.fetch(NAME).read_bytes())

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(f, NAME, c)) for f, c in zip(folders, contents, strict=True)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert place("later").fetch(NAME).read_bytes() in contents
    assert seen <= set(contents)


def test_one_holds_the_folder_at_a_time(place: Open) -> None:
    first, second = place("first"), place("second")
    assert not second.is_locked(".lock")
    with first.lock(".lock"):
        assert second.is_locked(".lock")
        with pytest.raises(Held), second.lock(".lock"):
            raise AssertionError("two hold it")
    assert not second.is_locked(".lock")
    with second.lock(".lock"):
        assert first.is_locked(".lock")


def test_a_private_copy_is_gone_afterwards(place: Open, tmp_path: Path) -> None:
    here = place("here")
    with here.private() as own:
        write(own, NAME, b"{}")
    assert here.fetch(NAME).read_bytes() == b"{}"
    assert own.path.exists() == (not here.is_remote)


def test_content_is_checked_where_a_checksum_is_known(place: Open) -> None:
    here, there = place("here"), place("there")
    write(here, "a.safetensors", b"tensors")
    right, wrong = hashlib.sha256(b"tensors").hexdigest(), hashlib.sha256(b"others").hexdigest()
    if here.is_remote:
        with pytest.raises(CorruptFileError, match=r"a\.safetensors does not match its checksum"):
            there.keep("a.safetensors", wrong)
        assert not (there.path / "a.safetensors").exists()
    assert there.keep("a.safetensors", right).read_bytes() == b"tensors"


def test_what_is_kept_is_brought_once_and_forgotten_on_request(place: Open) -> None:
    here, there = place("here"), place("there")
    write(here, "a.safetensors", b"tensors")
    path = there.keep("a.safetensors")
    if here.is_remote:
        path.write_bytes(b"changed here")
        assert there.keep("a.safetensors").read_bytes() == b"changed here"
    there.forget("a.safetensors")
    assert there.keep("a.safetensors").read_bytes() == b"tensors"


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RequestError, match="without locks \\(No locks available\\): start the lock service of the NFS"):
        LocalFolder(tmp_path).lock(".lock").__enter__()
