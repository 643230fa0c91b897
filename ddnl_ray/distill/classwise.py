"""What methods share that match real and synthetic images class by class, under a network that stands still.

Differs from the originals:
    - they take one optimizer step with momentum per class, on one tensor that holds all classes: a class drifts on its
      old velocity while the others are processed. Over a sweep of K classes that adds up to ``lr / (1 - momentum)``
      times the gradient, up to ``momentum**K``; here all classes step once by that much (:func:`joint_rate`);
    - classes whose augmentation is the same operation are augmented in one call, and as many classes go through the
      network together as the device takes well; each class's loss depends on its own images alone, so that is the same
      mathematics;
    - a class with fewer images than a batch gives all it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import Normalise, Zca
from ddnl_ray.data.augment import Draw, apply_classes, draw_classes
from ddnl_ray.distill.base import Problem, shuffled_rows
from ddnl_ray.distill.formation import decode, encode
from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat
from ddnl_ray.models.parts import outputs_of, part_size
from ddnl_ray.seeds import SeedTree

INITS = ("real", "noise")
"""What a synthetic set starts from."""


def require_image_optimizer(iterations: int, batch_real: int, lr_img: float, momentum: float) -> None:
    """Check the settings of an optimizer of images.

    Raises:
        RequestError: One is out of its range.
    """
    for name, value in (("iterations", iterations), ("batch_real", batch_real)):
        if value < 1:
            raise RequestError(f"{name} must be at least 1, but got {value}")
    if not lr_img > 0:
        raise RequestError(f"lr_img must be above 0, but got {lr_img}")
    if not 0 <= momentum < 1:
        raise RequestError(f"momentum must lie in [0, 1), but got {momentum}")


def joint_rate(lr: float, momentum: float) -> float:
    """Return the step size of one step over all classes that does what a sweep of steps with momentum does."""
    return lr / (1 - momentum)


def observed_pools(problem: Problem) -> list[Tensor]:
    """Return the rows of every observed class, int64."""
    return [problem.rows_of(label) for label in range(problem.num_classes)]


def draw_rows(pools: Sequence[Tensor], num: int, generator: torch.Generator) -> list[Tensor]:
    """Return ``num`` random rows of every pool without repetition, or all of a smaller one, on the CPU's draw."""
    return [pool[torch.randperm(len(pool), generator=generator)[:num].to(pool.device)] for pool in pools]


@dataclass(frozen=True)
class View:
    """How stored images become training images.

    Attributes:
        factor: Crops per side (:mod:`ddnl_ray.distill.formation`).
        transform: What makes network input of stored pixels; None: they are stored as networks see them.
        limit: At most this many training images of a class are used at once, a random choice of them; None: all.
    """

    factor: int = 1
    transform: Normalise | Zca | None = None
    limit: int | None = None

    def decoded(self, stored: Tensor) -> Tensor:
        """Return all training images [n * factor^2, C, H, W]; differentiable."""
        return decode(stored if self.transform is None else self.transform.apply(stored), self.factor)

    def picks(self, num_classes: int, ipc: int, generator: torch.Generator) -> Tensor | None:
        """Draw which training images of every class are used, int64 [classes, limit]; None: all."""
        available = ipc * self.factor**2
        if self.limit is None or available <= self.limit:
            return None
        return torch.stack([torch.randperm(available, generator=generator)[: self.limit] for _ in range(num_classes)])


def first_images(problem: Problem, seed: SeedTree, view: View, how: str, encoding: str = "bilinear") -> Tensor:
    """Return the stored images of a first state, [classes * ipc, C, H, W], class by class.

    Args:
        problem: The problem.
        seed: Chooses the images, or is the noise.
        view: What is stored.
        how: ``real`` (each crop a random image of the observed class; one with too few gives some twice) or ``noise``
            (standard normal; as pixels: with mean 0.5 and deviation 0.25).
        encoding: How real images are made smaller.

    Raises:
        RequestError: A class has fewer images than ``ipc``.
    """
    assert problem.ipc is not None
    wanted = problem.ipc * view.factor**2
    rows = torch.cat([own.repeat(-(-wanted // len(own)))[:wanted] for own in shuffled_rows(problem, seed)])
    if how == "noise":
        shape = (problem.num_classes * problem.ipc, *problem.images.shape[1:])
        noise = torch.randn(shape, generator=seed.child("noise").torch()).to(problem.images)
        return noise if view.transform is None else (noise / 4 + 0.5).clamp(0, 1)
    images = problem.images[rows]
    if view.transform is not None:
        images = view.transform.invert(images).clamp(0, 1)
    return encode(images, view.factor, encoding)


def class_labels(problem: Problem) -> Tensor:
    """Return the hard labels of a set of ``ipc`` images per class, class by class, int64."""
    assert problem.ipc is not None
    return torch.arange(problem.num_classes, device=problem.device).repeat_interleave(problem.ipc)


@dataclass(frozen=True)
class Terms:
    """The loss of a class.

    Attributes:
        match: Weight of the squared distance between the mean embeddings of its real and of its synthetic images.
        cross_entropy: Weight of the synthetic images' mean cross-entropy.
    """

    match: float = 1.0
    cross_entropy: float = 0.0


def class_gradient(
    stored: Tensor,
    problem: Problem,
    theta: Tensor,
    view: View,
    terms: Terms,
    pools: Sequence[Tensor],
    batch_real: int,
    seed: SeedTree,
) -> tuple[Tensor, Tensor]:
    """Return the sum of all classes' losses, and its gradient with respect to the stored images.

    Real and synthetic images of a class undergo the same draw of the augmentation.

    Args:
        stored: [classes * ipc, C, H, W], class by class.
        problem: Network and augmentation.
        theta: The network's weights [P]; no gradient is computed for them.
        view: What is stored.
        terms: The loss.
        pools: Rows of the real images of every class.
        batch_real: Real images per class.
        seed: Determines batches and augmentation.
    """
    classes, generator = problem.num_classes, seed.torch()
    ipc = len(stored) // classes
    rows = draw_rows(pools, batch_real, generator) if terms.match else None
    draws = None
    if problem.augment is not None:
        draws = draw_classes(problem.augment, generator, classes, stored.shape[-1], stored.device)
    picks = view.picks(classes, ipc, generator)
    used = ipc * view.factor**2 if picks is None else picks.shape[1]
    loss, gradient = stored.new_zeros(()), torch.zeros_like(stored)
    # Real images have no graph, so they weigh less.
    for part in _chunks(classes, used + (batch_real // 4 if terms.match else 0), problem):
        kept = slice(part.start * ipc, part.stop * ipc)
        leaf = stored[kept].detach().clone().requires_grad_()
        images = view.decoded(leaf)
        if picks is not None:
            first = torch.arange(part.stop - part.start).unsqueeze(1) * (ipc * view.factor**2)
            images = images[(picks[part] + first).flatten().to(images.device)]
        own = None if draws is None else draws[part]
        real = None if rows is None else _mean_embeddings(problem, theta, rows[part], own)
        value = _loss(problem, theta, images, used, part.start, terms, real, own)
        (gradient[kept],) = torch.autograd.grad(value, leaf)
        loss = loss + value.detach()
    return loss, gradient


def _chunks(classes: int, images: int, problem: Problem) -> Iterator[slice]:
    """Yield the classes that go through together, each as heavy as ``images``: those that fit, but at least one."""
    assert problem.network is not None
    size = part_size(problem.network.module, problem.images.shape[-1], problem.device, problem.smaller)
    assert size is not None
    together = max(1, size // images)
    for first in range(0, classes, together):
        yield slice(first, min(first + together, classes))


@torch.no_grad()
def _mean_embeddings(problem: Problem, theta: Tensor, rows: Sequence[Tensor], draws: Sequence[Draw] | None) -> Tensor:
    """Return the mean embedding of the augmented real images of classes [k, D]."""
    counts = [len(each) for each in rows]
    found = outputs_of(
        _network(problem), theta, _augmented(problem, problem.images[torch.cat(list(rows))], counts, draws)
    )
    return torch.stack([each.mean(0) for each in found.embedding.split(counts)])


def _loss(
    problem: Problem,
    theta: Tensor,
    images: Tensor,
    used: int,
    first: int,
    terms: Terms,
    real: Tensor | None,
    draws: Sequence[Draw] | None,
) -> Tensor:
    """Return the summed loss of consecutive classes from ``first`` on, ``used`` training images of each."""
    together = len(images) // used
    found = outputs_of(_network(problem), theta, _augmented(problem, images, [used] * together, draws), problem.smaller)
    value = images.new_zeros(())
    if real is not None:
        means = found.embedding.view(together, used, -1).mean(1)
        value = value + terms.match * (means - real).square().sum()
    if terms.cross_entropy:
        labels = torch.arange(first, first + together, device=images.device).repeat_interleave(used)
        value = value + terms.cross_entropy * F.cross_entropy(found.logits, labels, reduction="sum") / used
    return value


def _augmented(problem: Problem, images: Tensor, counts: list[int], draws: Sequence[Draw] | None) -> Tensor:
    return images if draws is None or problem.augment is None else apply_classes(problem.augment, images, counts, draws)


def _network(problem: Problem) -> Flat:
    assert problem.network is not None
    return problem.network
