"""A network's Jacobian at fixed weights, as products with vectors: what a linearised network is made of.

``J`` holds the derivatives of the logits of N images with respect to all weights. Neither it nor a kernel of it is
ever formed: :meth:`Linearised.push` gives ``J v`` and :meth:`Linearised.pull` gives ``J^T c``. Both are wanted dozens
of times at the same weights and images. Where memory allows, a part of the images therefore keeps its tape: the forward
pass, and the graph of ``c -> J^T c``, which is linear in ``c``, so that its own derivative is ``J``. A product then
costs two forward passes instead of three. The other parts take ``torch.func.jvp`` and ``torch.func.vjp`` anew each
time: the same numbers up to rounding.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp

from ddnl_ray.models import Flat
from ddnl_ray.models.parts import part_size


class Linearised:
    """The Jacobian of the logits of images at fixed weights.

    Args:
        network: The network.
        theta: Its weights [P].
        images: [N, C, H, W].
        memory: Bytes that may be spent on kept tapes.
        smaller: How often the work ran out of memory (see :mod:`ddnl_ray.models.parts`).

    Attributes:
        features: The input of the linear layer [N, F].
        kept: How many images keep their tape.
    """

    def __init__(self, network: Flat, theta: Tensor, images: Tensor, memory: int = 0, smaller: int = 0) -> None:
        self._network, self._theta = network, theta.detach()
        self._parts = parts_of(network, images.detach(), smaller)
        self._tapes: list[_Tape] = []
        features = []
        for part in self._parts:
            if memory > 0 and not smaller:
                tape, held = _tape(network, self._theta, part)
                if held <= memory:
                    self._tapes.append(tape)
                memory -= held
                features.append(tape.features)
            else:
                with torch.no_grad():
                    features.append(network.outputs(self._theta, part).features)
        self.features = torch.cat(features)
        self.kept = sum(len(tape.logits) for tape in self._tapes)

    def push(self, vector: Tensor) -> Tensor:
        """Return ``J v`` [N, classes] of a vector [P]."""
        found = [tape.push(vector) for tape in self._tapes]
        for part in self._parts[len(self._tapes) :]:
            found.append(along(self._network, self._theta, part, vector)[1])
        return torch.cat(found)

    def pull(self, cotangent: Tensor) -> Tensor:
        """Return ``J^T c`` [P] of a cotangent [N, classes]."""
        total = torch.zeros_like(self._theta)
        shares = cotangent.split([len(part) for part in self._parts])
        for tape, share in zip(self._tapes, shares, strict=False):
            total += tape.pull(share)
        first = len(self._tapes)
        for part, share in zip(self._parts[first:], shares[first:], strict=True):
            total += back(self._network, self._theta, part, share)
        return total


def parts_of(network: Flat, images: Tensor, smaller: int = 0) -> Sequence[Tensor]:
    """Return the images in parts that go through the network at once."""
    size = part_size(network.module, images.shape[-1], images.device, smaller)
    assert size is not None  # a flat network has no batch normalisation
    # Copies, because kernels choose their path by alignment, and memory that is shared has an alignment of its own.
    return [part.clone() for part in images.split(size)]


def along(network: Flat, theta: Tensor, images: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [N, F] and ``J v`` [N, classes] of images, by one forward pass with tangents.

    Both are differentiable with respect to the images.
    """

    def logits(weights: Tensor) -> tuple[Tensor, Tensor]:
        found = network.outputs(weights, images)
        return found.logits, found.features

    _load_forward_mode()
    found: Any = jvp(logits, (theta,), (vector,), has_aux=True)
    _, tangent, features = found
    return features, tangent


def back(network: Flat, theta: Tensor, images: Tensor, cotangent: Tensor) -> Tensor:
    """Return ``J^T c`` [P] of images and a cotangent [N, classes], by a forward and a backward pass."""
    found: Any = vjp(lambda weights: network(weights, images), theta)
    _, pull = found
    pulled: Tensor = pull(cotangent)[0].detach()
    return pulled


def images_gradient(
    network: Flat,
    theta: Tensor,
    images: Tensor,
    features: Tensor,
    products: Sequence[tuple[Tensor, Tensor]],
    smaller: int = 0,
) -> Tensor:
    """Return the derivative with respect to the images of ``<features, h> + sum_k <c_k, J v_k>``.

    Args:
        network: The network.
        theta: Its weights [P].
        images: [N, C, H, W].
        features: The weights of their features [N, F].
        products: Pairs of a vector ``v_k`` [P] and a cotangent ``c_k`` [N, classes].
        smaller: How often the work ran out of memory.
    """
    found, first = [], 0
    for part in parts_of(network, images.detach(), smaller):
        rows = slice(first, first + len(part))
        first = rows.stop
        leaf = part.requires_grad_()
        total = features.new_zeros(())
        for number, (vector, cotangent) in enumerate(products):
            own, tangent = along(network, theta, leaf, vector)
            total = total + (tangent * cotangent[rows]).sum()
            if number == 0:
                total = total + (own * features[rows]).sum()
        found.append(torch.autograd.grad(total, leaf)[0])
    return torch.cat(found)


@functools.cache
def _load_forward_mode() -> None:
    """Take torch's first derivative in forward mode, which loads rules in a way that torch itself calls deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


@dataclass(frozen=True)
class _Tape:
    """What is kept of a part of the images.

    Attributes:
        theta: The weights as a leaf [P].
        logits: With their graph [n, classes].
        features: Without [n, F].
        cotangent: A leaf [n, classes].
        pulled: ``J^T cotangent`` [P], with the graph of that map.
    """

    theta: Tensor
    logits: Tensor
    features: Tensor
    cotangent: Tensor
    pulled: Tensor

    def push(self, vector: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self.pulled, self.cotangent, vector, retain_graph=True)
        return found

    def pull(self, cotangent: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self.logits, self.theta, cotangent, retain_graph=True)
        return found


def _tape(network: Flat, theta: Tensor, images: Tensor) -> tuple[_Tape, int]:
    """Return the tape of images, and the bytes that it holds."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        leaf = theta.detach().requires_grad_()
        found = network.outputs(leaf, images)
        cotangent = torch.zeros_like(found.logits).requires_grad_()
        (pulled,) = torch.autograd.grad(found.logits, leaf, cotangent, create_graph=True)
    return _Tape(leaf, found.logits, found.features.detach(), cotangent, pulled), sum(held.values())
