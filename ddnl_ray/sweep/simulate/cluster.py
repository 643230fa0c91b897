"""The cluster that is modelled, as the user describes it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ddnl_ray.errors import RequestError, nearest


class Cluster(BaseModel):
    """A modelled cluster; times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: int = Field(default=8, ge=0)
    """GPUs of all nodes; 0: the nodes have cores alone."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs of a node; fewer where there are fewer in all."""
    nodes: int | None = Field(default=None, ge=1)
    """How many nodes; absent: as many as the GPUs need."""
    cpus_per_node: float = Field(default=64, gt=0)
    """Cores of a node."""
    trial_s: float | dict[str, float] | None = None
    """Median duration of a trial: one for all, or by ``method``, ``method ipc N`` and ``default``."""
    trial_sigma: float = Field(default=0.2, ge=0)
    """Standard deviation of the logarithm of the durations."""
    expert_epoch_s: float | None = Field(default=None, gt=0)
    """An epoch of a group of experts that train together."""
    derived_s: float = Field(default=600, gt=0)
    """Making an extractor, scores, labels or a subset."""
    preempt_per_hour: float = Field(default=0, ge=0)
    """How often a node is taken away per hour of its running (Poisson)."""
    return_s: float = Field(default=300, ge=0)
    """How long until a node that was taken away can be had again."""
    start_s: float = Field(default=0, ge=0)
    """How long a node takes to start; it is paid for."""
    autoscale: bool = False
    """Whether nodes start when they are needed and stop when they are idle; else all run until the end."""
    idle_s: float = Field(default=300, ge=0)
    """How long a node is idle before it is stopped."""
    diverge: float = Field(default=0, ge=0, le=1)
    """Share of the trials that diverge."""
    oom: float = Field(default=0, ge=0, le=1)
    """Share of the trials that run out of memory."""
    price: float | None = Field(default=None, ge=0)
    """Of an hour of a GPU, or of a core where trials take no GPU."""
    seed: int = Field(default=0, ge=0)
    """Of everything that is drawn."""

    @model_validator(mode="after")
    def _consistent(self) -> Cluster:
        if self.gpus % min(self.gpus_per_node, self.gpus or 1):
            raise ValueError(f"gpus must be a multiple of gpus_per_node ({self.gpus_per_node}), but got {self.gpus}")
        if self.nodes is not None and self.gpus % self.nodes:
            raise ValueError(f"gpus must be a multiple of nodes ({self.nodes}), but got {self.gpus}")
        if self.diverge + self.oom > 1:
            raise ValueError(f"diverge and oom are shares of the same trials, but sum to {self.diverge + self.oom:g}")
        durations = self.trial_s.values() if isinstance(self.trial_s, dict) else [self.trial_s or 1.0]
        if not all(math.isfinite(value) and value > 0 for value in durations):
            raise ValueError(f"trial_s must be above 0, but got {self.trial_s}")
        return self

    @property
    def num_nodes(self) -> int:
        """How many nodes there are at most."""
        return self.nodes or max(1, self.gpus // min(self.gpus_per_node, self.gpus or 1))


def read_cluster(text: str) -> Cluster:
    """Read a cluster from a YAML file, or from ``key=value`` pairs with commas between.

    Raises:
        RequestError: A key or a value is wrong.
    """
    if "=" in text:
        document: Any = {}
        for pair in text.split(","):
            key, _, value = pair.partition("=")
            document[key.strip()] = yaml.safe_load(value)
    else:
        path = Path(text)
        if not path.is_file():
            raise RequestError(f"--cluster: {text} is no file; give one, or pairs such as gpus=64,preempt_per_hour=0.2")
        try:
            document = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(document, dict):
            raise RequestError(f"{path} must hold a mapping with the keys {', '.join(Cluster.model_fields)}")
    try:
        return Cluster.model_validate(document)
    except ValidationError as error:
        raise RequestError("\n".join(_explain(item) for item in error.errors())) from error


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"] if part not in ("float", "dict[str,float]"))
    if item["type"] == "extra_forbidden":
        return f"cluster: unknown key {key!r}: {nearest(key, Cluster.model_fields)}"
    if item["type"] == "value_error":
        return f"cluster: {item['msg'].removeprefix('Value error, ')}"
    return f"cluster: {key}: {item['msg']}, but got {item['input']!r}"
