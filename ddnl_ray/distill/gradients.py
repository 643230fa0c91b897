"""What methods share that match the gradients which a network gets from real and from synthetic images, class by class.

Both gradients are those of the mean cross-entropy of a class's images with respect to the network's weights, under the
same draw of the augmentation; the loss is the distance between them, summed over weight tensors and classes.
``COSINE`` is that of DC and DSA (Zhao et al., ICLR 2021, Eq. 9), ``SQUARED`` that of IDC (Kim et al., ICML 2022).

Differs from the originals:
    - gradients of tensors that the distance ignores are not computed;
    - the real gradient is summed over parts of the batch that fit the cache;
    - on a GPU the synthetic gradients of several classes come from one pass (``torch.func.vmap`` over the classes): the
      same mathematics, in fewer and larger kernels. On a CPU one class's graph is held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from ddnl_ray.data.augment import Augment, Draw, apply_classes, draw_classes
from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.classwise import View, draw_rows
from ddnl_ray.models import Flat
from ddnl_ray.models.parts import part_size
from ddnl_ray.seeds import SeedTree

COSINE_EPS = 1e-6
STACKING = {"cuda"}
"""Kinds of devices on which several classes go through the network together."""
GRAPH_FACTOR = 4
"""A graph that is differentiated again holds so many times what one holds that is not: fewer images go together."""


@dataclass(frozen=True)
class Distance:
    """A distance between two gradients of a network, a sum over its weight tensors.

    Attributes:
        dims: A weight tensor counts if it has so many dimensions: 4 are convolutions, 2 linear layers.
        between: The summed distance of the gradients of one tensor for some classes, both [classes, *shape].
    """

    dims: tuple[int, ...]
    between: Callable[[Tensor, Tensor], Tensor]


def cosine_of_rows(real: Tensor, synthetic: Tensor) -> Tensor:
    """Return the sum over classes and outputs of 1 less the cosine of their rows; both [classes, out, ...]."""
    a, b = real.flatten(2), synthetic.flatten(2)
    lengths = torch.linalg.vector_norm(a, dim=2) * torch.linalg.vector_norm(b, dim=2)
    cosines: Tensor = (a * b).sum(2) / (lengths + COSINE_EPS)
    return (1 - cosines).sum()


def squared_difference(real: Tensor, synthetic: Tensor) -> Tensor:
    """Return the sum of the squared differences of all entries."""
    return (real - synthetic).square().sum()


COSINE = Distance((2, 3, 4), cosine_of_rows)
"""DC's: biases and the weights of normalisations contribute 0."""
SQUARED = Distance((4,), squared_difference)
"""IDC's: convolutions alone; a sum, although the authors' option is called mse."""


def matching_gradient(
    stored: Tensor,
    problem: Problem,
    theta: Tensor,
    view: View,
    distance: Distance,
    augment: Augment | None,
    pools: Sequence[Tensor],
    batch_real: int,
    seed: SeedTree,
) -> tuple[Tensor, Tensor]:
    """Return the distance summed over all classes, and its gradient with respect to the stored images.

    Args:
        stored: [classes * ipc, C, H, W], class by class.
        problem: Real images and the network.
        theta: The network's weights [P].
        view: What is stored.
        distance: Between the gradients.
        augment: Applied to real and synthetic images alike, with one draw per class; None: nothing is.
        pools: Rows of the real images of every class.
        batch_real: Real images per class.
        seed: Determines batches and augmentation.
    """
    classes, generator, device = problem.num_classes, seed.torch(), stored.device
    ipc = len(stored) // classes
    rows = draw_rows(pools, batch_real, generator)
    draws = None if augment is None else draw_classes(augment, generator, classes, stored.shape[-1], device)
    picks = view.picks(classes, ipc, generator)
    used = ipc * view.factor**2 if picks is None else picks.shape[1]
    weights = _Weights.cut(_network(problem), theta, distance.dims)
    loss, gradient = stored.new_zeros(()), torch.zeros_like(stored)
    for part in _chunks(classes, used, problem):
        together = part.stop - part.start
        kept = slice(part.start * ipc, part.stop * ipc)
        leaf = stored[kept].detach().clone().requires_grad_()
        images = view.decoded(leaf).unflatten(0, (together, -1))
        if picks is not None:
            images = images[torch.arange(together, device=device).unsqueeze(1), picks[part].to(device)]
        own = None if draws is None else draws[part]
        images = _augmented(augment, images.flatten(0, 1), [used] * together, own).unflatten(0, (together, used))
        labels = torch.arange(part.start, part.stop, device=device)
        real = _real(weights, problem, augment, rows[part], labels, own)
        pairs = zip(real, weights.slopes(images, labels), strict=True)
        value = torch.stack([distance.between(*pair) for pair in pairs]).sum()
        (gradient[kept],) = torch.autograd.grad(value, leaf)
        loss = loss + value.detach()
    return loss, gradient


@dataclass(frozen=True)
class _Weights:
    """A network's weights by name, in two groups.

    Attributes:
        network: The network.
        chosen: Those that are differentiated, as copies: kernels choose their path by alignment.
        fixed: The others.
    """

    network: Flat
    chosen: dict[str, Tensor]
    fixed: dict[str, Tensor]

    @classmethod
    def cut(cls, network: Flat, theta: Tensor, dims: tuple[int, ...]) -> _Weights:
        """Cut ``theta`` [P]; tensors with one of the numbers of dimensions are chosen."""
        named = {name: value.clone() for name, value in network.unflatten(theta.detach()).items()}
        chosen = {name: value for name, value in named.items() if value.dim() in dims}
        return cls(network, chosen, {name: value for name, value in named.items() if name not in chosen})

    def loss(self, chosen: dict[str, Tensor], images: Tensor, label: Tensor) -> Tensor:
        """Return the mean cross-entropy of images [n, C, H, W] of one class (a scalar) under chosen weights."""
        logits: Tensor = functional_call(self.network.module, self.fixed | chosen, (images,))
        return F.cross_entropy(logits, label.expand(len(images)))

    def slope(self, images: Tensor, label: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
        """Return the gradients of the chosen weights for images of one class."""
        leaves = {name: value.detach().requires_grad_() for name, value in self.chosen.items()}
        loss = self.loss(leaves, images, label)
        return torch.autograd.grad(loss, list(leaves.values()), create_graph=create_graph)

    def slopes(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the gradients of the chosen weights for k classes, with a graph.

        Args:
            images: [k, n, C, H, W].
            labels: Their labels, int64 [k].

        Returns:
            One tensor [k, *shape] per chosen weight.
        """
        if len(images) == 1:
            return [found.unsqueeze(0) for found in self.slope(images[0], labels[0], create_graph=True)]
        stacked = torch.func.vmap(torch.func.grad(self.loss), in_dims=(None, 0, 0))(self.chosen, images, labels)
        return list(stacked.values())


def _real(
    weights: _Weights,
    problem: Problem,
    augment: Augment | None,
    rows: Sequence[Tensor],
    labels: Tensor,
    draws: Sequence[Draw] | None,
) -> list[Tensor]:
    """Return the gradients that the augmented real images of classes give, [k, *shape] per chosen weight."""
    size = _images_at_once(problem)
    counts = [len(each) for each in rows]
    images = _augmented(augment, problem.images[torch.cat(list(rows))], counts, draws)
    total = [value.new_zeros(len(rows), *value.shape) for value in weights.chosen.values()]
    for place, own in enumerate(images.split(counts)):
        for part in own.split(size):
            share = len(part) / len(own)
            for sums, found in zip(total, weights.slope(part.clone(), labels[place], create_graph=False), strict=True):
                sums[place] += share * found
    return total


def _chunks(classes: int, images: int, problem: Problem) -> Iterator[slice]:
    """Yield the classes that go through together, ``images`` of each."""
    size = _images_at_once(problem) // GRAPH_FACTOR
    together = max(1, size // images) if problem.device.type in STACKING else 1
    for first in range(0, classes, together):
        yield slice(first, min(first + together, classes))


def _images_at_once(problem: Problem) -> int:
    size = part_size(_network(problem).module, problem.images.shape[-1], problem.device, problem.smaller)
    assert size is not None  # a flat network has no batch normalisation
    return size


def _augmented(augment: Augment | None, images: Tensor, counts: list[int], draws: Sequence[Draw] | None) -> Tensor:
    return images if augment is None or draws is None else apply_classes(augment, images, counts, draws)


def _network(problem: Problem) -> Flat:
    assert problem.network is not None
    return problem.network
