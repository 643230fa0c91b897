"""A sweep on a few digits, whose trials end within a second."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib
import psutil
import pytest

from ddnl_ray.results import FORMAT_VERSION
from ddnl_ray.sweep.plan import Plan, make_plan
from ddnl_ray.sweep.read import read_sweep
from ddnl_ray.sweep.runtime import ENVIRONMENT, ray_session
from ddnl_ray.sweep.schema import SweepFile

SWEEP = """
name: tiny
data: {name: digits, subset: 400, test_subset: 100}
grid:
  noise: [{kind: symmetric, rate: [0, 0.4]}]
  method: [full, random, datm]
  ipc: [1]
params: {datm.max_start_epoch: 2, datm.current_max_start_epoch: 1, datm.expert_epochs: 1, datm.syn_steps: 2}
search:
  trials: 3
  parallel: 2
  space: {datm.lr_img: {log_uniform: [3, 100]}}
evaluate: {repeats: 2}
budget: {experts: 2, expert_epochs: 3, iterations: 3, eval_epochs: 5, full_epochs: 2}
model: {name: convnet1, width: 4}
resources: {cpu: 1}
profiles:
  wide: {model: {width: 8}, grid: {ipc: [1, 2]}}
"""

Row = dict[str, Any]


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    """The sweep as a file: 6 cells, 10 trials."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def sweep(sweep_file: Path) -> Callable[..., SweepFile]:
    """Read the sweep with ``key=value`` overrides, and a profile."""

    def read(*overrides: str, profile: str | None = None) -> SweepFile:
        return read_sweep(sweep_file, profile, overrides)

    return read


@pytest.fixture
def plan(sweep: Callable[..., SweepFile]) -> Callable[..., Plan]:
    """Plan the sweep with ``key=value`` overrides."""

    def make(*overrides: str) -> Plan:
        return make_plan(sweep(*overrides))

    return make


@pytest.fixture
def row() -> Callable[..., Row]:
    """Make one row of a result table: the final, selected score of a trial on the selection split."""

    def make(cell: str, trial: str, accuracy: float | None = 0.5, **values: Any) -> Row:
        row: Row = {
            "run": "tiny",
            "cell": cell,
            "trial": trial,
            "dataset": "digits",
            "noise": "none",
            "noise_rate": 0.0,
            "noise_seed": 0,
            "base_method": "datm",
            "variant": "none",
            "ipc": 1,
            "backbone": "convnet1",
            "eval_backbone": "convnet1",
            "seed": 0,
            "eval_seed": 0,
            "iteration": 3,
            "split": "val_noisy",
            "accuracy": accuracy,
            "is_final": True,
            "is_selected": True,
            "params": "{}",
            "outcome": "ok",
            "message": "",
            "wall_s": 1.0,
            "format_version": FORMAT_VERSION,
        }
        return {**row, **values}

    return make


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """A folder of its own for Ray's files and its token; its name is short because it holds sockets."""
    with tempfile.TemporaryDirectory(prefix="ddnl", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def ray_environment(ray_folder: Path) -> dict[str, str]:
    """Environment variables that keep a process's Ray, home and expert store inside that folder.

    A token is laid there, readable by all as Ray would leave it.
    """
    token = ray_folder / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text(secrets.token_hex(32))
    token.chmod(0o644)
    return {
        "HOME": str(ray_folder),
        "RAY_TMPDIR": str(ray_folder),
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(200 * 2**20),
        "MPLCONFIGDIR": matplotlib.get_configdir(),
        "DDNL_STORE": str(ray_folder / "experts"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def local_ray(ray_folder: Path, ray_environment: dict[str, str]) -> Iterator[Any]:
    """The ``ray`` module, connected to a Ray of this machine with 2 cores."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | ray_environment).items():
            patch.setenv(name, value)
        from ray._raylet import AuthenticationTokenLoader

        AuthenticationTokenLoader.instance().reset_cache()  # this process may have read the token of another home
        with ray_session(None, 2, 0, ray_folder / "ray.log") as ray:
            yield ray


@dataclass(frozen=True)
class Shell:
    """Runs ``ddnl`` in processes of their own, each the head of its own process group.

    Attributes:
        folder: The working directory.
        environment: Environment variables; every process that descends from here has ``MARK`` among them.
    """

    MARK: ClassVar[str] = "DDNL_TEST_SHELL"

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, "-m", "ddnl_ray", *map(str, arguments)]
        environment = {**os.environ, **self.environment, self.MARK: str(self.folder)}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, *arguments: object, timeout: float = 400) -> Said:
        """Run a command to its end."""
        return self.end(self.start(*arguments), timeout)

    def end(self, process: subprocess.Popen[str], timeout: float = 400) -> Said:
        """Wait until a command ends."""
        out, err = process.communicate(timeout=timeout)
        return Said(process.returncode, out, err)

    def wait(self, process: subprocess.Popen[str], happened: Callable[[], bool], timeout: float = 300) -> None:
        """Wait until something has happened while a command runs."""
        limit = time.monotonic() + timeout
        while not happened():
            assert process.poll() is None, f"it ended before: {process.communicate()}"
            assert time.monotonic() < limit, "it never happened"
            time.sleep(0.02)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill a driver as a power failure would, and wait until Ray has noticed."""
        process.kill()
        process.communicate()
        self.wait_until_gone()

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that descend from this shell."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(self.MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_until_gone(self, timeout: float = 60) -> None:
        """Wait until no process that descends from this shell is left."""
        limit = time.monotonic() + timeout
        while left := self.descendants():
            assert time.monotonic() < limit, f"left over: {left}"
            time.sleep(0.1)


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def shell(ray_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell in a folder with the sweep file; whatever is left of its processes at the end is ended."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "tiny.yaml").write_text(SWEEP)
    made = Shell(folder, ray_environment)
    yield made
    for process in made.descendants():
        with suppress(psutil.Error):
            process.kill()
