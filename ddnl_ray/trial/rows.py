"""One row of the result table, filled with what all rows of a trial share."""

from __future__ import annotations

import resource
from datetime import UTC, datetime
from typing import Any

import torch

from ddnl_ray import __version__
from ddnl_ray.files import canonical
from ddnl_ray.results import FORMAT_VERSION
from ddnl_ray.robust import compose
from ddnl_ray.trial.config import Options, TrialConfig, TrialInputs


def shared_columns(config: TrialConfig, inputs: TrialInputs, options: Options) -> dict[str, Any]:
    """Return the columns of :data:`ddnl_ray.results.SCHEMA` that all rows of a trial have in common.

    Natural noise takes the published name of the data set (``cifar10n``). Noise without a nominal rate (natural, or
    drawn from a matrix) has the realised one.
    """
    composition = compose(config.method)
    device, natural = inputs.data.train_images.device, config.noise.kind == "natural"
    realised = inputs.labels.rate_realised
    rate = 0.0 if config.noise.kind == "none" else config.noise.rate
    return {
        "run": options.run,
        "cell": options.cell,
        "trial": options.trial,
        "dataset": f"{config.dataset}n" if natural else config.dataset,
        "noise": config.noise.kind,
        "noise_rate": rate if rate is not None else realised,
        "noise_rate_realised": realised,
        "label_set": config.noise.labels,
        "noise_seed": config.noise_seed,
        "base_method": composition.base,
        "variant": composition.variant,
        "ipc": config.ipc,
        "backbone": config.network.name,
        "seed": config.seed,
        "is_final": False,
        "is_selected": False,
        "params": canonical(config.params),
        "peak_memory_bytes": peak_memory(device),
        "device": device_name(device),
        "config_hash": config.hash,
        "expert_key": inputs.expert_key,
        "code_version": __version__,
        "format_version": FORMAT_VERSION,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: torch.device) -> str:
    """Return the device in words, for provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"
