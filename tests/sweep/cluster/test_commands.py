"""Reading shell commands: where Ray is started, and with what."""

from __future__ import annotations

import pytest

from ddnl_ray.sweep.cluster.commands import RayStart, ray_starts
from ddnl_ray.sweep.cluster.findings import Finding
from ddnl_ray.sweep.cluster.starting import check_start

SAFE = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
SIZED = {"--head": "", "--object-store-memory": "$STORE", "--object-spilling-directory": "/big"}


def only(command: str) -> RayStart:
    (start,) = ray_starts("here", command)
    return start


@pytest.mark.parametrize(
    ("command", "options", "environment"),
    [
        ("ray start --head", {"--head": ""}, {}),
        ("ray start --port=1 --head", {"--port": "1", "--head": ""}, {}),
        ("ray start --port 1 --block", {"--port": "1", "--block": ""}, {}),
        ("ulimit -n 9; ~/x/bin/ray start --head", {"--head": ""}, {}),
        ("export A=1 B=$C && ray start --head", {"--head": ""}, {"A": "1", "B": "$C"}),
        ("export A=1\nray start --head", {"--head": ""}, {"A": "1"}),
        ("A=1; ray start --head", {"--head": ""}, {"A": "1"}),
        ("A=1 ray start --head", {"--head": ""}, {"A": "1"}),
        ("env A=1 ray start --head", {"--head": ""}, {"A": "1"}),
        ("A=1 true; ray start --head", {"--head": ""}, {}),
        ("ray start --head; export A=1", {"--head": ""}, {}),
        ("echo A=1; ray start --head", {"--head": ""}, {}),
        ("export A=1; bash -c 'B=2 ray start --head'", {"--head": ""}, {"A": "1", "B": "2"}),
        ("srun -N 1 ray start --address=$h:1 --block &", {"--address": "$h:1", "--block": ""}, {}),
        ("ray start \\\n  --head \\\n  --port=1", {"--head": "", "--port": "1"}, {}),
        ("# it's: ray start --no\nray start --head  # here", {"--head": ""}, {}),
        ("ray start --temp-dir='a b'", {"--temp-dir": "a b"}, {}),
        ("ray start --port=$((1 + x)) --head", {"--port": "$sum", "--head": ""}, {}),
        ("if true; then ray start --head > log 2>&1; fi", {"--head": ""}, {}),
    ],
)
def test_a_start_is_found_with_its_options_and_environment(
    command: str, options: dict[str, str], environment: dict[str, str]
) -> None:
    start = only(command)
    assert dict(start.options) == options
    assert dict(start.environment) == environment
    assert start.place == "here"


@pytest.mark.parametrize("command", ["ray stop", "array start", "echo start", "", "ray status; start", "ray; start"])
def test_what_starts_no_ray_is_not_taken_for_one(command: str) -> None:
    assert list(ray_starts("here", command)) == []


def test_both_starts_of_a_script_are_found() -> None:
    heads = [start.is_head for start in ray_starts("here", "ray start --head &\nray start --address=x:1 &\nwait")]
    assert heads == [True, False]


def test_an_open_quote_is_an_error() -> None:
    with pytest.raises(ValueError, match="quotation"):
        list(ray_starts("here", "ray start 'x"))


def rules(options: dict[str, str]) -> list[str]:
    found: list[Finding] = list(check_start(RayStart("here", {**SIZED, **options}, SAFE)))
    return [finding.rule for finding in found]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"--dashboard-host": "127.0.0.1"}, []),
        ({"--dashboard-host": "localhost"}, []),
        ({"--dashboard-host": "::1"}, []),
        ({"--dashboard-host": "::"}, ["dashboard-open"]),
        ({"--dashboard-host": "0.0.0.0"}, ["dashboard-open"]),
        ({"--dashboard-host": ""}, ["dashboard-open"]),
        ({"--node-ip-address": "::"}, ["open-address"]),
        ({"--node-ip-address": "0.0.0.0"}, ["open-address"]),
        ({"--address": "0.0.0.0:6379"}, ["open-address"]),
        ({"--address": "10.0.0.1:6379"}, []),
        ({"--address": "$head:6379"}, []),
        ({"--node-ip-address": "fe80::1"}, []),
        ({"--object-store-memory": "78643200"}, []),
        ({"--object-store-memory": "78643199"}, ["object-store"]),
        ({"--object-spilling-directory": ""}, ["spill-directory"]),
    ],
)
def test_addresses_and_sizes(options: dict[str, str], expected: list[str]) -> None:
    assert rules(options) == expected
