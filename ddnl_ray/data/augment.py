"""What an augmentation is, the pipeline of the IDC lineage, and one draw per class.

Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022 (arXiv 2205.14959; authors'
code: snu-mllab/Efficient-Dataset-Condensation); Acc-DD and DANCE use the same. Where DSA draws one operation, this
pipeline always flips and colours, moves the image in one of three ways, and always cuts out.

Differs from the original:
    - every stage is a :class:`Dsa`, with its strengths: the two lineages have the same ranges;
    - a draw is a record, applied to any number of batches (there the batches are concatenated before the call);
    - normalisation is not part of it: images come as the network sees them, and vacated pixels become 0 in that space,
      as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ddnl_ray.data.dsa import OPERATIONS, Dsa, DsaDraw
from ddnl_ray.data.each import Each, EachDraw
from ddnl_ray.errors import RequestError

PIPELINE = "diffaug:"
"""What a strategy of the IDC lineage begins with; one of the DC lineage begins with an operation."""
EACH = "each:"
"""What a strategy of the kernel methods begins with."""
_CHOSEN = ("crop", "scale", "rotate")

Draw: TypeAlias = DsaDraw | tuple[DsaDraw, ...] | EachDraw


class Augment(Protocol):
    """A differentiable augmentation whose randomness is an argument."""

    def draw(
        self, generator: torch.Generator, num: int, size: int, device: torch.device | str, siamese: bool = False
    ) -> Draw:
        """Draw operations and parameters for a batch; how many numbers that takes does not depend on what is drawn.

        Args:
            generator: Source of randomness.
            num: Images in the batch.
            size: Height (= width) of the images in pixels.
            device: Where the images are.
            siamese: Whether all images share one parameter set; such a draw fits a batch of any length.
        """

    def apply(self, images: Tensor, draw: Any) -> Tensor:
        """Return the augmented images [N, C, H, H]; differentiable with respect to them, never clamped.

        Args:
            images: [N, C, H, H] floating point, as the network sees them.
            draw: From :meth:`draw` of the same augmentation, for N images or siamese, for this H.
        """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for this batch and apply: what training a network needs."""


@dataclass(frozen=True)
class DiffAug:
    """The pipeline: flip, colour, one of crop, scale and rotation, cutout, of those that the strategy lists.

    Attributes:
        strategy: Operations joined by ``_``; their order says nothing.
    """

    strategy: str

    def __post_init__(self) -> None:
        """Check the strategy.

        Raises:
            RequestError: An operation is unknown or named twice, or there is none.
        """
        Dsa(self.strategy)

    @cached_property
    def stages(self) -> tuple[Dsa, ...]:
        """The stages in the order in which they are applied; one with several operations chooses one, uniformly."""
        listed = self.strategy.split("_")
        groups = (("flip",), ("color",), _CHOSEN, ("cutout",))
        chosen = ("_".join(op for op in group if op in listed) for group in groups)
        return tuple(Dsa(strategy) for strategy in chosen if strategy)

    def draw(
        self, generator: torch.Generator, num: int, size: int, device: torch.device | str, siamese: bool = False
    ) -> tuple[DsaDraw, ...]:
        """Draw every stage, in order (see :meth:`Augment.draw`)."""
        return tuple(stage.draw(generator, num, size, device, siamese) for stage in self.stages)

    def apply(self, images: Tensor, draw: tuple[DsaDraw, ...]) -> Tensor:
        """Return the augmented images (see :meth:`Augment.apply`).

        Raises:
            ValueError: The draw is for another number of images or of stages.
        """
        for stage, own in zip(self.stages, draw, strict=True):
            images = stage.apply(images, own)
        return images

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for this batch and apply."""
        return self.apply(images, self.draw(generator, len(images), images.shape[-1], images.device))


def augmentation(strategy: str | None) -> Augment | None:
    """Return the augmentation that a recipe names; None: none.

    Args:
        strategy: ``color_crop_flip``: :class:`Dsa`. ``diffaug:color_crop_flip``: :class:`DiffAug`.
            ``each:color_crop_flip``: :class:`ddnl_ray.data.each.Each`.

    Raises:
        RequestError: The strategy has neither form.
    """
    if strategy is None:
        return None
    try:
        if strategy.startswith(PIPELINE):
            return DiffAug(strategy.removeprefix(PIPELINE))
        if strategy.startswith(EACH):
            return Each(strategy.removeprefix(EACH))
        return Dsa(strategy)
    except RequestError as error:
        example = "_".join(OPERATIONS[:2])
        raise RequestError(
            f"augmentation {strategy!r}: {error}; known forms: null, operations joined by '_' as in {example!r} "
            f"(one of them a batch), {PIPELINE + example!r} (all of them, in the IDC order), and "
            f"{EACH + example!r} (one of them an image)"
        ) from error


def draw_classes(
    augment: Augment, generator: torch.Generator, num_classes: int, size: int, device: torch.device | str
) -> list[Draw]:
    """Return one siamese draw per class, for the real and the synthetic images of that class.

    Args:
        augment: The augmentation.
        generator: Source of randomness.
        num_classes: Number of classes.
        size: Height (= width) of the images in pixels.
        device: Where the images are.
    """
    return [augment.draw(generator, 1, size, device, siamese=True) for _ in range(num_classes)]


def apply_classes(augment: Augment, images: Tensor, counts: Sequence[int], draws: Sequence[Draw]) -> Tensor:
    """Return the images, those of every class augmented with the class's own draw.

    On a CPU class by class: one set of parameters for many images is cheaper there than as many sets, and there are no
    launches to save.

    Args:
        augment: The augmentation, :class:`Dsa` or :class:`DiffAug`.
        images: [sum(counts), C, H, H], class by class; the result is differentiable with respect to them.
        counts: Images of every class.
        draws: The siamese draw of every class, from :func:`draw_classes`.

    Raises:
        ValueError: There is not one draw per class, or the counts do not add up to the images.
    """
    if len(counts) != len(draws) or sum(counts) != len(images):
        raise ValueError(
            f"{len(counts)} classes of {sum(counts)} images need as many draws and images, but got {len(draws)} draws "
            f"and {len(images)} images"
        )
    if images.device.type == "cpu":
        parts = zip(images.split(list(counts)), draws, strict=True)
        return torch.cat([augment.apply(part, draw) for part, draw in parts])
    return apply_grouped(augment, images, counts, draws)


def apply_grouped(augment: Augment, images: Tensor, counts: Sequence[int], draws: Sequence[Draw]) -> Tensor:
    """Return what :func:`apply_classes` does; classes for which the same operation was drawn go through together."""
    stages: tuple[Augment, ...] = augment.stages if isinstance(augment, DiffAug) else (augment,)
    steps: list[Any] = [draw if isinstance(draw, tuple) else (draw,) for draw in draws]
    for number, stage in enumerate(stages):
        images = _apply_stage(stage, images, counts, [own[number] for own in steps])
    return images


def _apply_stage(stage: Augment, images: Tensor, counts: Sequence[int], draws: Sequence[DsaDraw]) -> Tensor:
    """Apply one operation per class."""
    groups: dict[str, list[int]] = {}
    for label, draw in enumerate(draws):
        groups.setdefault(draw.op, []).append(label)
    if len(groups) == 1:
        return stage.apply(images, _per_image(draws, counts))
    pieces = list(images.split(list(counts)))
    for labels in groups.values():
        sizes = [counts[label] for label in labels]
        draw = _per_image([draws[label] for label in labels], sizes)
        found = stage.apply(torch.cat([pieces[label] for label in labels]), draw)
        for label, piece in zip(labels, found.split(sizes), strict=True):
            pieces[label] = piece
    return torch.cat(pieces)


def _per_image(draws: Sequence[DsaDraw], counts: Sequence[int]) -> DsaDraw:
    """Return the parameters of classes with one operation as those of their images, [3, sum(counts)]."""
    values = torch.cat([draw.values for draw in draws], dim=1)
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return DsaDraw(draws[0].op, values[:, owner.to(values.device, non_blocking=True)])
