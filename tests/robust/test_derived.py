"""Derived things: made once, named by what determines them, checked when read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.files import read_tensors, write_tensors
from ddnl_ray.robust.derived import Derived, Inputs

MADE: list[int] = []


@dataclass(frozen=True)
class Numbers(Derived):
    """As many numbers as asked for."""

    kind: ClassVar[str] = "numbers"
    count: int
    root_seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"count": self.count, "seed": self.root_seed}

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        MADE.append(self.count)
        values = torch.rand(self.count, generator=self.seed.torch())
        none = torch.zeros(0, dtype=torch.int64)
        return {"values": values, "same": values, "none": none, "flag": values > 0.5}, {"from": [0, 1]}


def inputs(root: Path) -> Inputs:
    return Inputs(None, None, ExpertStore(root))  # type: ignore[arg-type]


def test_it_is_made_once_and_read_as_it_was_made(tmp_path: Path) -> None:
    MADE.clear()
    own = Numbers(5)
    assert not own.is_stored(ExpertStore(tmp_path))
    own.build(inputs(tmp_path))
    Numbers(5).build(inputs(tmp_path))
    assert MADE == [5]
    tensors, about = own.read(tmp_path)
    made, said = own.make(inputs(tmp_path))
    assert about == said
    assert sorted(tensors) == sorted(made)
    assert all(torch.equal(tensors[name], made[name]) for name in made)


def test_name_and_seed_depend_on_all_that_determines_it() -> None:
    several = [Numbers(5), Numbers(6), Numbers(5, 1)]
    assert len({each.key for each in several}) == 3
    assert len({each.seed.entropy() for each in several}) == 3


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="is not there"):
        Numbers(5).read(tmp_path)


def test_a_changed_value_is_noticed(tmp_path: Path) -> None:
    own = Numbers(5)
    own.build(inputs(tmp_path))
    tensors, meta = read_tensors(own.path(tmp_path))
    tensors["values"][2] += 1e-7
    write_tensors(own.path(tmp_path), tensors, meta)
    with pytest.raises(CorruptFileError, match="checksum"):
        own.read(tmp_path)


def test_a_file_under_another_name_is_noticed(tmp_path: Path) -> None:
    Numbers(5).build(inputs(tmp_path))
    Numbers(5).path(tmp_path).rename(Numbers(6).path(tmp_path))
    with pytest.raises(CorruptFileError, match="does not hold what its name says"):
        Numbers(6).read(tmp_path)


def test_an_unreadable_file_is_noticed(tmp_path: Path) -> None:
    own = Numbers(5)
    own.build(inputs(tmp_path))
    own.path(tmp_path).write_bytes(b"spam")
    with pytest.raises(CorruptFileError, match="not a readable safetensors file"):
        own.read(tmp_path)


def test_what_no_trial_reads_is_collected(tmp_path: Path) -> None:
    store, old, new = ExpertStore(tmp_path), Numbers(5), Numbers(6)
    for each in (old, new):
        each.build(inputs(tmp_path))
        os.utime(each.path(tmp_path), (0, 0))
    new.read(tmp_path)
    assert [entry.name for entry in store.derived()] == sorted([old.name, new.name])
    assert [entry.name for entry in store.collect_derived(30)] == [old.name]
    assert [entry.name for entry in store.derived()] == [new.name]


def test_an_interrupted_making_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Numbers, inputs: Inputs) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Numbers, "make", fail)
        with pytest.raises(KeyboardInterrupt):
            Numbers(5).build(inputs(tmp_path))
    assert not Numbers(5).is_stored(ExpertStore(tmp_path))
