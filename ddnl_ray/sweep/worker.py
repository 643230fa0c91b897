"""What runs on a worker: some experts, or one trial, from references to shared data."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import tune

from ddnl_ray.data import PreparedData
from ddnl_ray.experts import BufferId, ExpertStore, training_labels
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.robust import Derived, Inputs, Preparation, bring, build_buffer, golden_sets, trusted
from ddnl_ray.storage import open_folder
from ddnl_ray.sweep.ledger import Ledger
from ddnl_ray.sweep.options import trial_options
from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.sweep.shared import SharedExperts
from ddnl_ray.sweep.studies import Job
from ddnl_ray.trial import TrialInputs, run_trial
from ddnl_ray.trial.prepare import prepare_and_run, trust_of

LOSSES = 20
"""How often a task is started again whose process or node died: spot machines go often, and it goes on."""


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
class Prepared:
    """What was made for a trial.

    Attributes:
        preparation: What it is.
        experts: Its experts, or None.
        targets: Its second targets, or None.
    """

    preparation: Preparation
    experts: SharedExperts | None
    targets: SharedExperts | None


@dataclass(frozen=True)
class Payload:
    """A trial as it travels: names and references, no arrays.

    Attributes:
        run: The address of the run folder.
        store: The address of the store of experts and derived things; every node can read it.
        sweep: The sweep file.
        job: The trial.
        deadline: When the sweep's time budget ends, in seconds since 1970.
        data: Its prepared data.
        labels: Reference to its noisy labels.
        prepared: What was made for it; None: the trial needs nothing, or makes it itself.
    """

    run: str
    store: str
    sweep: SweepFile
    job: Job
    deadline: float
    data: SharedData
    labels: Any
    prepared: Prepared | None


def run_payload(config: dict[str, Any]) -> None:
    """Run one trial, record it in the ledger and tell Tune (a Tune trainable)."""
    payload: Payload = config["payload"]
    sweep, job = payload.sweep, payload.job
    device = prepare_process(sweep.resources.cpu, sweep.resources.gpu)
    data = shared_data(payload.data, device)
    labels: NoisyLabels = ray.get(payload.labels)
    store = ExpertStore.at(payload.store)
    with open_folder(payload.run, "work").private() as run:
        ledger = Ledger(run)
        folder, options = ledger.start(job.trial), trial_options(sweep, job, ledger, payload.deadline)
        if payload.prepared is None:
            at_once = sweep.experts.group_size(on_gpu=device.type == "cuda")
            rows = prepare_and_run(job.config, data, labels, store, folder, options, at_once)
        else:
            rows = run_trial(job.config, _inputs(payload.prepared, data, labels, store), folder, options)
        finished = ledger.publish(job.trial, rows, sweep.search.select_on)
    release_memory()
    tune.report({"value": finished.value if finished.value is not None else 0.0})


def _inputs(prepared: Prepared, data: PreparedData, labels: NoisyLabels, store: ExpertStore) -> TrialInputs:
    """Return the inputs of a trial whose preparation was made before."""
    observed = training_labels(data, labels)
    preparation = prepared.preparation
    bring(preparation, store)
    return TrialInputs(
        data,
        labels,
        experts=prepared.experts,
        expert_key=preparation.experts.key if preparation.experts is not None else None,
        trusted=trusted(preparation, observed, store.root),
        targets=prepared.targets,
        golden=golden_sets(preparation, store.root, observed.device),
        trust=trust_of(preparation, data, labels, store),
    )


@ray.remote(max_retries=LOSSES)  # type: ignore[untyped-decorator]
def run_derived(
    arrays: Any,
    meta: dict[str, Any],
    labels: NoisyLabels,
    derived: Derived,
    root: str,
    cpu: float,
    gpu: float,
    *after: None,
) -> None:
    """Make something derived, into the store, when what comes before it has ended."""
    device = prepare_process(cpu, gpu)
    data = _views(arrays, meta).to(device)
    observed = training_labels(data, labels)
    derived.build(Inputs(data, observed, ExpertStore.at(root)))


@ray.remote(max_retries=LOSSES)  # type: ignore[untyped-decorator]
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
    *after: None,
) -> None:
    """Train experts of a buffer together, up to an epoch, into the store, when what comes before them has ended."""
    device = prepare_process(cpu, gpu)
    build_buffer(_views(arrays, meta).to(device), labels, buffer, indices, last_epoch, ExpertStore.at(root))


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
