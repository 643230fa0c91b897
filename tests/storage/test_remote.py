"""Remote folders under faults: what dies, what does not answer, what refuses."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddnl_ray.errors import RequestError, StorageError
from ddnl_ray.files import write_atomic
from ddnl_ray.storage import open_folder
from ddnl_ray.storage.remote import RemoteFolder
from ddnl_ray.storage.retry import Patience
from ddnl_ray.testing.objects import Killed, Objects

Remote = Callable[..., RemoteFolder]

UPLOAD = """
import sys
from ddnl_ray.storage import open_folder
folder = open_folder(sys.argv[1], "drive")
folder.path.mkdir(parents=True, exist_ok=True)
(folder.path / "big").write_bytes(bytes(400_000_000))
print("uploading", flush=True)
folder.publish("big")
print("done", flush=True)
"""


def die_at(objects: Objects, number: int) -> None:
    """Die at a step, counted from now."""
    left = itertools.count(number, -1)

    def before(_step: str, _path: str) -> None:
        if next(left) == 0:
            raise Killed

    objects.before = before


def test_whoever_dies_while_publishing_leaves_the_old_content_or_the_new(objects: Objects, remote: Remote) -> None:
    here, there = remote("here"), remote("there")
    seen = []
    for number in range(10):
        objects.before = lambda _step, _path: None
        here.put("x", b"old")
        write_atomic(here.path / "x", b"new content")
        die_at(objects, number)
        try:
            here.publish("x")
            died = False
        except Killed:
            died = True
        objects.before = lambda _step, _path: None
        seen.append(there.get("x"))
        if not died:
            break
    assert seen == [b"old"] * (len(seen) - 1) + [b"new content"]
    assert len(seen) == 5  # open, two parts, complete


def test_whoever_dies_while_fetching_leaves_no_half_copy(objects: Objects, remote: Remote) -> None:
    here, there = remote("here"), remote("there")
    here.put("x", b"content")
    for number in range(2):
        die_at(objects, number)
        with pytest.raises(Killed):
            there.fetch("x")
        assert not (there.path / "x").exists()
    objects.before = lambda _step, _path: None
    assert there.fetch("x").read_bytes() == b"content"


def test_an_upload_survives_an_interrupt_of_the_main_thread(objects: Objects, remote: Remote) -> None:
    def before(step: str, _path: str) -> None:
        if step == "open":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    objects.before = before
    with pytest.raises(KeyboardInterrupt):
        remote("here").put("x", b"content")
    objects.before = lambda _step, _path: None
    limit = time.monotonic() + 10
    while not remote("there").exists("x") and time.monotonic() < limit:
        time.sleep(0.01)
    assert remote("there").get("x") == b"content"


def away(steps: int) -> Callable[[str, str], None]:
    """Fail a number of steps, as a network that is away."""
    left = itertools.count(steps, -1)

    def before(_step: str, _path: str) -> None:
        if next(left) > 0:
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7")

    return before


@pytest.mark.parametrize("action", ["put", "get", "fetch", "pull", "entries", "exists", "delete", "children"])
def test_storage_that_comes_back_is_waited_for(objects: Objects, remote: Remote, action: str) -> None:
    here = remote("here")
    here.put("x", b"content")
    objects.before = away(5)
    done = {
        "put": lambda: here.put("x", b"content"),
        "get": lambda: here.get("x"),
        "fetch": lambda: here.fetch("x"),
        "pull": here.pull,
        "entries": here.entries,
        "exists": lambda: here.exists("x"),
        "delete": lambda: here.delete(["y"]),
        "children": here.children,
    }[action]()
    assert done in (None, b"content", [*here.entries()], True, ["x"], here.path / "x")
    assert here.get("x") == b"content"


def test_storage_that_stays_away_is_given_up_once(objects: Objects, remote: Remote) -> None:
    waits: list[float] = []
    clock = itertools.count(0, 10)
    patience = Patience(100.0, 1.0, 8.0, clock=lambda: next(clock), sleep=waits.append)
    here = remote("here", patience=patience)
    objects.before = away(10**6)
    with pytest.raises(StorageError) as caught:
        here.put("parts/c-0000.parquet", b"x")
    message = str(caught.value)
    assert message.startswith(
        "s3://bucket/run does not answer when asked to write parts/c-0000.parquet, tried for 100 s"
    )
    assert "NETWORK_CONNECTION" in message
    assert "run the same command again" in message
    assert len(waits) == 9
    assert all(0.5 * whole <= wait <= whole for wait, whole in zip(waits, [1, 2, 4, 8, 8, 8, 8, 8, 8], strict=True))
    with pytest.raises(StorageError):
        here.exists("x")
    assert len(waits) == 9  # what was given up is not waited for again
    objects.before = lambda _step, _path: None
    assert not here.exists("x")


@pytest.mark.parametrize(
    "error",
    [
        OSError("AWS Error ACCESS_DENIED during PutObject operation"),
        OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation"),
        OSError("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation"),
        OSError("google::cloud::Status(PERMISSION_DENIED: no)"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_storage_that_refuses_is_not_asked_again(objects: Objects, remote: Remote, error: OSError) -> None:
    def before(_step: str, _path: str) -> None:
        raise error

    objects.before = before
    here = remote("here", patience=Patience(sleep=lambda _: pytest.fail("it was asked again")))
    for action in (lambda: here.check(), lambda: here.put("x", b"y"), lambda: here.exists("x")):
        with pytest.raises(RequestError, match=r"s3://bucket/run refuses to .*Check the bucket's name"):
            action()


def test_a_full_disk_here_is_not_blamed_on_storage(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    here = remote("here")
    here.put("x", b"content")

    def full(_path: Path) -> Iterator[None]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddnl_ray.storage.remote.open_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        here.fetch("x")


def test_a_bucket_that_is_not_there_is_said_before_anything_is_done(local_s3: str, tmp_path: Path) -> None:
    folder = open_folder("s3://no-such-bucket/runs", "read")
    with pytest.raises(RequestError, match="is in a bucket that is not there, 'no-such-bucket'"):
        folder.check()
    here = open_folder(local_s3, "read")
    here.check(write=True)
    assert here.children() == []


def test_a_process_that_is_killed_in_an_upload_leaves_nothing(
    local_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDNL_CACHE", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, local_s3], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "uploading\n"
    time.sleep(0.2)
    process.kill()
    assert process.communicate()[0] == ""
    assert not open_folder(local_s3, "read").exists("big")


def test_many_threads_share_a_folder(remote: Remote) -> None:
    here = remote("here")
    threads = [threading.Thread(target=here.put, args=(f"parts/{n}", bytes(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.num_bytes for entry in here.entries()] == [len(here.get(entry.name)) for entry in here.entries()]
    assert len(here.entries()) == 20
