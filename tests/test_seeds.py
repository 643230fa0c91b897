"""The seed tree against its definition: a hash of the path, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddnl_ray.seeds import SeedTree

NAMES = st.lists(st.one_of(st.integers(), st.text(st.characters(min_codepoint=32), max_size=5)), max_size=4)


def test_entropy_is_the_hash_of_the_typed_path() -> None:
    text = "int:3\x1fstr:noise\x1fint:7"
    expected = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    assert SeedTree.root(3).child("noise", 7).entropy() == expected


def test_the_generators_of_a_node_never_change() -> None:
    """Frozen: other numbers would silently change every result that was ever published."""
    node = SeedTree.root(0).child("frozen", 1)
    assert node.entropy() == 287611688702163028054439130817667504922
    assert node.numpy().integers(0, 1000, 4).tolist() == [805, 630, 858, 698]
    assert torch.randint(0, 1000, (4,), generator=node.torch()).tolist() == [3, 932, 358, 285]


@given(NAMES, NAMES)
def test_different_paths_have_different_entropy(first: list[str | int], second: list[str | int]) -> None:
    same = [(type(name), name) for name in first] == [(type(name), name) for name in second]
    assert (SeedTree.root(0).child(*first).entropy() == SeedTree.root(0).child(*second).entropy()) == same


@pytest.mark.parametrize("names", [("1",), ("a", 1), (1, "a"), ("a1",), ("a",), ()])
def test_type_order_and_depth_of_names_matter(names: tuple[str | int, ...]) -> None:
    every: list[tuple[str | int, ...]] = [("1",), (1,), ("a", 1), (1, "a"), ("a1",), ("a",), ()]
    entropy = SeedTree.root(0).child(*names).entropy()
    assert entropy not in {SeedTree.root(0).child(*other).entropy() for other in every if other != names}


def test_a_child_of_a_child_is_a_grandchild() -> None:
    assert SeedTree.root(5).child("a").child("b", 2) == SeedTree.root(5).child("a", "b", 2)


def test_root_takes_any_integer() -> None:
    assert SeedTree.root(np.int64(3)).entropy() == SeedTree.root(3).entropy()  # type: ignore[arg-type]


def test_each_call_gives_a_fresh_generator() -> None:
    node = SeedTree.root(1).child("x")
    assert node.numpy().random() == node.numpy().random()
    assert torch.equal(torch.rand(3, generator=node.torch()), torch.rand(3, generator=node.torch()))


def test_different_seeds_differ() -> None:
    first, second = (SeedTree.root(seed).child("x") for seed in (0, 1))
    assert first.numpy().random() != second.numpy().random()
    assert not torch.equal(torch.rand(3, generator=first.torch()), torch.rand(3, generator=second.torch()))


def test_global_generators_are_not_touched(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    with global_random_untouched(3):
        SeedTree.root(1).child("x").torch()
        SeedTree.root(1).child("x").numpy()
