"""Making the experts of a buffer that the store lacks."""

from __future__ import annotations

from ddnl_ray.data import PreparedData
from ddnl_ray.experts.store import BufferId, ExpertStore
from ddnl_ray.experts.train import train_expert
from ddnl_ray.noise import NoisyLabels


def build_expert(data: PreparedData, labels: NoisyLabels, buffer: BufferId, index: int, store: ExpertStore) -> None:
    """Train one expert of a buffer and store it.

    Args:
        data: Prepared data, on the device that trains.
        labels: Observed labels of the whole training set.
        buffer: The buffer.
        index: Which expert.
        store: Where it goes.
    """
    own = labels.labels[data.train_index.cpu()].to(data.train_images.device)
    seed = buffer.seeds(index)
    store.save(buffer, index, train_expert(data.train_images, own, data.num_classes, buffer.recipe, seed))
