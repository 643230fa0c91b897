"""Which network: its name, its validation and its construction from one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.models.convnet import ConvNet
from ddnl_ray.models.doubling import DoublingConvNet, LecunConv2d, LecunLinear
from ddnl_ray.models.resnet import ResNet18
from ddnl_ray.models.vgg import STAGES as VGG_STAGES
from ddnl_ray.models.vgg import VGG11

CONVNET_DEPTHS = {f"convnet{depth}": depth for depth in range(1, 7)}
DOUBLING_DEPTHS = {f"doubling{depth}": depth for depth in range(1, 6)}
NETWORKS = (*CONVNET_DEPTHS, *DOUBLING_DEPTHS, "resnet18", "resnet18bn", "vgg11")
CONVNET_WIDTH = 128
RESNET_WIDTH = 64


@dataclass(frozen=True)
class NetworkSpec:
    """A network by name.

    Attributes:
        name: ``convnet1`` to ``convnet6`` (the digit is the depth), ``doubling1`` to ``doubling5`` (the ConvNet of the
            kernel methods), ``resnet18``, ``resnet18bn`` or ``vgg11``. All use instance normalisation but
            ``resnet18bn``, which uses batch normalisation, and ``doubling``, which uses none.
        width: Filters of every convolution of a ConvNet, of the first one of ``doubling``, or of the first stage of a
            ResNet; ``None`` is the field's (128, 128 and 64). VGG-11 has no width.

    Raises:
        RequestError: The name is unknown, or the width is not a positive number or not one of this network's
            options.
    """

    name: str
    width: int | None = None

    def __post_init__(self) -> None:
        require_known("network", self.name, NETWORKS)
        if self.width is None:
            return
        if self.name == "vgg11":
            raise RequestError(f"vgg11 has fixed widths, but got width {self.width}; leave the width out")
        if self.width < 1:
            raise RequestError(f"the width of {self.name} must be at least 1, but got {self.width}")

    def require_fits(self, input_shape: tuple[int, int, int]) -> None:
        """Check that images of ``input_shape`` (C, H, W) can pass through the network.

        Raises:
            RequestError: The images are not square, or too small for the network; the message says what would
                fit.
        """
        _, height, width = input_shape
        if height != width:
            raise RequestError(f"{self.name} needs square images, but got {height} x {width}; crop or resize them")
        if self.name in CONVNET_DEPTHS or self.name in DOUBLING_DEPTHS:
            depths = CONVNET_DEPTHS if self.name in CONVNET_DEPTHS else DOUBLING_DEPTHS
            if height // 2 ** depths[self.name] < 1:
                deepest = min(int(math.log2(height)), max(depths.values())) if height > 1 else 0
                kind = self.name.rstrip("0123456789")
                advice = f"the deepest that fits is {kind}{deepest}" if deepest else "no ConvNet fits"
                raise RequestError(f"{self.name} is too deep for images of {height} x {height} pixels; {advice}")
            return
        smallest = {"resnet18": 9, "resnet18bn": 1, "vgg11": 2 ** len(VGG_STAGES)}[self.name]
        if height < smallest:
            raise RequestError(
                f"{self.name} needs images of at least {smallest} x {smallest} pixels, "
                f"but got {height} x {height}; use a ConvNet or larger images"
            )


def build(
    spec: NetworkSpec,
    input_shape: tuple[int, int, int],
    num_classes: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return a freshly initialised network.

    The initialisation is PyTorch's default: weights of convolutions and linear layers Kaiming-uniform with a
    = sqrt(5) and biases uniform, both within 1/sqrt(fan_in); norm weight 1 and bias 0. ``doubling`` starts as its
    authors have it (:func:`ddnl_ray.models.doubling.lecun_`). It is drawn on the CPU
    in registration order, so a seed gives the same network on every device. The global generator is neither
    read nor advanced.

    Args:
        spec: Which network.
        input_shape: (C, H, W) of the images.
        num_classes: Number of logits.
        generator: A CPU generator; the only source of randomness.
        device: Where the network is put after its initialisation.

    Raises:
        RequestError: The network does not fit the images (see :meth:`NetworkSpec.require_fits`), or there are
            fewer than two classes.
    """
    spec.require_fits(input_shape)
    if num_classes < 2:
        raise RequestError(f"a classifier needs at least 2 classes, but got {num_classes}")
    with torch.device("meta"):
        module = _construct(spec, input_shape, num_classes)
    module.to_empty(device="cpu")
    for layer in module.modules():
        initialise(layer, generator)
    return module.to(device)


def _construct(spec: NetworkSpec, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the uninitialised network on the default device of the context."""
    in_channels, size, _ = input_shape
    if spec.name in CONVNET_DEPTHS:
        return ConvNet(
            depth=CONVNET_DEPTHS[spec.name],
            width=spec.width or CONVNET_WIDTH,
            norm="instance",
            in_channels=in_channels,
            size=size,
            num_classes=num_classes,
        )
    if spec.name in DOUBLING_DEPTHS:
        return DoublingConvNet(
            depth=DOUBLING_DEPTHS[spec.name],
            width=spec.width or CONVNET_WIDTH,
            in_channels=in_channels,
            size=size,
            num_classes=num_classes,
        )
    if spec.name == "vgg11":
        return VGG11(norm="instance", in_channels=in_channels, num_classes=num_classes)
    norm = "batch" if spec.name == "resnet18bn" else "instance"
    width = spec.width or RESNET_WIDTH
    return ResNet18(width=width, norm=norm, in_channels=in_channels, num_classes=num_classes)


def initialise(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw the layer's own parameters from ``generator``; set those of a normalisation to their constants.

    The distributions are those of :func:`build`.
    """
    if isinstance(layer, LecunConv2d | LecunLinear):
        layer.draw_parameters(generator)
    elif isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if layer.bias is not None:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    elif (reset := getattr(layer, "reset_parameters", None)) is not None:
        reset()
