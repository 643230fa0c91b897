"""The PAC-Bayes gap of Corollary IV from a network's weights: KL(Q||P) of Gaussians, with sigma from a grid.

Posterior Q = N(trained weights, sigma^2), prior P = N(initial weights, sigma^2), so that KL(Q||P) is the squared
distance that training went, over 2 sigma^2. Remark 2 of the corollary: with the empirical term on a validation set its
size takes the place of m.

Differs from the original:
    - sigma is left open there. Here it is the largest of a stated grid whose Gibbs classifier errs at most
      :data:`COMPARABLE` more often on the validation labels than the trained weights do, since the corollary is about
      networks of comparable performance; delta is shared out over the grid (union bound), which pays for the choice;
    - the error of the Gibbs classifier is a mean over draws of the weights, taken as exact;
    - the gap with P = Q is given beside it. It is valid where Q does not depend on the validation labels; they chose
      the epoch here, so delta is shared out over the epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.theory.estimate import Floats
from analysis.theory.noise_rate import eps_m, kl_gaussian

COMPARABLE = 0.05
DELTA = 0.05


@dataclass(frozen=True)
class Gap:
    """A gap, and what it is made of.

    Attributes:
        eps: The gap, >= 0; from 1 on it says nothing about any rate.
        sigma: Standard deviation of the weights.
        kl: KL(Q||P), nats.
        gibbs: Error of the Gibbs classifier on the validation labels.
        error: Error of the trained weights on them.
        num_validation: How many there are.
        num_sigmas: Size of the grid.
        eps_held: The gap with P = Q.
    """

    eps: float
    sigma: float
    kl: float
    gibbs: float
    error: float
    num_validation: int
    num_sigmas: int
    eps_held: float

    @property
    def sentence(self) -> str:
        """The gap in words."""
        verdict = (
            "it is 1 or more, so that it bounds no rate: vacuous"
            if self.eps >= 1
            else f"it widens an interval by {100 * self.eps:.0f} points"
        )
        return (
            f"PAC-Bayes gap {self.eps:.3g} at confidence 95 %: {verdict}. KL(Q||P) = {self.kl:.3g} nats between "
            f"Gaussians of sigma {self.sigma:g} (of {self.num_sigmas} tried) around trained and initial weights, with "
            f"{self.num_validation} validation labels, on which the Gibbs classifier errs at "
            f"{100 * self.gibbs:.1f} %, the network at {100 * self.error:.1f} %. With P = Q it would be "
            f"{self.eps_held:.3g}."
        )


def pac_bayes_gap(
    start: Floats,
    end: Floats,
    sigmas: Sequence[float],
    gibbs: Sequence[float],
    error: float,
    num_validation: int,
    choices: int = 1,
    delta: float = DELTA,
) -> Gap:
    """Return the gap of a network.

    Args:
        start: Initial weights [P].
        end: Trained weights [P].
        sigmas: The grid, at least one number above 0.
        gibbs: Error of the Gibbs classifier on the validation labels, for each.
        error: Error of the trained weights on them.
        num_validation: How many there are, at least 1.
        choices: Between how many trained weights they chose.
        delta: One minus the confidence, in (0, 1).
    """
    pairs = sorted(zip(sigmas, gibbs, strict=True))
    comparable = [pair for pair in pairs if pair[1] <= error + COMPARABLE]
    sigma, own = comparable[-1] if comparable else pairs[0]
    kl = kl_gaussian(mean_q=end, var_q=sigma**2, mean_p=start, var_p=sigma**2)
    n_val = num_validation
    eps = float(eps_m(kl=kl, m=n_val, delta=delta / len(pairs), n_val=n_val))
    held = float(eps_m(kl=0, m=n_val, delta=delta / choices, n_val=n_val))
    return Gap(eps, sigma, kl, own, error, n_val, len(pairs), held)
