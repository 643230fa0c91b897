"""CutMix: a box of every image is taken from another image of the batch, and the labels are mixed by area.

Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019 (arXiv
1905.04899), as the IDC lineage uses it: with a probability per batch, one box for the whole batch, lambda ~ Beta(1, 1).

Differs from the original:
    - the randomness is an argument, and how many numbers a batch takes does not depend on whether it is mixed;
    - the side of the box is even, as in the authors' code, since it is half a side to either side of the centre;
    - a batch that is not mixed has no loss of its own (the paper mixes every batch; the probability is IDC's).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError


@dataclass(frozen=True)
class CutMixDraw:
    """What is put where in one batch.

    Attributes:
        order: Image i gets the box of image ``order[i]``, int64 [n], on the device of the images.
        rows: First row of the box, and the row after its last.
        columns: First column of the box, and the column after its last.
        own: Weight of an image's own label in the loss: 1 less the share of the box in the image. The label of image
            ``order[i]`` has the rest.
    """

    order: Tensor
    rows: tuple[int, int]
    columns: tuple[int, int]
    own: float


@dataclass(frozen=True)
class CutMix:
    """The mixing.

    Attributes:
        probability: With which a batch is mixed, in [0, 1].
    """

    probability: float

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.probability <= 1:
            raise RequestError(
                f"cutmix is a probability and must lie in [0, 1], but got {self.probability}; published: 0.5"
            )

    def draw(self, generator: torch.Generator, num: int, size: int, device: torch.device | str) -> CutMixDraw | None:
        """Draw the box and the partners of a batch; None: this batch is not mixed.

        Args:
            generator: Source of randomness.
            num: Images in the batch.
            size: Height (= width) of the images in pixels.
            device: Where the images are.
        """
        uniform = torch.rand(4, generator=generator, device=generator.device, dtype=torch.float64).tolist()
        order = torch.randperm(num, generator=generator, device=generator.device)
        if not uniform[0] < self.probability:
            return None
        half = int(size * math.sqrt(1 - uniform[1]) / 2)
        rows, columns = (
            (max(centre - half, 0), min(centre + half, size)) for centre in (int(u * size) for u in uniform[2:])
        )
        area = (rows[1] - rows[0]) * (columns[1] - columns[0])
        return CutMixDraw(order.to(device, non_blocking=True), rows, columns, 1 - area / size**2)

    def apply(self, images: Tensor, draw: CutMixDraw) -> Tensor:
        """Return the mixed images; the given ones are left as they are.

        Args:
            images: [N, C, H, H].
            draw: From :meth:`draw`, for N images, for this H.

        Raises:
            ValueError: The draw is for another number of images.
        """
        if len(draw.order) != len(images):
            raise ValueError(f"the draw is for {len(draw.order)} images, but the batch has {len(images)}")
        rows, columns = slice(*draw.rows), slice(*draw.columns)
        mixed = images.clone()
        mixed[:, :, rows, columns] = images[:, :, rows, columns][draw.order]
        return mixed


def mixing(probability: float) -> CutMix | None:
    """Return the mixing that a recipe names; None for probability 0, which then takes no random numbers.

    Raises:
        RequestError: The probability is not in [0, 1].
    """
    return CutMix(probability) if probability != 0 else None
