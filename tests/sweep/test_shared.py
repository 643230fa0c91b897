"""Experts and data in Ray's object store: one copy, read by all, that survives the loss of its owner."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import BufferId, ExpertRecipe, ExpertStore, Trajectory
from ddnl_ray.models import NetworkSpec
from ddnl_ray.sweep.capacity import max_concurrent
from ddnl_ray.sweep.plan import Plan
from ddnl_ray.sweep.schema import ResourcesSection

pytestmark = [pytest.mark.ray, pytest.mark.own_process]

EXPERTS, FINAL, WEIGHTS = 4, 120, 50_000
EPOCHS = (*range(FINAL - 1), FINAL)
MEGABYTES = EXPERTS * len(EPOCHS) * WEIGHTS * 4 / 1e6
RECIPE = ExpertRecipe(network=NetworkSpec("convnet1", 4), epochs=FINAL)


def store_buffer(store: ExpertStore, dtype: str, weights: int) -> tuple[str, list[torch.Tensor]]:
    """Store experts of random weights; return the buffer's key and the snapshots."""
    buffer = BufferId("data", "labels", RECIPE, 0, dtype)
    trajectories = []
    for index in range(EXPERTS):
        snapshots = torch.randn(FINAL + 1, weights, generator=torch.Generator().manual_seed(index))
        store.save(buffer, index, Trajectory(snapshots, [0.0] * FINAL))
        trajectories.append(snapshots)
    return buffer.key, trajectories


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ExpertStore:
    return ExpertStore(tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="module")
def stored(store: ExpertStore) -> dict[str, tuple[str, list[torch.Tensor]]]:
    """A buffer of 95 MB, and a small one of half-precision."""
    return {"float32": store_buffer(store, "float32", WEIGHTS), "bfloat16": store_buffer(store, "bfloat16", 100)}


@dataclass(frozen=True)
class Sharing:
    """The owner of the buffers, two processes that read them, and what they should read.

    Processes are few and shared by all tests, because each takes seconds to start.
    """

    ray: Any
    owner: Any
    sources: dict[str, Any]
    readers: list[Any]
    truth: dict[str, list[torch.Tensor]]

    def view(self, dtype: str) -> Any:
        """Return a view that has read nothing yet."""
        from ddnl_ray.sweep.shared import SharedExperts

        return SharedExperts(self.owner, self.sources[dtype], EXPERTS, FINAL)

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """Call a method of every reader at once."""
        found = [getattr(reader, name).remote(*arguments) for reader in self.readers]
        return list(self.ray.get(found, timeout=120))

    def checksum(self, dtype: str) -> str:
        """Return what every reader's checksum should be."""
        found = hashlib.sha256()
        for snapshots in self.truth[dtype]:
            for epoch in EPOCHS:
                found.update(snapshots[epoch].numpy().tobytes())
        return found.hexdigest()


@pytest.fixture(scope="module")
def sharing(local_ray: Any, store: ExpertStore) -> Sharing:
    """A buffer of 95 MB and a small one in half precision, shared with two readers."""
    from ddnl_ray.sweep.shared import BufferSource, ExpertBuffers

    # Made here because Ray sends the classes of functions by value: workers cannot import test modules.
    class Reader:
        """Reads shared experts, as a trial does."""

        def use(self, experts: Any) -> None:
            self.experts = experts

        def checksum(self, count: int = EXPERTS) -> str:
            found = hashlib.sha256()
            for expert in range(count):
                for epoch in EPOCHS:
                    found.update(self.experts.snapshot(expert, epoch).numpy())
            return found.hexdigest()

        def private_megabytes(self) -> float:
            return float(psutil.Process().memory_full_info().uss / 1e6)

        def snapshot(self, expert: int, epoch: int) -> Any:
            return self.experts.snapshot(expert, epoch)

        def overwrite(self) -> str:
            """Write through everything that a trial could get hold of; return what was raised."""
            self.experts.snapshot(0, 0).mul_(0)  # a private copy
            try:
                self.experts._arrays[0][:] = 0
            except ValueError as error:
                return str(error)
            return "nothing"

    actor = local_ray.remote(num_cpus=0)(Reader)
    keys, truth = {}, {}
    for dtype, weights in (("float32", WEIGHTS), ("bfloat16", 100)):
        keys[dtype], truth[dtype] = store_buffer(store, dtype, weights)
    truth["bfloat16"] = [snapshots.to(torch.bfloat16).float() for snapshots in truth["bfloat16"]]
    sources = {dtype: BufferSource(key, EXPERTS, EPOCHS, dtype) for dtype, key in keys.items()}
    owner = ExpertBuffers.remote(str(store.root), {source.key: source for source in sources.values()})  # type: ignore[attr-defined]
    return Sharing(local_ray, owner, sources, [actor.remote() for _ in range(2)], truth)


def test_readers_share_one_copy_that_none_can_change(sharing: Sharing) -> None:
    sharing.ask("use", sharing.view("float32"))
    sharing.ask("checksum", 1)
    before = sharing.ask("private_megabytes")
    assert sharing.ask("checksum") == [sharing.checksum("float32")] * 2
    after = sharing.ask("private_megabytes")
    copied = (EXPERTS - 1) / EXPERTS * MEGABYTES
    assert copied == pytest.approx(72, rel=0.02)
    for old, new in zip(before, after, strict=True):
        assert new - old < 0.25 * copied
    assert sharing.ask("overwrite") == ["assignment destination is read-only"] * 2
    sharing.ask("use", sharing.view("float32"))
    assert sharing.ask("checksum") == [sharing.checksum("float32")] * 2


def test_a_view_says_what_it_holds(sharing: Sharing) -> None:
    """A cell sees its own number of experts and end of training, whatever other cells need of the buffer."""
    from ddnl_ray.sweep.shared import SharedExperts

    experts = SharedExperts(sharing.owner, sharing.sources["float32"], EXPERTS - 1, FINAL - 2)
    assert len(experts) == EXPERTS - 1
    assert experts.final_epoch == FINAL - 2
    assert torch.equal(experts.snapshot(1, FINAL - 2), sharing.truth["float32"][1][FINAL - 2])


def test_a_snapshot_that_is_not_held_is_named(sharing: Sharing) -> None:
    with pytest.raises(
        RequestError, match=f"snapshot of epoch {FINAL - 1} was read, but epochs 0-{FINAL - 2}, {FINAL}"
    ):
        sharing.view("float32").snapshot(0, FINAL - 1)


def test_bfloat16_arrives_bit_for_bit(sharing: Sharing) -> None:
    sharing.ask("use", sharing.view("bfloat16"))
    for epoch in (0, 7, FINAL):
        for arrived in sharing.ask("snapshot", 1, epoch):
            assert arrived.dtype == torch.float32
            assert torch.equal(arrived, sharing.truth["bfloat16"][1][epoch])
    assert sharing.ask("checksum") == [sharing.checksum("bfloat16")] * 2


def wait_until_lost(ray: Any, reference: Any) -> None:
    """Wait until Ray has noticed that the owner of an object is gone."""
    for _ in range(300):
        try:
            ray.get(reference, timeout=1)
        except (ray.exceptions.ObjectLostError, ray.exceptions.GetTimeoutError):
            return
        time.sleep(0.1)
    raise AssertionError("the object outlived its owner")


@pytest.mark.parametrize("how", ["ray.kill", "kill -9"])
def test_readers_outlive_the_owner(sharing: Sharing, how: str) -> None:
    """A view that has seen some experts gets the others, and a new view gets all, from the restarted owner."""
    sharing.ask("use", sharing.view("float32"))
    sharing.ask("checksum", 1)
    (*_, unread) = sharing.ray.get(sharing.owner.references.remote(sharing.sources["float32"].key))
    if how == "ray.kill":
        sharing.ray.kill(sharing.owner, no_restart=False)
        wait_until_lost(sharing.ray, unread)
    else:
        os.kill(sharing.ray.get(sharing.owner.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    assert sharing.ask("checksum") == [sharing.checksum("float32")] * 2
    sharing.ask("use", sharing.view("bfloat16"))
    assert sharing.ask("checksum") == [sharing.checksum("bfloat16")] * 2


def test_data_arrive_whole_and_refuse_to_be_written_to(local_ray: Any, plan: Callable[..., Plan]) -> None:
    from ddnl_ray.sweep.worker import SharedData, shared_data

    data = plan("grid.method=[random]", "params={}", "search.space={}").data[False]
    shared = SharedData(local_ray.put(data.arrays()), data.meta())

    @local_ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
    def use() -> tuple[Any, list[str]]:
        mine = shared_data(shared, torch.device("cpu"))
        said = []
        try:
            mine.train_images.mul_(1.0)
        except RuntimeError as error:
            said.append(str(error))
        return mine.arrays(), said

    arrays, said = local_ray.get(use.remote())
    assert len(said) == 1
    assert "inference" in said[0].lower()
    for name, array in data.arrays().items():
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize(("cpu", "gpu", "fits"), [(1, 0, 2), (2, 0, 1), (0.5, 0, 4), (0.7, 0, 2), (0.1, 0, 20)])
def test_as_many_trials_run_at_once_as_fit(local_ray: Any, cpu: float, gpu: float, fits: int) -> None:
    assert max_concurrent(local_ray, ResourcesSection(cpu=cpu, gpu=gpu), grows=False) == fits


@pytest.mark.parametrize(("cpu", "gpu"), [(3, 0), (1, 0.5)])
def test_a_trial_that_fits_nowhere_is_refused(local_ray: Any, cpu: float, gpu: float) -> None:
    message = rf"^a trial needs cpu: {cpu:g} and gpu: {gpu:g}, but there are 2 and 0 there; lower resources, or use"
    with pytest.raises(RequestError, match=message):
        max_concurrent(local_ray, ResourcesSection(cpu=cpu, gpu=gpu), grows=False)


def test_the_token_is_readable_by_its_owner_alone(local_ray: Any, ray_environment: dict[str, str]) -> None:
    token = Path(ray_environment["HOME"]) / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
