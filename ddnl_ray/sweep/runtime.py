"""Starting and stopping Ray, quietly and with authentication on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddnl_ray.errors import DdnlError, FaultError, RequestError

NAMESPACE = "ddnl"

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Set before Ray is imported; a user's own values win."""

WORKER_ENVIRONMENT = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_NUM_THREADS": "1"}


@contextmanager
def ray_session(address: str | None, cpus: int | None, gpus: int | None, log: Path) -> Iterator[Any]:
    """Start Ray on this machine, or join a cluster; stop or leave it at the end.

    Args:
        address: None for this machine alone, ``auto`` or an address for a cluster.
        cpus: Cores to use on this machine; None: all.
        gpus: GPUs to use on this machine; None: all.
        log: Where Ray's own messages go.

    Yields:
        The ``ray`` module.

    Raises:
        RequestError: No cluster answers at the address, or the token is missing or refused.
        FaultError: The cluster lost what a task needed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    require_token()
    import ray

    with _messages_in(log):
        _connect(ray, address, cpus, gpus)
        protect_token()
        try:
            with _faults_named(ray, log):
                yield ray
        finally:
            ray.shutdown()


@contextmanager
def _faults_named(ray: Any, log: Path) -> Iterator[None]:
    """Turn what Ray raises when something is lost into a message, and our own errors in a task into themselves."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DdnlError | OSError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise FaultError(
            f"the cluster lost what a task needed ({type(error).__name__}): a node or a process died too often, or "
            f"memory ran out; what has ended is kept, so run the same command again. Ray's own words are in {log}"
        ) from error


def _connect(ray: Any, address: str | None, cpus: int | None, gpus: int | None) -> None:
    """Start Ray or join a cluster (see :func:`ray_session`)."""
    environment = {"env_vars": WORKER_ENVIRONMENT}
    common: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init("local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, runtime_env=environment, **common)
        else:
            ray.init(address, runtime_env=environment, **common)
    except ConnectionError as error:
        raise RequestError(
            f"no Ray cluster answers at {address!r}; start one (`ray start --head`), and check that RAY_AUTH_MODE and "
            "the token in ~/.ray/auth_token are those of the cluster"
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise RequestError(f"Ray refuses the token: {error}") from error


@contextmanager
def _messages_in(log: Path) -> Iterator[None]:
    """Send Ray's own messages to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log)
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune")]
    for logger in loggers:
        logger.handlers = [handler]
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.handlers = [logging.NullHandler()]
        handler.close()


def require_token() -> None:
    """Check the token file that the environment names: Ray's processes would die without a word.

    Raises:
        RequestError: The file is missing or empty.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path is None or os.environ["RAY_AUTH_MODE"] != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    if not Path(path).is_file() or not Path(path).read_text().strip():
        raise RequestError(
            f"RAY_AUTH_TOKEN_PATH names {path}, which is missing or empty; write the cluster's token there, or unset "
            "RAY_AUTH_TOKEN_PATH to use ~/.ray/auth_token"
        )


def protect_token() -> None:
    """Make Ray's token file readable by its owner alone: Ray writes it world-readable."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token.is_file():
        token.chmod(0o600)
