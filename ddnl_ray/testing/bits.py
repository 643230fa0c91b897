"""Comparing records of tensors bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

Bits = dict[str, str]
"""A text per field, equal where the values are equal bit for bit."""

R = TypeVar("R")


def bits(record: Any) -> Bits:
    """Return what identifies every field of a dataclass or every value of a mapping; a tensor by its bytes."""
    return {name: _text(value) for name, value in _values(record).items()}


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Return the names whose bits differ, or that one of the two lacks."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def require_same(found: Mapping[str, str], expected: Mapping[str, str], rule: str) -> None:
    """Check that two records are equal.

    Raises:
        AssertionError: They are not; the message is the rule and the names that differ.
    """
    __tracebackhide__ = True
    names = differing(found, expected)
    if names:
        raise AssertionError(f"{rule} (other bits in: {', '.join(names)})")


def copied(record: R) -> R:
    """Return a dataclass with the same values in tensors of its own."""
    own = {name: value.clone() for name, value in _values(record).items() if isinstance(value, Tensor)}
    copy: R = dataclasses.replace(record, **own)  # type: ignore[type-var]
    return copy


def _values(record: Any) -> Mapping[str, Any]:
    if isinstance(record, Mapping):
        return record
    return {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}


def _text(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} {value!r}"
    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    sha = hashlib.sha256(plain.numpy().tobytes()).hexdigest()
    return f"{value.dtype} {tuple(value.shape)} on {value.device.type} {sha}"
