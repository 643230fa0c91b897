"""A network as a function of one flat parameter vector, as methods that match weights or embeddings need it."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddnl_ray.errors import RequestError
from ddnl_ray.models.spec import initialise


class Flat:
    """A module seen as ``logits = f(theta, x)``.

    The order of ``theta`` is the order of ``module.parameters()``, each parameter flattened row by row. The
    module's own parameters are read by :meth:`flatten` alone: a call uses ``theta`` for all of them.

    Args:
        module: A network without buffers.

    Attributes:
        module: The wrapped network.
        shapes: Parameter name to shape, in the order of ``theta``.
        num_params: P, the length of ``theta``.

    Raises:
        RequestError: The module has buffers (batch normalisation), which ``theta`` would not carry.
    """

    def __init__(self, module: nn.Module) -> None:
        buffers = [name for name, _ in module.named_buffers()]
        if buffers:
            raise RequestError(
                f"distillation needs a network without buffers, but {type(module).__name__} has "
                f"{len(buffers)} ({buffers[0]}, ...); use instance norm instead of batch norm"
            )
        self.module = module
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self._sizes = [shape.numel() for shape in self.shapes.values()]
        self.num_params = sum(self._sizes)

    def flatten(self) -> Tensor:
        """Return a copy of the module's parameters as one detached vector, shape ``(P,)``."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.module.parameters()])

    def unflatten(self, theta_P: Tensor) -> dict[str, Tensor]:
        """Return views of ``theta_P`` by parameter name; gradients flow through them."""
        pieces = torch.split_with_sizes(theta_P, self._sizes)
        named = zip(self.shapes.items(), pieces, strict=True)
        return {name: piece.view(shape) for (name, shape), piece in named}

    def __call__(self, theta_P: Tensor, x_NCHW: Tensor) -> Tensor:
        """Return the logits ``(N, num_classes)`` of the network whose parameters are ``theta_P``."""
        logits: Tensor = functional_call(self.module, self.unflatten(theta_P), (x_NCHW,))
        return logits

    def outputs(self, theta_P: Tensor, x_NCHW: Tensor) -> Outputs:
        """Return the logits and what leads to them, from one forward pass."""
        named = {f"module.{name}": piece for name, piece in self.unflatten(theta_P).items()}
        found: Outputs = functional_call(_WithOutputs(self.module), named, (x_NCHW,))
        return found

    def fresh(self, generator: torch.Generator) -> Tensor:
        """Return newly drawn initial weights ``(P,)``, on the module's device, as :func:`build` draws them."""
        module = copy.deepcopy(self.module).cpu()
        for layer in module.modules():
            initialise(layer, generator)
        return Flat(module).flatten().to(next(self.module.parameters()).device)


class Outputs(NamedTuple):
    """What a network computes of N images.

    Attributes:
        embedding: The last maps, flattened ``(N, D)``: what distribution matching compares.
        features: The input of the linear layer ``(N, F)``; of a ConvNet the same as the embedding.
        logits: ``(N, num_classes)``.
    """

    embedding: Tensor
    features: Tensor
    logits: Tensor


class _WithOutputs(nn.Module):
    """A network that also returns what leads to its logits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, x_NCHW: Tensor) -> Outputs:
        maps = self.module.maps(x_NCHW)
        features = self.module.pooled(maps)
        return Outputs(maps.flatten(1), features, self.module.classifier(features))
