"""Fixtures that every test package shares."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_TOLERANCE = 1e-3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="rewrite tests/golden/*.txt from this run: pytest tests/distill/test_golden.py --regenerate-golden",
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep every test on one thread, so that results do not depend on the machine's core count."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _one_blas_thread() -> Iterator[None]:
    """Keep NumPy on one thread too: on a busy machine its threads wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, where a developer has one; tests that need it skip without it."""
    root = Path(os.environ.get("DDNL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "cifar10").is_dir():
        pytest.skip(f"real images are not at {root}; set DDNL_TEST_DATA to the folder that holds cifar10/")
    return root


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Sequence[float]], None]:
    """Compare numbers with those of ``tests/golden/NAME.txt``, one a line, to a relative 1e-3.

    With ``--regenerate-golden`` the file is rewritten instead.
    """

    def check(name: str, values: Sequence[float]) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--regenerate-golden"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text("".join(f"{value:.7g}\n" for value in values))
            pytest.skip(f"wrote {path}")
        expected = [float(line) for line in path.read_text().split()]
        np.testing.assert_allclose(values, expected, rtol=GOLDEN_TOLERANCE)

    return check


@pytest.fixture
def elsewhere() -> Callable[[str, int], Any]:
    """Run a script that defines ``result()`` in a fresh interpreter with another hash seed; return what it gives."""

    def run(script: str, hash_seed: int) -> Any:
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"}
        program = f"{script}\nimport json\nprint(json.dumps(result()))"
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def global_random_untouched() -> Callable[[int], AbstractContextManager[None]]:
    """Return a context in which the global generators have a given seed, and must not be drawn from."""

    def states() -> list[bytes]:
        numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        return [
            torch.get_rng_state().numpy().tobytes(),
            numpy_state["key"].tobytes() + str(numpy_state["pos"]).encode(),
        ]

    @contextmanager
    def guard(seed: int) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            before = states()
            yield
            assert states() == before, "a global generator was used"

    return guard


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Host and port of a local S3 with one bucket; tests skip where moto is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("moto", "flask", "flask_cors")):
        pytest.skip("moto[server] is not installed: pip install 'ddnl-ray[dev]'")
    from pyarrow.fs import S3FileSystem

    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", host.split(":")[1]]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(host.split(":")[1])), 1).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3_environment(host).items():
                patch.setenv(name, value)
            S3FileSystem(
                endpoint_override=host, scheme="http", region="us-east-1", allow_bucket_creation=True
            ).create_dir("bucket")
        yield host
    finally:
        server.kill()
        server.wait()


def s3_environment(host: str) -> dict[str, str]:
    """Return the environment in which that S3 is found."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def local_s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty folder of the local S3, which this process is set up for."""
    for name, value in s3_environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{uuid.uuid4().hex}"
