"""Making what the store lacks of experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from ddnl_ray.data import PreparedData
from ddnl_ray.experts.identity import BufferId
from ddnl_ray.experts.store import ExpertStore
from ddnl_ray.experts.train import train_experts
from ddnl_ray.noise import NoisyLabels


def groups(reach: Mapping[int, int], last_epoch: int, at_once: int) -> list[list[int]]:
    """Return which experts train together: those that do not reach ``last_epoch``, with others as far as they are.

    Args:
        reach: The last epoch that is stored of every expert, by its index; -1: none is.
        last_epoch: The last snapshot that is needed.
        at_once: How many train together at most.
    """
    by_epoch: dict[int, list[int]] = {}
    for index, epoch in reach.items():
        if epoch < last_epoch:
            by_epoch.setdefault(epoch, []).append(index)
    return [own[first : first + at_once] for own in by_epoch.values() for first in range(0, len(own), at_once)]


def training_labels(data: PreparedData, labels: NoisyLabels) -> Tensor:
    """Return the observed labels of the training part, int64 [N], on the device of its images."""
    return labels.labels[data.train_index.cpu()].to(data.train_images.device)


def build_experts(
    data: PreparedData,
    labels: NoisyLabels,
    buffer: BufferId,
    indices: Sequence[int],
    last_epoch: int,
    store: ExpertStore,
) -> None:
    """Train experts of a buffer, together, from where the store has them to ``last_epoch``, and store what is new.

    Those that another process has brought further in the meantime train in a group of their own.

    Args:
        data: Prepared data, on the device that trains.
        labels: Observed labels of the whole training set.
        buffer: The buffer.
        indices: Which experts.
        last_epoch: The last snapshot that is needed.
        store: Where they go.

    Raises:
        RequestError: Training diverged, or the device cannot compute in the recipe's precision.
        CorruptFileError: The state from which training would go on is damaged.
    """
    ends = {index: store.end(buffer.key, index) for index in indices}
    reach = {index: -1 if end is None else end.epoch for index, end in ends.items()}
    own = training_labels(data, labels)
    policy = buffer.policy.open(store.root, data.train_images, own) if buffer.policy is not None else None
    recipe = dataclasses.replace(buffer.recipe, epochs=last_epoch)
    for group in groups(reach, last_epoch, len(indices)):
        seeds = [buffer.seeds(index) for index in group]
        starts = [end for index in group if (end := ends[index]) is not None] or None
        trained = train_experts(data.train_images, own, data.num_classes, recipe, seeds, starts, policy, group)
        for index, trajectory in zip(group, trained, strict=True):
            store.save(buffer, index, trajectory)
