"""What runs on a worker: some experts, or one trial, from references to shared data."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from ddnl_ray.data import PreparedData
from ddnl_ray.experts import BufferId, ExpertStore, build_experts
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.sweep.shared import SharedExperts
from ddnl_ray.sweep.studies import Job
from ddnl_ray.trial import TrialInputs, run_trial


@dataclass(frozen=True)
class SharedData:
    """Prepared data in the object store.

    Attributes:
        arrays: Reference to its arrays.
        meta: What the arrays leave out.
    """

    arrays: Any
    meta: dict[str, Any]


@dataclass(frozen=True)
class Payload:
    """A trial as it travels: names and references, no arrays.

    Attributes:
        run: The run folder.
        sweep: The sweep file.
        job: The trial.
        data: Its prepared data.
        labels: Reference to its noisy labels.
        experts: Its experts, where it needs them.
        expert_key: Their buffer's name.
    """

    run: str
    sweep: SweepFile
    job: Job
    data: SharedData
    labels: Any
    experts: SharedExperts | None
    expert_key: str | None


def run_payload(config: dict[str, Any]) -> None:
    """Run one trial, record it in the ledger and tell Tune (a Tune trainable)."""
    payload: Payload = config["payload"]
    sweep, job = payload.sweep, payload.job
    ledger = Ledger(Path(payload.run))
    device = prepare_process(sweep.resources.cpu, sweep.resources.gpu)
    data = shared_data(payload.data, device)
    labels: NoisyLabels = ray.get(payload.labels)
    inputs = TrialInputs(data, labels, payload.experts, payload.expert_key)
    rows = run_trial(job.config, inputs, ledger.run / "trials" / job.trial, trial_options(sweep, job))
    finished = ledger.publish(job.trial, rows, sweep.search.select_on)
    release_memory()
    tune.report({"value": finished.value if finished.value is not None else 0.0})


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def run_experts(
    arrays: Any,
    meta: dict[str, Any],
    labels: NoisyLabels,
    buffer: BufferId,
    indices: list[int],
    last_epoch: int,
    root: str,
    cpu: float,
    gpu: float,
) -> None:
    """Train experts of a buffer together, up to an epoch, into the store."""
    device = prepare_process(cpu, gpu)
    build_experts(_views(arrays, meta).to(device), labels, buffer, indices, last_epoch, ExpertStore(Path(root)))


def prepare_process(cpu: float, gpu: float) -> torch.device:
    """Set up a worker process that may have run something else before; return its device."""
    torch.set_num_threads(max(1, int(cpu)))
    torch.set_grad_enabled(True)
    if gpu > 0:
        torch.cuda.reset_peak_memory_stats()
        return torch.device("cuda")
    return torch.device("cpu")


def release_memory() -> None:
    """Give freed memory back before the next trial.

    Tune runs every trial of a worker in a thread of its own, and the C library keeps what each thread has freed:
    without this, a worker grew by about a gigabyte per trial.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


_ON_DEVICE: dict[tuple[str, str], PreparedData] = {}


def shared_data(data: SharedData, device: torch.device) -> PreparedData:
    """Return prepared data on the device, kept from trial to trial of the same worker."""
    key = str(data.meta["fingerprint"]), str(device)
    if key not in _ON_DEVICE:
        _ON_DEVICE.clear()
        _ON_DEVICE[key] = _views(ray.get(data.arrays), data.meta).to(device)
    return _ON_DEVICE[key]


def _views(arrays: Any, meta: dict[str, Any]) -> PreparedData:
    """Return tensors over shared arrays that refuse to be written to."""
    with torch.inference_mode():
        return PreparedData.from_arrays(arrays, meta)
