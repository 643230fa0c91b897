"""Leases: one driver at a time, dead ones are replaced, and nobody's wall clock matters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from ddnl_ray.errors import StorageError
from ddnl_ray.storage import Held
from ddnl_ray.storage.lease import Lease, Timing
from ddnl_ray.storage.remote import RemoteFolder

Remote = Callable[..., RemoteFolder]
FAST = Timing(beat_s=0.05, stale_s=0.6, settle_s=0.02)


def hold_and_die(folder: RemoteFolder) -> None:
    """Leave a lease behind, as a driver does that was killed."""
    folder.put(".lock", json.dumps({"owner": "dead", "beat": 7, "host": "node-1"}).encode())


def test_a_second_driver_is_told_where_the_first_runs(remote: Remote) -> None:
    with remote("first").lock(".lock"):
        time.sleep(3 * FAST.stale_s)  # longer than a dead lease would last
        with pytest.raises(Held, match=r"^on \S+"), remote("second").lock(".lock"):
            raise AssertionError


def test_the_lease_is_given_back(remote: Remote) -> None:
    first = remote("first")
    with first.lock(".lock"):
        assert first.get(".lock")
    with pytest.raises(FileNotFoundError):
        first.get(".lock")


def test_the_lease_of_a_dead_driver_is_taken_over(remote: Remote) -> None:
    second = remote("second")
    hold_and_die(second)
    began = time.monotonic()
    with second.lock(".lock"):
        assert time.monotonic() - began >= FAST.stale_s
        assert json.loads(second.get(".lock"))["owner"] != "dead"


def test_something_else_in_its_place_does_not_hold(remote: Remote) -> None:
    folder = remote("here")
    for content in (b"", b"{", b"[]", b'{"owner": 1}'):
        folder.put(".lock", content)
        with folder.lock(".lock"):
            pass


@pytest.mark.parametrize("skew", [-86400.0, 86400.0])
def test_clocks_of_other_machines_do_not_matter(remote: Remote, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    """The first driver's wall clock is a day off while it writes."""
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + skew)
    first = remote("first")
    with first.lock(".lock"):
        monkeypatch.setattr(time, "time", true)
        with pytest.raises(Held), remote("second").lock(".lock"):
            raise AssertionError
    hold_and_die(first)
    with remote("second").lock(".lock"):
        pass


def test_an_observer_counts_its_own_seconds_only(remote: Remote) -> None:
    """With a clock of its own, a dead lease is watched for exactly as long as that clock says."""
    now, waited = [0.0], []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    folder = remote("here")
    hold_and_die(folder)
    timing = Timing(beat_s=5.0, stale_s=20.0, settle_s=2.0, clock=lambda: now[0], sleep=sleep)
    assert not Lease(folder, ".lock", timing).is_held()
    assert sum(waited) == 20.0


def test_of_many_that_start_at_once_one_goes_on(remote: Remote) -> None:
    timing = Timing(beat_s=0.5, stale_s=5.0, settle_s=1.0)
    won, refused = [], []
    gate, done = threading.Barrier(5), threading.Event()

    def drive(number: int) -> None:
        folder = remote(f"driver {number}", timing=timing)
        gate.wait()
        try:
            with folder.lock(".lock"):
                won.append(number)
                done.wait(20)
        except Held:
            refused.append(number)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    limit = time.monotonic() + 20
    while len(won) + len(refused) < 5 and time.monotonic() < limit:
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 4)


def test_who_was_replaced_notices_and_publishes_nothing_more(remote: Remote) -> None:
    first, second = remote("first"), remote("second")
    with first.lock(".lock"):
        first.put("a", b"x")
        second.put(".lock", json.dumps({"owner": "other", "beat": 1, "host": "node-2"}).encode())
        time.sleep(20 * FAST.beat_s)
        with pytest.raises(StorageError, match="was taken over by another `ddnl sweep`"):
            first.put("b", b"x")
    assert json.loads(second.get(".lock"))["owner"] == "other"  # and leaves the other's lease alone
