"""The batches of experts that train in lock-step, each expert's from its own lesson and generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.data import Augment, CutMix
from ddnl_ray.experts.policy import Lesson, order_of


@dataclass(frozen=True)
class Batch:
    """One step's images of every expert.

    Attributes:
        images: Augmented, and mixed where CutMix was drawn [E, B, C, H, W].
        labels: int64 [E, B].
        weights: Weight of every image, for its label, in the mean loss [E, B]; None: all 1.
        own: Weight of these labels in the loss of every expert [E]; None: 1, nothing is mixed.
        labels_other: The labels that have the rest, of the images that the boxes are from, int64 [E, B]; None: there
            are none.
        weights_other: Weights of those images for those labels [E, B]; None: all 1, or there are none.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor | None
    own: Tensor | None = None
    labels_other: Tensor | None = None
    weights_other: Tensor | None = None

    def part(self, rows: slice) -> dict[str, Tensor]:
        """Return some of every expert's images and what belongs to them, by name; what is None is left out."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value if name == "own" else value[:, rows] for name, value in given.items()}


def batches(
    images: Tensor,
    lessons: Sequence[Lesson],
    size: int,
    augment: Augment | None,
    mixing: CutMix | None,
    generators: Sequence[torch.Generator],
) -> Iterator[Batch]:
    """Yield the batches of one epoch.

    Args:
        images: Training images [N, C, H, W].
        lessons: What each expert learns from.
        size: Images per step.
        augment: The augmentation, or None.
        mixing: The mixing that follows it, or None.
        generators: One per expert; it gives the order, and for each batch the augmentation and then the mixing.
    """
    pairs = zip(lessons, generators, strict=True)
    orders = [order_of(lesson, len(images), generator).to(images.device) for lesson, generator in pairs]
    for indices in zip(*(order.split(size) for order in orders), strict=True):
        rows = list(zip(lessons, indices, strict=True))
        batch = [images[index] for index in indices]
        if augment is not None:
            draws = (
                augment.draw(each, len(x), x.shape[2], x.device) for each, x in zip(generators, batch, strict=True)
            )
            batch = [augment.apply(x, draw) for x, draw in zip(batch, draws, strict=True)]
        labels = [lesson.labels[index] for lesson, index in rows]
        weights = [lesson.weights[index] for lesson, index in rows if lesson.weights is not None]
        assert len(weights) in (0, len(rows))
        plain = Batch(torch.stack(batch), torch.stack(labels), torch.stack(weights) if weights else None)
        yield plain if mixing is None else _mixed(plain, mixing, generators)


def _mixed(batch: Batch, mixing: CutMix, generators: Sequence[torch.Generator]) -> Batch:
    """Return the batch in which the images of each expert are mixed, where its own draw says so."""
    num, size, device = batch.labels.shape[1], batch.images.shape[-1], batch.images.device
    draws = [mixing.draw(generator, num, size, device) for generator in generators]
    if all(draw is None for draw in draws):
        return batch
    pairs = list(zip(batch.images, draws, strict=True))
    still = torch.arange(num, device=device)
    order = torch.stack([still if draw is None else draw.order for draw in draws])
    own = torch.tensor([1.0 if draw is None else draw.own for draw in draws], dtype=batch.images.dtype, device=device)
    return Batch(
        torch.stack([x if draw is None else mixing.apply(x, draw) for x, draw in pairs]),
        batch.labels,
        batch.weights,
        own,
        batch.labels.gather(1, order),
        None if batch.weights is None else batch.weights.gather(1, order),
    )
