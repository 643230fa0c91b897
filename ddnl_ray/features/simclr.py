"""SimCLR: features learnt from images alone, by telling two views of an image from the views of others.

Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020
(arXiv 2002.05709, Eq. 1). Settings are those of the SupContrast code (HobbitLong/SupContrast, method SimCLR), from
which C2D takes its initialisation, with half its batch, half its rate and half of its 1000 epochs: one artefact serves
every method here that needs features or a start without labels.

Differs from the SupContrast code:
- pixels are standardised by the mean and standard deviation of the training images (there: constants of the data set);
- networks are initialised as everywhere here, by PyTorch's defaults (there: normal with the variance of the fan-out);
- the last, incomplete batch of an epoch is dropped unless it is the only one (there it is used; with few images in it,
  its loss is that of an easier task);
- views are made in whole batches (:mod:`ddnl_ray.features.views`);
- the layers of the network are those of :mod:`ddnl_ray.models`, so a ConvNet can be trained, too;
- a network without batch normalisation gets one in its projection, before the ReLU, where Chen et al. have one for
  every network: its features are all positive and point nearly the same way, so the projections would start out nearly
  equal, where the loss is flat (300 digits, ConvNet-3 of width 16, 30 epochs at rate 0.01, 3 runs: without it the loss
  falls from 37.8 by at most 0.05, with it by 3.0 to 3.5).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddnl_ray.data import Normalise
from ddnl_ray.errors import RequestError
from ddnl_ray.features.extractor import Extractor, require_pixels, trunk
from ddnl_ray.features.views import apply_views, draw_views
from ddnl_ray.models import NetworkSpec, initialise
from ddnl_ray.models.parts import part_size
from ddnl_ray.seeds import SeedTree

WARMUP_FROM = 0.01
"""Learning rate at which a warm-up starts."""
WARMUP_ABOVE = 256
"""Batches larger than this are warmed up to."""
FLOOR = 1e-3
"""The last epoch's learning rate, as a part of the highest."""


@dataclass(frozen=True, kw_only=True)
class SimclrConfig:
    """Training of an extractor."""

    network: NetworkSpec = field(default_factory=lambda: NetworkSpec("resnet18bn"))
    """The network; its classifier is replaced by a projection while it is trained, and left out afterwards."""
    epochs: int = 500
    """Passes over the images."""
    batch_size: int = 512
    """Images per step; each gives two views."""
    lr: float = 0.25
    """Highest learning rate; it falls along half a cosine, epoch by epoch, to a thousandth."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty on every parameter, added to the gradient."""
    temperature: float = 0.5
    """T: what similarities are divided by."""
    base_temperature: float = 0.07
    """T0: the loss is multiplied by T / T0, which acts as a factor on the learning rate."""
    warmup_epochs: int = 10
    """Epochs over which the learning rate rises, step by step, from 0.01; only with a batch_size above 256."""
    projection_dim: int = 128
    """Numbers per view that the loss compares."""
    flip: bool = True
    """Whether views may be mirrored; false where a mirrored image is another thing, as with digits."""

    @property
    def identity(self) -> dict[str, Any]:
        """The values that names are made of."""
        return dataclasses.asdict(self)

    @property
    def warms_up(self) -> bool:
        """Whether the learning rate rises before it falls."""
        return self.batch_size > WARMUP_ABOVE and self.warmup_epochs > 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("epochs", 1), ("batch_size", 2), ("warmup_epochs", 0), ("projection_dim", 1)):
            if getattr(self, name) < least:
                raise RequestError(f"features: {name} must be at least {least}, but got {getattr(self, name)}")
        for name in ("lr", "temperature", "base_temperature"):
            if not getattr(self, name) > 0:
                raise RequestError(f"features: {name} must be above 0, but got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise RequestError(f"features: momentum must lie in [0, 1), but got {self.momentum}")
        if not self.weight_decay >= 0:
            raise RequestError(f"features: weight_decay must be 0 or more, but got {self.weight_decay}")
        if self.warms_up and self.warmup_epochs >= self.epochs:
            raise RequestError(
                f"features: warmup_epochs must be below epochs, but got {self.warmup_epochs} of {self.epochs}; "
                "lower warmup_epochs, or raise epochs"
            )

    def learning_rate(self, epoch: int, done: float) -> float:
        """Return the learning rate at a step.

        Args:
            epoch: Which epoch, from 1.
            done: The part of its steps that came before, 0 to 1; it matters in a warm-up alone.
        """
        if self.warms_up and epoch <= self.warmup_epochs:
            top = self._cosine(self.warmup_epochs)
            return WARMUP_FROM + (top - WARMUP_FROM) * (epoch - 1 + done) / self.warmup_epochs
        return self._cosine(epoch)

    def _cosine(self, epoch: int) -> float:
        """Return the rate of an epoch, from 1, along half a cosine; the last one's is the floor."""
        floor = FLOOR * self.lr
        return floor + (self.lr - floor) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def nt_xent(z_2bD: Tensor, temperature: float, base_temperature: float) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy of b pairs (Eq. 1), averaged over all 2b anchors.

    For anchor i with partner j: ``-(T / T0) log(exp(z_i . z_j / T) / sum_{k != i} exp(z_i . z_k / T))``.

    Args:
        z_2bD: Projections [2b, D] of norm 1; rows i and i + b are views of the same image.
        temperature: T.
        base_temperature: T0; equal to T it gives the paper's loss.

    Raises:
        ValueError: The number of rows is odd or 0.
    """
    if len(z_2bD) == 0 or len(z_2bD) % 2:
        raise ValueError(f"views come in pairs, but there are {len(z_2bD)}")
    similarity = (z_2bD @ z_2bD.T / temperature).fill_diagonal_(-math.inf)
    partner = torch.arange(len(z_2bD), device=z_2bD.device).roll(len(z_2bD) // 2)
    return F.cross_entropy(similarity, partner) * (temperature / base_temperature)


class _Projected(nn.Module):
    """The trunk and the projection that the loss sees: Linear, (batch normalisation,) ReLU, Linear, norm 1."""

    def __init__(self, config: SimclrConfig, input_shape: tuple[int, int, int], seed: SeedTree) -> None:
        super().__init__()
        self.trunk, width = trunk(config.network, input_shape, seed.child("init").torch())
        sizes = ((width, width), (width, config.projection_dim))
        first, second = (nn.utils.skip_init(nn.Linear, *size) for size in sizes)
        generator = seed.child("projection").torch()
        for layer in (first, second):
            initialise(layer, generator)
        has_batch_norm = any(True for _ in self.trunk.buffers())
        between = nn.Identity() if has_batch_norm else nn.BatchNorm1d(width)
        self.head = nn.Sequential(first, between, nn.ReLU(), second)

    def forward(self, x_NCHH: Tensor) -> Tensor:
        """Return the projections [N, D].

        Where the network treats each image by itself, images go through in parts that stay in a processor's cache.
        """
        size = part_size(self.trunk, x_NCHH.shape[-1], x_NCHH.device) or len(x_NCHH)
        features = torch.cat([self.trunk(part) for part in x_NCHH.split(size)])
        return F.normalize(self.head(features))


def train_simclr(pixels: Tensor, config: SimclrConfig, seed: SeedTree) -> Extractor:
    """Train an extractor on images, without their labels.

    On one CPU thread the same seed gives the same bits.

    Args:
        pixels: Training images [N, C, H, H], float32 in [0, 1], not whitened, on the device to train on; at least 2.
        config: Network, optimizer and length.
        seed: Determines initialisation, order and views.

    Returns:
        The trunk after the last epoch, on the device of the pixels.

    Raises:
        RequestError: The images are not such, do not fit the network or are constant in a channel; or training
            diverged (a loss is not finite).
    """
    require_pixels(pixels)
    if len(pixels) < 2:
        raise RequestError("features: an image is told from others, so at least 2 are needed, but there is 1")
    channels, height, width = pixels.shape[1:]
    shape = (int(channels), int(height), int(width))
    normalise = Normalise.fit(pixels)
    model = _Projected(config, shape, seed).to(pixels.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, foreach=True
    )
    history = []
    for epoch in range(1, config.epochs + 1):
        loss = _epoch(pixels, normalise, model, optimizer, config, epoch, seed.child("epoch", epoch).torch())
        if not math.isfinite(loss):
            raise RequestError(
                f"features: training diverged in epoch {epoch} (loss {loss}); lower lr (now {config.lr}), or raise "
                f"base_temperature (now {config.base_temperature})"
            )
        history.append(loss)
    state = {name: tensor.detach().clone() for name, tensor in model.trunk.state_dict().items()}
    return Extractor(config.network, shape, normalise, state, tuple(history))


def _epoch(
    pixels: Tensor,
    normalise: Normalise,
    model: _Projected,
    optimizer: torch.optim.SGD,
    config: SimclrConfig,
    epoch: int,
    generator: torch.Generator,
) -> float:
    """Train one epoch, counted from 1; return the mean loss of its steps."""
    batches = torch.randperm(len(pixels), generator=generator).to(pixels.device).split(config.batch_size)
    if len(batches) > 1 and len(batches[-1]) < config.batch_size:
        batches = batches[:-1]
    total = torch.zeros((), device=pixels.device)
    for step, index in enumerate(batches):
        optimizer.param_groups[0]["lr"] = config.learning_rate(epoch, step / len(batches))
        draws = [draw_views(generator, len(index), pixels.shape[-1], pixels.device, config.flip) for _ in range(2)]
        views = torch.cat([apply_views(pixels[index], draw) for draw in draws])
        loss = nt_xent(model(normalise.apply(views)), config.temperature, config.base_temperature)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total) / len(batches)
