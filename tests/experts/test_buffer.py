"""Views on trajectories: private copies out, no writes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ArrayExperts
from ddnl_ray.experts.buffer import read_only


def values(rows: int = 3) -> np.ndarray:
    array = np.random.default_rng(0).standard_normal((rows, 5)).astype(np.float32)
    array.flags.writeable = False
    return array


def bits(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.view(torch.uint16).numpy())


def test_a_view_shares_memory_and_in_place_operations_raise() -> None:
    array = values()
    tensor = read_only(array)
    assert tensor.data_ptr() == array.ctypes.data
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        tensor.add_(1)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        tensor[0] = 0
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        tensor[0].zero_()
    with pytest.raises(RuntimeError, match="inference tensor"):
        tensor.requires_grad_()


def test_a_snapshot_is_private_and_may_take_part_in_a_graph() -> None:
    array = values()
    experts = ArrayExperts([array], (0, 1, 9), 9)
    snapshot = experts.snapshot(0, 9)
    np.testing.assert_array_equal(snapshot.numpy(), array[2])
    snapshot.add_(1)
    snapshot.requires_grad_().square().sum().backward()
    np.testing.assert_array_equal(experts.snapshot(0, 9).numpy(), array[2])
    assert len(experts) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_snapshots_come_as_float32(dtype: str) -> None:
    stored = torch.from_numpy(values().copy()).to(torch.float16 if dtype == "float16" else torch.bfloat16)
    array = stored.numpy() if dtype == "float16" else bits(stored)
    array.flags.writeable = False
    snapshot = ArrayExperts([array], (0, 1, 2), 2, dtype).snapshot(0, 1)
    assert snapshot.dtype == torch.float32
    assert torch.equal(snapshot, stored[1].float())
    snapshot.mul_(2).requires_grad_()
    assert torch.equal(ArrayExperts([array], (0, 1, 2), 2, dtype).snapshot(0, 1), stored[1].float())


def test_a_snapshot_that_is_not_held_is_named() -> None:
    experts = ArrayExperts([values(5)], (0, 1, 2, 5, 7), 9)
    message = (
        "^the experts' snapshot of epoch 9 was read, but epochs 0-2, 5, 7 are held: those up to the last_epoch of the "
        "method's configuration, and the final one for methods that set reads_final$"
    )
    with pytest.raises(RequestError, match=message):
        experts.snapshot(0, experts.final_epoch)
    for epoch in (-1, 3, 8):
        with pytest.raises(RequestError, match=f"snapshot of epoch {epoch} was read"):
            experts.snapshot(0, epoch)
