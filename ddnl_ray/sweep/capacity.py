"""How many trials fit at once: on the nodes that are there, or that the cluster may still start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ddnl_ray.errors import RequestError
from ddnl_ray.sweep.schema import ResourcesSection

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where ``ray up`` leaves the cluster file, resolved, on the head of a cluster that grows."""


def max_concurrent(ray: Any, resources: ResourcesSection, grows: bool) -> int:
    """Return how many trials run at once: as many as fit, with workers not started yet, and no more than asked for.

    Args:
        ray: The ``ray`` module, connected.
        resources: What a trial takes.
        grows: Whether it is a cluster, which may start workers: then its file is looked for beside us.

    Raises:
        RequestError: Not even one does; Ray would wait for ever.
    """
    have = ray.cluster_resources()
    planned = planned_workers(BOOTSTRAP.expanduser()) if grows else []
    fits = max(_fits(have, resources), sum(_fits(node, resources) for node in planned))
    fits = min(fits, resources.max_concurrent or fits)
    if fits < 1:
        cpu, gpu = (max([float(node.get(kind, 0)) for node in [have, *planned]]) for kind in ("CPU", "GPU"))
        what = "at most on one node" if planned else "there"
        raise RequestError(
            f"a trial needs cpu: {resources.cpu:g} and gpu: {resources.gpu:g}, but there are {cpu:g} and {gpu:g} "
            f"{what}; lower resources, or use a profile for this machine"
        )
    return fits


def _fits(have: dict[str, Any], resources: ResourcesSection) -> int:
    """Return how many trials the resources hold."""
    fits = int(float(have.get("CPU", 0)) / resources.cpu + 1e-9)
    if resources.gpu:
        fits = min(fits, int(float(have.get("GPU", 0)) / resources.gpu + 1e-9))
    return fits


def planned_workers(path: Path) -> list[dict[str, Any]]:
    """Return the resources of every worker that a cluster file allows, the types with most GPUs and cores first.

    Args:
        path: The file; where there is none, the cluster does not grow.
    """
    if not path.is_file():
        return []
    document = yaml.safe_load(path.read_text())
    kinds = [kind for name, kind in document["available_node_types"].items() if name != document["head_node_type"]]
    kinds.sort(key=lambda kind: (kind["resources"].get("GPU", 0), kind["resources"].get("CPU", 0)), reverse=True)
    most = document["max_workers"]
    nodes = [kind["resources"] for kind in kinds for _ in range(kind.get("max_workers", most))]
    return nodes[:most]
