"""Checking a cluster file: Ray's own schema, then the rules of this package."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ddnl_ray.sweep.cluster import access, cost, software, starting
from ddnl_ray.sweep.cluster.document import ClusterFile, read_cluster
from ddnl_ray.sweep.cluster.findings import Finding, Rule

AUTOSCALER = "RAY_UP_enable_autoscaler_v2"


def check_cluster(path: Path) -> list[Finding]:
    """Return everything that is wrong with a cluster file, what forbids its start first.

    Raises:
        RequestError: It is no cluster file (see :func:`ddnl_ray.sweep.cluster.document.read_cluster`).
    """
    cluster = read_cluster(path)
    found = dict.fromkeys(finding for rule in RULES for finding in rule(cluster))
    return sorted(found, key=lambda finding: finding.severity != "fail")


def check_schema(cluster: ClusterFile) -> Iterator[Finding]:
    """Ray accepts the file: its keys, types, node types and provider."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with _silence():
            validate_config(prepare_config(copy.deepcopy(cluster.document)))
    # Ray reads the file before it validates it: a wrong type shows as an exception of any kind.
    except Exception as error:
        place = str(getattr(error, "json_path", "$")).removeprefix("$").removeprefix(".")
        reason = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
        yield Finding("ray-schema", "fail", place or "(whole file)", f"Ray refuses it: {reason}")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray prints and logs to itself."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def check_on_premises(cluster: ClusterFile) -> Iterator[Finding]:
    """Ray's second autoscaler does not start the workers of a fixed set of hosts."""
    if cluster.provider == "local" and os.environ.get(AUTOSCALER) != "0":
        yield Finding(
            "onprem-autoscaler",
            "warn",
            "provider.type",
            f"the default autoscaler starts only the head of fixed hosts; run `{AUTOSCALER}=0 ray up ...` (and this "
            "check with the same variable)",
        )


RULES: tuple[Rule, ...] = (
    check_schema,
    starting.check_starts,
    access.check_token,
    access.check_ssh,
    access.check_secrets,
    cost.check_size,
    cost.check_idle,
    cost.check_market,
    cost.check_leftovers,
    software.check_package,
    software.check_ray_version,
    software.check_images,
    software.check_sdk,
    check_on_premises,
    access.check_placeholders,
)
