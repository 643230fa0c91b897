"""A trained trunk: what turns images into features, and the one artefact that every user of them shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddnl_ray.data import Normalise
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.models import NetworkSpec, build

EMBED_BATCH = 256
_KIND = "extractor"
_STATE = "state."


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network without its classifier, and how pixels are standardised for it.

    Attributes:
        spec: The network.
        input_shape: (C, H, H) of the images.
        normalise: Mean and standard deviation of every channel, of the pixels that it was trained on.
        state: Parameters and buffers (running statistics of a batch normalisation) by the names that they have in the
            network that :func:`ddnl_ray.models.build` returns: ``load_state_dict(state, strict=False)`` gives such a
            network this trunk and leaves its classifier as it is.
        history: Mean training loss of every epoch.
    """

    spec: NetworkSpec
    input_shape: tuple[int, int, int]
    normalise: Normalise
    state: dict[str, Tensor]
    history: tuple[float, ...]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.normalise.mean.device

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Return the features of images, before the projection, divided by their Euclidean norms.

        They are computed in evaluation mode, on the device of the extractor, so that an image's features do not depend,
        up to rounding, on the images beside it.

        Args:
            pixels: [N, C, H, H], float32 in [0, 1], not whitened; on any device.

        Returns:
            [N, d] float32, on the device of the extractor; d is 512 for a ResNet-18 of the usual width.

        Raises:
            RequestError: These are not such pixels, or images of another shape.
        """
        require_pixels(pixels)
        if tuple(pixels.shape[1:]) != self.input_shape:
            raise RequestError(
                f"features: the extractor is for images of shape {self.input_shape}, but got "
                f"{tuple(pixels.shape[1:])}; train one on these images"
            )
        network, width = trunk(self.spec, self.input_shape, torch.Generator())
        network.load_state_dict(self.state)
        network.to(self.device).eval()
        features = torch.empty(len(pixels), width, device=self.device)
        for own, part in zip(features.split(EMBED_BATCH), pixels.split(EMBED_BATCH), strict=True):
            own.copy_(F.normalize(network(self.normalise.apply(part.to(self.device)))))
        return features

    def to(self, device: torch.device | str) -> Extractor:
        """Return the same extractor on ``device``."""
        state = {name: tensor.to(device) for name, tensor in self.state.items()}
        return dataclasses.replace(self, normalise=self.normalise.to(device), state=state)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors, and the rest as JSON: what :func:`ddnl_ray.files.write_tensors` writes."""
        tensors = {"mean": self.normalise.mean, "std": self.normalise.std}
        tensors.update({_STATE + name: tensor for name, tensor in self.state.items()})
        meta = {
            "kind": _KIND,
            "network": dataclasses.asdict(self.spec),
            "input_shape": list(self.input_shape),
            "history": list(self.history),
        }
        return tensors, meta

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Extractor:
        """Return the extractor that :meth:`to_tensors` took apart.

        Raises:
            CorruptFileError: These are not an extractor's tensors, or not all of them.
        """
        if meta.get("kind") != _KIND:
            raise CorruptFileError(f"these are no tensors of an extractor, but of {meta.get('kind')!r}; train one")
        spec = NetworkSpec(**meta["network"])
        channels, height, width = meta["input_shape"]
        shape = (int(channels), int(height), int(width))
        network, _ = trunk(spec, shape, torch.Generator())
        expected = {_STATE + name: tensor.shape for name, tensor in network.state_dict().items()}
        expected |= {"mean": torch.Size([shape[0]]), "std": torch.Size([shape[0]])}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
            raise CorruptFileError(
                f"the tensors do not fit an extractor with {spec.name}: {len(wrong)} are missing, unknown or of "
                f"another shape ({wrong[0]}, ...); train it again"
            )
        state = {name: tensors[_STATE + name] for name in network.state_dict()}
        return cls(spec, shape, Normalise(tensors["mean"], tensors["std"]), state, tuple(meta["history"]))


def trunk(spec: NetworkSpec, input_shape: tuple[int, int, int], generator: torch.Generator) -> tuple[nn.Module, int]:
    """Return a freshly initialised network that maps images to features [N, d], on the CPU, and d.

    Raises:
        RequestError: The network does not fit the images.
    """
    network = build(spec, input_shape, 2, generator)
    width = network.get_submodule("classifier").in_features
    assert isinstance(width, int)
    network.classifier = nn.Identity()
    return network, width


def require_pixels(pixels: Tensor) -> None:
    """Check that images are float32 pixels in [0, 1] [N, C, H, W], and that there is one.

    Raises:
        RequestError: They are not.
    """
    if pixels.dim() != 4 or pixels.dtype != torch.float32 or len(pixels) == 0:
        raise RequestError(
            f"features: images must be float32 [N, C, H, H], one or more, but got {pixels.dtype} {list(pixels.shape)}"
        )
    low, high = (float(bound) for bound in pixels.aminmax())
    if not (low >= 0 and high <= 1):
        raise RequestError(
            f"features: pixels must lie in [0, 1], but reach from {low:g} to {high:g}; undo the normalisation or "
            "whitening of the images"
        )
