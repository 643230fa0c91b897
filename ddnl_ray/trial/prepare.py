"""Making what a trial needs before it distils: in this process, from and into the store."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddnl_ray.data import PreparedData
from ddnl_ray.distill import METHODS
from ddnl_ray.experts import ArrayExperts, BufferId, ExpertStore, groups, training_labels
from ddnl_ray.files import write_atomic
from ddnl_ray.noise import NoisyLabels
from ddnl_ray.robust import (
    Inputs,
    Preparation,
    Setting,
    build_buffer,
    compose,
    describe_trust,
    golden_sets,
    prepare,
    trusted,
)
from ddnl_ray.trial.config import Options, TrialConfig, TrialInputs
from ddnl_ray.trial.outcomes import as_outcome
from ddnl_ray.trial.rows import shared_columns
from ddnl_ray.trial.run import run_trial


@dataclass(frozen=True)
class Need:
    """What is read of a buffer.

    Attributes:
        buffer: Which one.
        num_experts: How many experts.
        last_epoch: The last epoch that matching reads.
        finals: The final epochs that are read beside those.
    """

    buffer: BufferId
    num_experts: int
    last_epoch: int
    finals: frozenset[int]

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that are read, ascending."""
        return tuple(sorted({*range(self.last_epoch + 1), *self.finals}))

    @property
    def train_to(self) -> int:
        """The epoch up to which experts are trained: the last that is read."""
        return self.epochs[-1]

    def groups(self, store: ExpertStore, at_once: int) -> list[list[int]]:
        """Return the experts that are to be trained, in groups that train together."""
        return groups(dict(enumerate(store.reach(self.buffer.key, self.num_experts))), self.train_to, at_once)


def preparation_of(config: TrialConfig, data: PreparedData, labels: NoisyLabels) -> Preparation | None:
    """Return what a trial needs; None: neither experts nor anything else."""
    if config.experts is None and config.cleaner is None:
        return None
    return prepare(
        Setting(
            data=data.fingerprint,
            labels=labels.select(data.train_index.cpu()).sha256,
            num_classes=data.num_classes,
            method=config.method,
            params=config.params,
            experts=config.experts,
            num_experts=config.num_experts,
            seed=config.expert_seed,
            dtype=config.expert_dtype,
            augment=config.augment,
            extractor=config.extractor,
            anchor_params=config.anchor_params,
            cleaner=config.cleaner,
        )
    )


def needs_of(config: TrialConfig, preparation: Preparation, **highest: int) -> list[Need]:
    """Return what is read of the experts, where there are any, and of the second targets.

    Args:
        config: The trial.
        preparation: What it needs.
        highest: Hyper-parameters that reach further than the trial's own (``max_start_epoch``, ``expert_epochs``).
    """
    if preparation.experts is None:
        return []
    composition = compose(config.method)
    settings = composition.settings({**config.params, **highest}).base
    reads_final = METHODS[composition.base].method.reads_final or preparation.reads_final
    finals = frozenset({preparation.experts.recipe.epochs} if reads_final else ())
    needs = [Need(preparation.experts, config.num_experts, settings.last_epoch, finals)]
    if preparation.targets is not None:
        needs.append(Need(preparation.targets, config.num_experts, settings.max_start_epoch - 1, frozenset()))
    return needs


def description(config: TrialConfig) -> dict[str, Any]:
    """Return what is said of a trial's buffers beside their identity."""
    return {"dataset": config.dataset, "noise": config.noise.slug(), "noise_seed": config.noise_seed}


def make_inputs(
    config: TrialConfig,
    data: PreparedData,
    labels: NoisyLabels,
    store: ExpertStore,
    at_once: int = 1,
    on_experts: Callable[[int, int], None] = lambda done, total: None,
) -> TrialInputs:
    """Make what a trial needs and the store lacks, and return its inputs.

    Args:
        config: The trial.
        data: Prepared data, on the device that works.
        labels: Observed labels of the whole training set.
        store: Experts, and what is derived.
        at_once: How many experts train together.
        on_experts: Told how many experts (and targets) are there, of how many.

    Raises:
        RequestError: Something cannot be made with these settings.
        CorruptFileError: Something stored is corrupt.
    """
    preparation = preparation_of(config, data, labels)
    if preparation is None:
        return TrialInputs(data, labels)
    observed = training_labels(data, labels)
    inputs = Inputs(data, observed, store)
    needs = needs_of(config, preparation)
    total = sum(need.num_experts for need in needs)
    done = total - sum(len(store.missing(need.buffer.key, need.num_experts, need.train_to)) for need in needs)
    if total:
        on_experts(done, total)
    by_key = {need.buffer.key: need for need in needs}
    for stage, buffer in preparation.stages:
        for derived in stage:
            derived.build(inputs)
        if buffer is None:
            continue
        need = by_key[buffer.key]
        store.describe(need.buffer, description(config))
        store.touch(need.buffer.key)
        for group in need.groups(store, at_once):
            build_buffer(data, labels, need.buffer, group, need.train_to, store)
            done += len(group)
            on_experts(done, total)
    views = [_read(store, need) for need in needs]
    return TrialInputs(
        data,
        labels,
        experts=views[0] if views else None,
        expert_key=needs[0].buffer.key if needs else None,
        trusted=trusted(preparation, observed, store.root),
        targets=views[1] if len(views) > 1 else None,
        golden=golden_sets(preparation, store.root, observed.device),
        trust=trust_of(preparation, data, labels, store),
    )


def prepare_and_run(
    config: TrialConfig,
    data: PreparedData,
    labels: NoisyLabels,
    store: ExpertStore,
    folder: Path,
    options: Options,
    at_once: int = 1,
) -> list[dict[str, Any]]:
    """Make what a trial needs (see :func:`make_inputs`), run it, and return its rows.

    An error while that is made becomes a row with its outcome and a sentence, as one of the trial does.
    """
    started = time.monotonic()
    try:
        inputs = make_inputs(config, data, labels, store, at_once)
    except Exception as error:
        log = folder / "error.log"
        write_atomic(log, traceback.format_exc().encode())
        row = shared_columns(config, TrialInputs(data, labels), options)
        return [{**row, "wall_s": time.monotonic() - started, **as_outcome(error, log)}]
    return run_trial(config, inputs, folder, options)


def trust_of(
    preparation: Preparation, data: PreparedData, labels: NoisyLabels, store: ExpertStore
) -> dict[str, Any] | None:
    """Return how right the decisions of a preparation are (see :func:`describe_trust`)."""
    own = labels.select(data.train_index.cpu())
    return describe_trust(preparation, own.clean, own.labels, store.root)


def _read(store: ExpertStore, need: Need) -> ArrayExperts:
    arrays = [store.load(need.buffer.key, index, need.epochs) for index in range(need.num_experts)]
    return ArrayExperts(arrays, need.epochs, need.buffer.recipe.epochs, need.buffer.dtype)
