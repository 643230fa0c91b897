"""Rules about money: how many nodes, of which kind, for how long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from ddnl_ray.sweep.cluster.document import ClusterFile, mapping, sequence
from ddnl_ray.sweep.cluster.findings import Finding

IDLE_MINUTES = 30
"""Longer than this, an idle node costs more than what its start would."""

MANY_WORKERS = 32


def check_size(cluster: ClusterFile) -> Iterator[Finding]:
    """The number of workers has a limit, and falls to none."""
    if not cluster.is_cloud:
        return
    most = cluster.document.get("max_workers")
    if not _is_number(most):
        yield Finding(
            "max-workers", "fail", "max_workers", "the number of workers has no limit of yours; set it, for example 4"
        )
    elif most > MANY_WORKERS:
        yield Finding(
            "max-workers",
            "warn",
            "max_workers",
            f"up to {most} workers can run at once; lower it unless you mean to pay for that many",
        )
    if "min_workers" in cluster.document:
        yield Finding(
            "min-workers", "warn", "min_workers", "Ray ignores it here; set min_workers in each of available_node_types"
        )
    for name, kind in cluster.node_types.items():
        least = kind.get("min_workers", 0)
        if _is_number(least) and least > 0:
            yield Finding(
                "min-workers",
                "warn",
                f"available_node_types.{name}.min_workers",
                f"{least} of them run, and cost, even when nothing is to do; set it to 0",
            )


def check_idle(cluster: ClusterFile) -> Iterator[Finding]:
    """Idle workers go back soon."""
    if not cluster.is_cloud:
        return
    minutes = cluster.document.get("idle_timeout_minutes")
    if not _is_number(minutes):
        yield Finding(
            "idle-timeout",
            "fail",
            "idle_timeout_minutes",
            f"it is not said when idle workers go back; set it to at most {IDLE_MINUTES}, for example 10",
        )
    elif minutes > IDLE_MINUTES:
        yield Finding(
            "idle-timeout",
            "fail",
            "idle_timeout_minutes",
            f"idle workers cost for {minutes:g} minutes; set it to at most {IDLE_MINUTES}",
        )
    for name, kind in cluster.node_types.items():
        seconds = kind.get("idle_timeout_s")
        if _is_number(seconds) and seconds > 60 * IDLE_MINUTES:
            yield Finding(
                "idle-timeout",
                "fail",
                f"available_node_types.{name}.idle_timeout_s",
                f"idle workers cost for {seconds:g} seconds; set it to at most {60 * IDLE_MINUTES}",
            )


def check_market(cluster: ClusterFile) -> Iterator[Finding]:
    """Workers are spot instances, which a sweep survives; the head, which it does not, is none and runs no trials."""
    if cluster.provider not in ("aws", "gcp"):
        return
    for name, kind in cluster.node_types.items():
        spot = is_spot(mapping(kind.get("node_config")))
        place = f"available_node_types.{name}"
        if name == cluster.head_type and spot:
            yield Finding(
                "spot-head",
                "fail",
                f"{place}.node_config",
                "the head is a spot instance: when it goes, the cluster and the sweep's driver go; make it on-demand",
            )
        if name != cluster.head_type and not spot:
            market = (
                "InstanceMarketOptions: {MarketType: spot}" if cluster.provider == "aws" else "scheduling preemptible"
            )
            yield Finding(
                "spot-workers",
                "warn",
                f"{place}.node_config",
                f"workers at the full price; a sweep survives the loss of one, so set {market}",
            )
    head = mapping(mapping(cluster.node_types.get(cluster.head_type)).get("resources"))
    if head.get("CPU") != 0 or head.get("GPU", 0) != 0:
        yield Finding(
            "head-trials",
            "warn",
            f"available_node_types.{cluster.head_type}.resources",
            "the head takes trials, which can starve or kill the process that runs the sweep; set {CPU: 0}",
        )


def check_leftovers(cluster: ClusterFile) -> Iterator[Finding]:
    """``ray down`` leaves nothing that costs."""
    provider = mapping(cluster.document.get("provider"))
    if cluster.is_cloud and provider.get("cache_stopped_nodes", cluster.provider == "aws"):
        yield Finding(
            "stopped-nodes",
            "warn",
            "provider.cache_stopped_nodes",
            "nodes are stopped and not deleted, and their disks go on costing after `ray down`; set it to false",
        )


def is_spot(node: dict[str, Any]) -> bool:
    """Return whether a node's configuration asks for a spot (preemptible) instance."""
    if mapping(node.get("InstanceMarketOptions")).get("MarketType") == "spot":
        return True
    scheduling = node.get("scheduling")
    settings = [mapping(part) for part in (sequence(scheduling) or [scheduling])]
    return any(part.get("preemptible") is True or part.get("provisioningModel") == "SPOT" for part in settings)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
