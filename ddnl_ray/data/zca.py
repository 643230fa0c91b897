"""ZCA whitening, as the trajectory-matching codes use it.

Equal to kornia's ``ZCAWhitening`` with ``eps=0.1`` and the unbiased covariance: with ``mu`` the mean image
and ``U diag(s) U^T`` the eigendecomposition of the covariance of the flattened images,
``W = U diag((s + eps)^-1/2) U^T`` and ``z = (x - mu) W``. An ``eps`` of 0.1 exceeds all but the leading
eigenvalues of pixels in [0, 1], so the whitening is partial, on purpose.

Differs from the original: the covariance is summed in float64, in chunks, and decomposed by ``eigh``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 0.1
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Zca:
    """The fitted transform; D = C * H * W, channels first.

    Attributes:
        mean: float32 [D].
        whiten: float32 [D, D].
        unwhiten: float32 [D, D], the inverse of ``whiten``.
    """

    mean: Tensor
    whiten: Tensor
    unwhiten: Tensor

    @classmethod
    def fit(cls, images: Tensor, eps: float = EPS) -> Zca:
        """Fit to images.

        Args:
            images: [N, C, H, W] in [0, 1], floating point, N >= 2. Labels do not matter.
            eps: Added to each eigenvalue.
        """
        mean, covariance = _moments(images.flatten(1))
        values, vectors = torch.linalg.eigh(covariance / (len(images) - 1))
        # Rounding can leave a rank-deficient covariance with eigenvalues just below 0.
        root = (values.clamp_min(0) + eps).sqrt()
        whiten = (vectors / root) @ vectors.T
        unwhiten = (vectors * root) @ vectors.T
        return cls(mean.float(), whiten.float(), unwhiten.float())

    @classmethod
    def fit_relative(cls, images: Tensor, std: Tensor, share: float = EPS) -> Zca:
        """Fit as the kernel methods do (FRePo, RCIG): on normalised images, regularised relative to their variance.

        With the covariance S (of 1 / N) of images whose channels are divided by ``std``, the added value is
        ``share * tr(S) / D``. Where there are fewer images than dimensions, those that no image reaches are left as
        they are. Mean and matrices take pixels, so that both whitenings are used alike.

        Args:
            images: [N, C, H, W] in [0, 1], floating point.
            std: Deviation of every channel [C].
            share: How much of the mean variance is added.
        """
        num, dim = images.flatten(1).shape
        scale = std.double().repeat_interleave(dim // len(std)).to(images.device)
        mean, covariance = _moments(images.flatten(1))
        values, vectors = torch.linalg.eigh(covariance / num / scale / scale.unsqueeze(1))
        values = values.clamp_min(0) + share * values.mean()
        if num < dim:
            values[: dim - num] = 1
        root = values.clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        whiten = ((vectors / root) @ vectors.T) / scale.unsqueeze(1)
        unwhiten = ((vectors * root) @ vectors.T) * scale
        return cls(mean.float(), whiten.float(), unwhiten.float())

    def apply(self, images: Tensor) -> Tensor:
        """Return pixels [N, C, H, W] in [0, 1] as whitened images of the same shape and type."""
        flat = images.flatten(1) - self.mean.to(images.dtype)
        return (flat @ self.whiten.to(images.dtype)).view_as(images)

    def invert(self, images: Tensor) -> Tensor:
        """Return whitened images [N, C, H, W] as pixels; nothing is clamped."""
        flat = images.flatten(1) @ self.unwhiten.to(images.dtype)
        return (flat + self.mean.to(images.dtype)).view_as(images)

    def private(self) -> Zca:
        """Return a copy that belongs to no other process and takes part in gradients."""
        return Zca(self.mean.clone(), self.whiten.clone(), self.unwhiten.clone())

    def to(self, device: torch.device | str) -> Zca:
        """Return the same transform on ``device``."""
        return Zca(self.mean.to(device), self.whiten.to(device), self.unwhiten.to(device))


def _moments(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [D] of rows [N, D], and the sum of the products of their distances to it [D, D], in float64."""
    num, dim = flat.shape
    mean = torch.stack([part.double().sum(dim=0) for part in torch.split(flat, _CHUNK)]).sum(dim=0) / num
    covariance = torch.zeros(dim, dim, dtype=torch.float64, device=flat.device)
    for part in torch.split(flat, _CHUNK):
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred)
    return mean, covariance
