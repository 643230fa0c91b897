"""The saturating accuracy curve ``acc(IPC) = A - B * IPC^-g`` with ``A <= 1``, ``B >= 0`` and ``g > 0``.

Weighted least squares. For a given exponent the curve is linear in A and B, so the fit searches the exponent alone: on
a grid, then by Brent's method between the neighbours of the best grid point (variable projection; Golub and Pereyra,
1973). The curve never falls: data that fall give B = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from analysis.fits.resample import Array, Estimate, Size, estimate

EXPONENTS = np.geomspace(0.02, 5.0, 160)
"""The exponents of the grid. At the low end the curve is a straight line in log IPC over any range that is run; at the
high end it has saturated at the second point."""


@dataclass(frozen=True, slots=True)
class SaturatingFit:
    """A fitted curve.

    Attributes:
        asymptote: A, the accuracy that more images would approach.
        amplitude: B, the distance from the asymptote at IPC 1.
        exponent: g.
        rmse: Root of the weighted mean squared residual, as an accuracy; nan without a fit.
        num_ipcs: Number of IPCs behind it.
        reason: What limits it, in sentences; empty if nothing.
    """

    asymptote: Estimate
    amplitude: Estimate
    exponent: Estimate
    rmse: float
    num_ipcs: int
    reason: str

    @property
    def exists(self) -> bool:
        """Whether there is a curve."""
        return not math.isnan(self.asymptote.value)

    def predict(self, ipc: float) -> float:
        """Return the accuracy at an IPC; nan without a fit."""
        if self.amplitude.value == 0:
            return self.asymptote.value
        return self.asymptote.value - self.amplitude.value * math.exp(-self.exponent.value * math.log(ipc))

    def ipc_within(self, epsilon: float) -> float:
        """Return the IPC at which the curve is ``epsilon`` below its asymptote, ``(B / epsilon)^(1 / g)``.

        It is an extrapolation where it lies beyond the IPCs that were run; at least 1, and nan without a fit.
        """
        if self.amplitude.value <= epsilon:
            return 1.0
        log = math.log(self.amplitude.value / epsilon) / self.exponent.value
        return math.exp(log) if log < 700 else math.inf


def fit_saturating(
    ipcs: Sequence[int],
    accuracy: Array,
    weights: Array,
    resampled: Array,
    of: Size,
    confidence: float = 0.95,
) -> SaturatingFit:
    """Fit the curve to mean accuracies.

    Args:
        ipcs: Images per class, K of them.
        accuracy: Mean accuracy at each, [K].
        weights: Number of replicates behind each mean, [K].
        resampled: Means of every resample, [B, K]; those with a nan are left out.
        of: Size of the resampled data.
        confidence: Coverage of the percentile intervals of A, B and g.

    Returns:
        Without a fit (nan, and a reason) if there are fewer than three IPCs.
    """
    if len(ipcs) < 3:
        text = f"A saturating curve has three parameters, but {len(ipcs)} IPC(s) have a score."
        return SaturatingFit(Estimate(), Estimate(), Estimate(), math.nan, len(ipcs), text)
    log_ipc = np.log(np.asarray(ipcs, dtype=np.float64))
    share = weights / weights.sum()
    a, b, g, error = _best(log_ipc, accuracy, share)
    boot = _on_grid(log_ipc, resampled[~np.isnan(resampled).any(axis=1)], share)
    return SaturatingFit(
        asymptote=estimate(a, boot[0], of, confidence),
        amplitude=estimate(b, boot[1], of, confidence),
        exponent=Estimate() if b == 0 else estimate(g, boot[2], of, confidence),
        rmse=math.sqrt(error),
        num_ipcs=len(ipcs),
        reason=_limits(a, b, g, len(ipcs)),
    )


def _best(log_ipc: Array, accuracy: Array, share: Array) -> tuple[float, float, float, float]:
    """Return A, B, g and the weighted mean squared residual."""
    _, _, start, _ = _on_grid(log_ipc, accuracy[None], share)
    near = int(np.argmin(np.abs(EXPONENTS - start[0])))
    last = len(EXPONENTS) - 1
    logs = np.log(EXPONENTS[[max(0, near - 1), min(last, near + 1)]])

    def solve(log_g: float) -> tuple[Array, Array, Array]:
        return _linear(log_ipc, accuracy[None], share, math.exp(log_g))

    found = optimize.minimize_scalar(
        lambda log_g: float(solve(log_g)[2][0]),
        bounds=(float(logs[0]), float(logs[1])),
        method="bounded",
        options={"xatol": 1e-10},
    )
    best = min((float(found.x), math.log(start[0])), key=lambda log_g: float(solve(log_g)[2][0]))
    a, b, error = solve(best)
    return float(a[0]), float(b[0]), math.exp(best), float(error[0])


def _on_grid(log_ipc: Array, accuracy: Array, share: Array) -> tuple[Array, Array, Array, Array]:
    """Return A, B, g and the error of every row of ``accuracy`` [B, K], with g on the grid."""
    a = b = np.zeros(len(accuracy))
    g, error = np.full(len(accuracy), EXPONENTS[0]), np.full(len(accuracy), math.inf)
    for exponent in EXPONENTS:
        new_a, new_b, new_error = _linear(log_ipc, accuracy, share, float(exponent))
        better = new_error < error
        a, b = np.where(better, new_a, a), np.where(better, new_b, b)
        g, error = np.where(better, exponent, g), np.where(better, new_error, error)
    return a, b, g, error


def _linear(log_ipc: Array, accuracy: Array, share: Array, exponent: float) -> tuple[Array, Array, Array]:
    """Return A, B and the weighted mean squared residual of every row, for one exponent."""
    basis = np.exp(-exponent * log_ipc)
    centred = basis - share @ basis
    mean = accuracy @ share
    b = np.maximum(0.0, -(accuracy @ (share * centred)) / float(share @ centred**2))
    a = mean + b * float(share @ basis)
    capped = a > 1
    b = np.where(capped, np.maximum(0.0, ((1 - accuracy) @ (share * basis)) / float(share @ basis**2)), b)
    a = np.minimum(a, 1.0)
    error = ((accuracy - a[:, None] + b[:, None] * basis) ** 2) @ share
    return a, b, error


def _limits(a: float, b: float, g: float, num_ipcs: int) -> str:
    sentences = []
    if num_ipcs == 3:
        sentences.append("Three IPCs determine three parameters: nothing is left to test the form.")
    if b == 0:
        sentences.append("The accuracy does not rise with IPC, so the exponent is undefined.")
    elif g <= EXPONENTS[0] * 1.001:
        sentences.append("The curve does not bend: the asymptote is not identified by the IPCs run.")
    elif g >= EXPONENTS[-1] / 1.001:
        sentences.append("The curve has saturated at the second IPC: the exponent is a lower bound.")
    if a >= 1:
        sentences.append("The asymptote is held at accuracy 1.")
    return " ".join(sentences)
