"""Rules about the commands that start Ray: who can get in, what it holds, what it sends."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ddnl_ray.sweep.cluster.commands import RayStart, ray_starts
from ddnl_ray.sweep.cluster.document import ClusterFile, mapping, sequence
from ddnl_ray.sweep.cluster.findings import Finding

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "[::]", "*")
MIN_STORE = 75 * 2**20
"""Bytes below which Ray refuses to start."""

HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"


def started(cluster: ClusterFile, key: str) -> tuple[list[RayStart], list[Finding]]:
    """Return every ``ray start`` below a key, and what cannot be read there."""
    starts: list[RayStart] = []
    unread: list[Finding] = []
    environment = container_environment(cluster)
    for place, command in cluster.commands(key):
        try:
            starts += ray_starts(place, command, environment)
        except ValueError as error:
            unread.append(Finding("unreadable", "fail", place, f"the shell cannot read it: {error}; close the quote"))
    return starts, unread


def container_environment(cluster: ClusterFile) -> dict[str, str]:
    """Return the variables that ``docker.run_options`` set (``-e NAME=VALUE``)."""
    options = " ".join(str(option) for option in sequence(mapping(cluster.document.get("docker")).get("run_options")))
    return dict(re.findall(r"(?:^|\s)(?:-e|--env)[= ]([A-Za-z_]\w*)=(\S*)", options))


def check_starts(cluster: ClusterFile) -> Iterator[Finding]:
    """Both start commands are there; Ray's own open the dashboard to the network and ask for no token."""
    for key, option, what in ((HEAD, "--head", "head"), (WORKER, "--address", "worker")):
        starts, unread = started(cluster, key)
        yield from unread
        if not unread and not any(option in start.options for start in starts):
            yield Finding(
                f"{what}-start",
                "fail",
                key,
                f"no command runs `ray start {option}`, and without one Ray's own default starts a {what} that asks "
                "for no token; write the command as cluster/cluster.yaml does",
            )
        for start in starts:
            yield from check_start(start)
            if start.is_head and cluster.is_cloud and "--autoscaling-config" not in start.options:
                yield Finding(
                    "autoscaling-config",
                    "fail",
                    start.place,
                    "the head is not told how to start workers, so none will come; add "
                    "--autoscaling-config=~/ray_bootstrap_config.yaml",
                )


def check_start(start: RayStart) -> Iterator[Finding]:
    """Return what is wrong with one ``ray start``, in a cluster file or in a script."""
    for rule in (_dashboard, _addresses, _debugger, _token, _statistics, _store, _spill, _devices):
        yield from rule(start)


def _dashboard(start: RayStart) -> Iterator[Finding]:
    host = start.options.get("--dashboard-host", LOOPBACK[0])
    if host not in LOOPBACK:
        yield Finding(
            "dashboard-open",
            "fail",
            start.place,
            f"--dashboard-host={host} lets others reach the dashboard, which runs code; leave the option out "
            "(127.0.0.1), and use `ray dashboard` for a tunnel",
        )


def _addresses(start: RayStart) -> Iterator[Finding]:
    for name, value in start.options.items():
        if name != "--dashboard-host" and re.sub(r"(?<=[\]\d*]):\d+$", "", value) in EVERYWHERE:
            yield Finding(
                "open-address",
                "fail",
                start.place,
                f"{name}={value} binds to every network; name the private address of the node, or leave it out",
            )


def _debugger(start: RayStart) -> Iterator[Finding]:
    if "--ray-debugger-external" in start.options:
        yield Finding(
            "debugger-open",
            "fail",
            start.place,
            "--ray-debugger-external opens a shell to the network; take it out",
        )


def _token(start: RayStart) -> Iterator[Finding]:
    mode = start.environment.get("RAY_AUTH_MODE")
    if mode != "token":
        said = "RAY_AUTH_MODE is not set" if mode is None else f"RAY_AUTH_MODE is {mode!r}"
        yield Finding(
            "token-mode",
            "fail",
            start.place,
            f"{said} in the command that starts Ray, so whoever reaches a port runs code; write "
            "`export RAY_AUTH_MODE=token;` before `ray start`, in the same list item: each has a shell of its own",
        )


def _statistics(start: RayStart) -> Iterator[Finding]:
    if start.environment.get("RAY_USAGE_STATS_ENABLED") != "0" and "--disable-usage-stats" not in start.options:
        yield Finding(
            "usage-statistics",
            "warn",
            start.place,
            "Ray sends usage statistics to its makers; set RAY_USAGE_STATS_ENABLED=0 before `ray start`",
        )


def _store(start: RayStart) -> Iterator[Finding]:
    size = start.options.get("--object-store-memory")
    if size is None:
        yield Finding(
            "object-store",
            "warn",
            start.place,
            "the object store has no size, so Ray takes 30 % of the memory; set --object-store-memory in bytes, 1.5 "
            "times the expert buffers that trials read at once (12.9 GB each at full size)",
        )
    elif "$" not in size and not (size.isdecimal() and int(size) >= MIN_STORE):
        yield Finding(
            "object-store",
            "fail",
            start.place,
            f"--object-store-memory={size} is no number of bytes from {MIN_STORE}; Ray would not start; write for "
            "example 20000000000",
        )


def _spill(start: RayStart) -> Iterator[Finding]:
    if not start.options.get("--object-spilling-directory"):
        yield Finding(
            "spill-directory",
            "warn",
            start.place,
            "objects that do not fit would be written below /tmp; set --object-spilling-directory to a large disk",
        )


def _devices(start: RayStart) -> Iterator[Finding]:
    if start.environment.get("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO") != "1":
        yield Finding(
            "gpu-visible",
            "warn",
            start.place,
            "processes that asked for no GPU would see all of them; set RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 before "
            "`ray start`",
        )
