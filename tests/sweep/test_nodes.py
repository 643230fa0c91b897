"""Sweeps on several nodes, started on this machine by the commands that a user types: sharing, and losing nodes."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import psutil
import pytest
import torch

from ddnl_ray.experts import BufferId, ExpertRecipe, ExpertStore, Trajectory
from ddnl_ray.files import read_json
from ddnl_ray.models import NetworkSpec
from ddnl_ray.results import read_rows
from ddnl_ray.sweep.memory import node_stores
from ddnl_ray.sweep.runtime import ENVIRONMENT, ray_session

pytestmark = [pytest.mark.ray, pytest.mark.own_process, pytest.mark.slow, pytest.mark.timeout(1800)]

EXPERTS, EPOCHS, WEIGHTS = 3, 10, 250_000
BUFFER_BYTES = EXPERTS * EPOCHS * WEIGHTS * 4
LONG = ["budget.iterations=60", "budget.checkpoint_seconds=0.05", "search.trials=8"]
VOLATILE = ["run", "wall_s", "peak_memory_bytes", "finished_at"]


STORE_BYTES = 100 * 2**20


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Nodes:
    """Nodes that can be added and lost.

    Attributes:
        environment: Environment variables of every node; the name of a node is added as ``MARK``.
        port: Of the head, which runs no trial.
    """

    MARK: ClassVar[str] = "DDNL_TEST_NODE"

    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    names: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """What ``--address`` takes."""
        return f"127.0.0.1:{self.port}"

    def start_head(self) -> None:
        """Start the head."""
        self._start("head", "--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false")

    def add(self, name: str, cpus: int = 1) -> None:
        """Start a node that runs trials."""
        self._start(name, f"--address={self.address}", f"--num-cpus={cpus}", f'--resources={{"{name}": 1}}')

    def lose(self, name: str) -> None:
        """Kill everything of a node at once, as when a spot machine is taken away."""
        for process in self.processes(name):
            with suppress(psutil.Error):
                process.kill()

    def stop(self) -> None:
        """Kill whatever is left, the head last."""
        for name in reversed(self.names):
            self.lose(name)

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes of a node."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(self.MARK) == f"{self.port} {name}":
                    found.append(process)
        return found

    def _start(self, name: str, *options: str) -> None:
        environment = {**os.environ, **self.environment, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {self.MARK: f"{self.port} {name}"}
        command = [str(Path(sys.executable).parent / "ray"), "start", *options, f"--object-store-memory={STORE_BYTES}"]
        limit = time.monotonic() + 120
        while True:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
            assert time.monotonic() < limit, done.stdout + done.stderr
        self.names.append(name)


@pytest.fixture(scope="module")
def nodes(ray_environment: dict[str, str]) -> Iterator[Nodes]:
    """A head that runs no trial, and the nodes a and b with one core each."""
    made = Nodes(ray_environment)
    try:
        made.start_head()
        made.add("a")
        made.add("b")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def joined(nodes: Nodes, ray_folder: Path, ray_environment: dict[str, str]) -> Iterator[Any]:
    """The ``ray`` module, connected to the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | ray_environment).items():
            patch.setenv(name, value)
        from ray._raylet import AuthenticationTokenLoader

        AuthenticationTokenLoader.instance().reset_cache()
        with ray_session(nodes.address, None, None, ray_folder / "joined.log") as ray:
            yield ray


def command(nodes: Nodes, folder: Path) -> list[object]:
    """Return the sweep of trials that last long enough to be interrupted, with an expert store of its own."""
    changes = [word for change in LONG for word in ("--set", change)]
    where = ["--address", nodes.address, "--out", folder, "--store", folder / "store"]
    return ["sweep", "tiny.yaml", "--json", *where, *changes]


def results(run: Path) -> pd.DataFrame:
    """Return the rows of a run, but for what differs from one time to the next."""
    return read_rows(run / "results.parquet").drop(columns=VOLATILE)


def ended(run: Path) -> int:
    return len(list((run / "parts").glob("*.parquet")))


def is_at_work(run: Path) -> bool:
    return any((run / "trials").glob("*/checkpoint.safetensors"))


@pytest.fixture(scope="module")
def undisturbed(shell: Any, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep on the whole cluster, with nothing lost."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = shell.run(*command(nodes, folder))
    assert done.code == 0, done.err
    return folder / "tiny"


def test_a_node_gets_a_buffer_once_however_many_read_it(joined: Any, tmp_path: Path) -> None:
    from ddnl_ray.sweep.shared import BufferSource, ExpertBuffers, SharedExperts

    store = ExpertStore(tmp_path)
    buffer = BufferId("data", "labels", ExpertRecipe(network=NetworkSpec("convnet1", 4), epochs=EPOCHS - 1), 0)
    truth = hashlib.sha256()
    for index in range(EXPERTS):
        snapshots = torch.randn(EPOCHS, WEIGHTS, generator=torch.Generator().manual_seed(index))
        store.save(buffer, index, Trajectory(snapshots, [0.0] * (EPOCHS - 1)))
        truth.update(snapshots.numpy().tobytes())

    # Made here because Ray sends the classes of functions by value: workers cannot import test modules.
    class Reader:
        def checksum(self, experts: Any) -> str:
            found = hashlib.sha256()
            for expert in range(EXPERTS):
                for epoch in range(EPOCHS):
                    found.update(experts.snapshot(expert, epoch).numpy().tobytes())
            self.experts = experts
            return found.hexdigest()

    source = BufferSource(buffer.key, EXPERTS, tuple(range(EPOCHS)), "float32")
    owner = ExpertBuffers.remote(str(store.root), {source.key: source})  # type: ignore[attr-defined]
    experts = SharedExperts(owner, source, EXPERTS, EPOCHS - 1)
    actor = joined.remote(num_cpus=0)(Reader)
    readers = [actor.options(resources={name: 0.01}).remote() for name in ("a", "a", "a", "b", "b", "b")]
    before = {each.node_id: each.received for each in node_stores(joined)}
    said = joined.get([reader.checksum.remote(experts) for reader in readers], timeout=300)
    assert said == [truth.hexdigest()] * 6
    came = {each.node_id: each.received - before[each.node_id] for each in node_stores(joined)}
    assert len(came) == 3
    assert all(size < 1.1 * BUFFER_BYTES for size in came.values()), came
    assert sum(size > 0.9 * BUFFER_BYTES for size in came.values()) >= 2


def test_a_buffer_without_room_is_read_from_the_store(
    shell: Any, nodes: Nodes, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the share that buffers may take set to nothing, results are the same bit for bit."""
    monkeypatch.setenv("DDNL_BUFFER_SHARE", "0")
    done = shell.run(*command(nodes, tmp_path))
    assert done.code == 0, done.err
    noted = read_json(tmp_path / "tiny" / "object_store.json")
    assert len(noted["streamed"]) == 2
    assert len(noted["nodes"]) == 3
    pd.testing.assert_frame_equal(results(tmp_path / "tiny"), results(undisturbed), check_exact=True)


def test_a_lost_node_costs_no_result(shell: Any, nodes: Nodes, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    driver = shell.start(*command(nodes, tmp_path))
    shell.wait(driver, lambda: ended(run) >= 3 and is_at_work(run))
    nodes.lose("b")
    kept = {path.name: path.read_bytes() for path in (run / "parts").glob("*.parquet")}
    nodes.add("b")
    done = shell.end(driver)
    assert done.code == 0, done.err
    assert {name: (run / "parts" / name).read_bytes() for name in kept} == kept
    pd.testing.assert_frame_equal(results(run), results(undisturbed), check_exact=True)


def test_chaos_ends_with_the_same_table(shell: Any, nodes: Nodes, undisturbed: Path, tmp_path: Path) -> None:
    """Every few seconds a worker, the owner of the buffers, a node or the driver is killed, drawn from a seed."""
    run, draw = tmp_path / "tiny", random.Random(7)
    driver = shell.start(*command(nodes, tmp_path))
    kills = 0
    while driver.poll() is None and kills < 12:
        time.sleep(draw.uniform(2, 8))
        victim = draw.choice(["trial", "owner", "node", "driver"])
        if victim == "node":
            nodes.lose("b")
            nodes.add("b")
        elif victim == "driver":
            driver.kill()
            driver.communicate()
            driver = shell.start(*command(nodes, tmp_path))
        else:
            start = "ray::Implicit" if victim == "trial" else "ray::ExpertBuffers"
            for process in [*nodes.processes("a"), *nodes.processes("b")]:
                with suppress(psutil.Error):
                    if process.name().startswith(start[:15]):
                        process.kill()
        kills += 1
    done = shell.end(driver, timeout=900)
    if done.code == 1:  # a trial whose worker died too often: the same command tries it again
        done = shell.run(*command(nodes, tmp_path), timeout=900)
    assert done.code == 0, done.err
    assert kills >= 4
    pd.testing.assert_frame_equal(results(run), results(undisturbed), check_exact=True)


def test_a_client_without_the_token_is_refused(
    shell: Any, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    monkeypatch.setitem(shell.environment, "RAY_AUTH_TOKEN_PATH", str(wrong))
    done = shell.run(*command(nodes, tmp_path))
    assert done.code == 2
    assert "token" in done.err
    assert "Traceback" not in done.err
