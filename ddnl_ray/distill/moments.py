"""Optimizers with running moments, as functions of explicit tensors: Adam and AdaBelief."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Running moments of a tensor's gradient, each of its shape.

    Attributes:
        first: Of the gradient.
        second: Of its square (Adam), or of its squared distance to the first moment (AdaBelief).
    """

    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) without weight decay, as ``torch.optim.Adam`` has it.

    Attributes:
        lr: Learning rate; a scalar tensor on the device where it is learnt.
        beta1: Decay of the first moment.
        beta2: Decay of the second.
        eps: Added to the root of the second.
    """

    lr: float | Tensor
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def step(self, x: Tensor, moments: Moments, gradient: Tensor, taken: int) -> tuple[Tensor, Moments]:
        """Return the next value and moments after ``taken`` steps; the given ones are left as they were."""
        first = moments.first.lerp(gradient, 1 - self.beta1)
        second = (self.beta2 * moments.second).addcmul_(gradient, gradient, value=1 - self.beta2)
        root = (second / (1 - self.beta2 ** (taken + 1))).sqrt_().add_(self.eps)
        return x - self.lr * (first / root / (1 - self.beta1 ** (taken + 1))), Moments(first, second)


@dataclass(frozen=True)
class AdaBelief:
    """AdaBelief (Zhuang et al. 2020) without weight decay, as Optax has it: gradients as expected make long steps.

    ``m = b1 m + (1 - b1) g``; ``s = b2 s + (1 - b2) (g - m)^2 + eps``; both are corrected for their start at 0; the
    step is ``lr m / (sqrt(s) + eps)``. ``g - m`` has the new ``m``.

    Attributes:
        lr: Learning rate.
        beta1: Decay of the first moment.
        beta2: Decay of the second.
        eps: Added to the second moment, and to its root.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-16

    def step(self, x: Tensor, moments: Moments, gradient: Tensor, taken: int) -> tuple[Tensor, Moments]:
        """Return the next value and moments after ``taken`` steps; the given ones are left as they were."""
        first = self.beta1 * moments.first + (1 - self.beta1) * gradient
        second = self.beta2 * moments.second + (1 - self.beta2) * (gradient - first).square() + self.eps
        mean = first / (1 - self.beta1 ** (taken + 1))
        root = (second / (1 - self.beta2 ** (taken + 1))).sqrt() + self.eps
        return x - self.lr * mean / root, Moments(first, second)
