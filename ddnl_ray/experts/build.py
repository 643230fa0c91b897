"""Making what the store lacks of an expert."""

from __future__ import annotations

import dataclasses

from ddnl_ray.data import PreparedData
from ddnl_ray.experts.store import BufferId, ExpertStore
from ddnl_ray.experts.train import train_expert
from ddnl_ray.noise import NoisyLabels


def build_expert(
    data: PreparedData, labels: NoisyLabels, buffer: BufferId, index: int, last_epoch: int, store: ExpertStore
) -> None:
    """Train one expert of a buffer from where the store has it to ``last_epoch``, and store what is new.

    Args:
        data: Prepared data, on the device that trains.
        labels: Observed labels of the whole training set.
        buffer: The buffer.
        index: Which expert.
        last_epoch: The last snapshot that is needed.
        store: Where it goes.

    Raises:
        RequestError: Training diverged.
        CorruptFileError: The state from which training would go on is damaged.
    """
    start = store.end(buffer.key, index)
    if start is not None and start.epoch >= last_epoch:
        return
    own = labels.labels[data.train_index.cpu()].to(data.train_images.device)
    recipe = dataclasses.replace(buffer.recipe, epochs=last_epoch)
    seed = buffer.seeds(index)
    store.save(buffer, index, train_expert(data.train_images, own, data.num_classes, recipe, seed, start))
