"""Room in the object stores: which buffers are shared there, and what ``ddnl status`` says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnl_ray.sweep.memory import VARIABLE, NodeStore, admitted, noted, stores_text

GIGABYTE = 10**9


def store(capacity: int, used: int = 0, spilled: int = 0) -> NodeStore:
    return NodeStore("id", "10.0.0.1", used, capacity, spilled, spilled // 2, used)


def test_buffers_are_shared_in_their_order_while_they_fit_together() -> None:
    sizes = {"first": 5, "large": 7, "second": 1, "third": 1}
    assert admitted(sizes, [store(10), store(20)]) == {"first", "second"}


def test_nothing_is_shared_where_no_store_answers() -> None:
    assert admitted({"first": 1}, []) == set()


def test_an_empty_buffer_takes_no_room() -> None:
    assert admitted({"first": 6, "empty": 0}, [store(10)]) == {"first", "empty"}


@given(st.lists(st.integers(0, 50), max_size=8), st.lists(st.integers(0, 100), min_size=1, max_size=4))
def test_what_is_shared_fits_into_every_store_and_no_first_buffer_that_fits_is_left_out(
    sizes: list[int], capacities: list[int]
) -> None:
    named = {str(number): size for number, size in enumerate(sizes)}
    room = 0.6 * min(capacities)
    held = admitted(named, [store(capacity) for capacity in capacities])
    assert sum(named[key] for key in held) <= room
    left = room
    for key, size in named.items():
        assert (key in held) == (size <= left)
        left -= size if key in held else 0


def test_the_share_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.1")
    assert admitted({"first": 2}, [store(10)]) == set()


def test_what_was_noted_is_said() -> None:
    stores = [store(4 * GIGABYTE, GIGABYTE), store(4 * GIGABYTE, 2 * GIGABYTE, spilled=3 * GIGABYTE)]
    assert stores_text(json.loads(json.dumps(noted(stores, {"buffer": 13 * GIGABYTE})))) == [
        "  object store of 10.0.0.1: 1.00 GB of 4.00 GB used",
        "  object store of 10.0.0.1: 2.00 GB of 4.00 GB used, 3.00 GB spilled to disk, 1.50 GB read back",
        "  1 expert buffer (13.00 GB) does not fit: trials read it from the expert store",
    ]


def test_nothing_is_said_of_nothing() -> None:
    assert stores_text(noted([], {})) == []
