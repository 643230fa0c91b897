"""The noise rate that a crossover implies: Corollary IV, and its PAC-Bayes gap.

Corollary IV of "Dataset Distillers Are Good Label Denoisers" (Appendix B.5). m = C * IPC distilled images
that reach the accuracy of all n noisy samples are taken to hold the clean content of ``alpha * m`` clean
samples. Numbers and arrays broadcast, the arithmetic is float64, rates are fractions, KL is in nats.

Differs from the original:

- Lower end: assumption A3, ``n (1 - tau) >= alpha m``, gives ``tau <= 1 - alpha m / n``, an upper bound; the
  source prints it as a lower one. ``form="derived"`` is the one-sided interval that follows,
  ``0 <= tau <= 1 - alpha m / n + eps_m``.
- alpha is any number > 0, as explained in :mod:`analysis.theory.symbols`.
- The ends are clipped to [0, 1], and an interval that lies below 0 before clipping is marked as empty.

A published interval with an assumed alpha says little even where it is not vacuous: with alpha = 1, n = 50 000
and m = 100 its lower end is 0.998 for every data set. Calibrate alpha on known rates
(:mod:`analysis.fits.rates`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.theory import symbols
from analysis.theory.symbols import Flags, Floats, Form, frozen, known_form


@dataclass(frozen=True, slots=True, eq=False)
class RateInterval:
    """An interval of noise rates, or an array of them.

    Attributes:
        lower: Lower ends, clipped to [0, 1], float64, read-only.
        upper: Upper ends, likewise, of the same shape.
        empty: Whether all of the interval was below 0 before clipping: the distilled images were given more
            clean content than the data set has samples, so alpha or the crossover is wrong.
        form: As printed, or as the proof has it.
    """

    lower: Floats
    upper: Floats
    empty: Flags
    form: Form

    @property
    def vacuous(self) -> Flags:
        """Whether the interval is all of [0, 1]: it says nothing, and is never a result."""
        return np.asarray((self.lower <= 0) & (self.upper >= 1))

    def contains(self, tau: ArrayLike) -> Flags:
        """Return whether rates lie inside, ends included; an empty interval holds none.

        Args:
            tau: Noise rates in [0, 1), of a shape that broadcasts against that of the ends.

        Raises:
            ValueError: A rate lies outside its domain.
        """
        rates = symbols.TAU.read(tau)
        return np.asarray(~self.empty & (self.lower <= rates) & (rates <= self.upper))


def eps_m(*, kl: ArrayLike, m: ArrayLike, delta: ArrayLike, n_val: ArrayLike | None = None) -> Floats:
    """Return the PAC-Bayes gap ``sqrt((KL(Q||P) + log(2 sqrt(m) / delta)) / (2 m))``.

    Args:
        kl: KL(Q||P), finite and >= 0, in nats (:func:`kl_gaussian`). The prior must not depend on the sample of
            the empirical risk; if Q does not either, as with a validation set, P = Q is a valid prior and KL 0.
        m: Distilled images in total, >= 1.
        delta: One minus the confidence, in (0, 1).
        n_val: Validation samples, an integer > 0, where the empirical risk is that of a validation set (remark
            2 of the source); takes the place of m.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    distilled = symbols.M.read(m)
    size = distilled if n_val is None else symbols.N_VAL.read(n_val)
    confidence = np.log(2 * np.sqrt(size) / symbols.DELTA.read(delta))
    return np.asarray(np.sqrt((symbols.KL.read(kl) + confidence) / (2 * size)))


def estimate_rate(alpha: ArrayLike, n: ArrayLike, m: ArrayLike) -> Floats:
    """Return ``1 - alpha m / n``, and 0 where alpha m exceeds n.

    Args:
        alpha: Clean content of one distilled image, in clean samples, > 0 (:func:`calibrate_alpha`).
        n: Noisy training samples, an integer > 0.
        m: Distilled images in total at the crossover, m* = C * IPC*, >= 1.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    return np.asarray(np.maximum(_implied(alpha, n, m), 0))


def rate_interval(
    *, n: ArrayLike, m: ArrayLike, alpha: ArrayLike, eps: ArrayLike, form: Form = "published"
) -> RateInterval:
    """Return Corollary IV's interval of the noise rate, clipped to [0, 1].

    ``published``: ``1 - alpha m / n <= tau <= 1 - alpha m / n + eps_m``. ``derived``: the same upper end above
    0. Eq. 11 of the in-the-wild paper is the published lower end at alpha = 1.

    Args:
        n: Noisy training samples, an integer > 0.
        m: Distilled images in total at the crossover, m* = C * IPC*, >= 1.
        alpha: Clean content of one distilled image, in clean samples, > 0.
        eps: eps_m, finite and >= 0 (:func:`eps_m`).
        form: Which lower end.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    implied = _implied(alpha, n, m)
    upper = implied + symbols.EPS.read(eps)
    lower = implied if known_form(form) == "published" else np.zeros(())
    both = np.broadcast_arrays(lower, upper)
    return RateInterval(
        lower=frozen(np.clip(both[0], 0, 1)),
        upper=frozen(np.clip(both[1], 0, 1)),
        empty=np.asarray(both[1] < 0),
        form=form,
    )


def kl_gaussian(*, mean_q: ArrayLike, var_q: ArrayLike, mean_p: ArrayLike, var_p: ArrayLike) -> float:
    """Return KL(Q||P) of two Gaussians over weights with diagonal covariance, in nats.

    ``1/2 sum_i (v_q/v_p + (m_q - m_p)^2/v_p - 1 + log(v_p/v_q))``. With the mean of P at the initialisation, Q
    at the trained weights and one variance v for both, this is ``||m_q - m_p||^2 / (2 v)``.

    Args:
        mean_q: Mean of the posterior Q, any shape.
        var_q: Variances of Q, > 0: of the shape of ``mean_q`` (diagonal) or one number (isotropic).
        mean_p: Mean of the prior P, of the shape of ``mean_q``.
        var_p: Variances of P, likewise. P is data-independent: choose them before looking at the sample.

    Raises:
        ValueError: The shapes differ, a mean is not finite, or a variance not finite and positive.
    """
    at_q, at_p = np.asarray(mean_q, dtype=np.float64), np.asarray(mean_p, dtype=np.float64)
    if at_q.shape != at_p.shape:
        raise ValueError(f"mean_q and mean_p must have one shape but got {at_q.shape} and {at_p.shape}")
    if not (np.isfinite(at_q).all() and np.isfinite(at_p).all()):
        raise ValueError("mean_q and mean_p must be finite")
    of_q, of_p = _variance("var_q", var_q, at_q.shape), _variance("var_p", var_p, at_q.shape)
    terms = of_q / of_p - 1 - (np.log(of_q) - np.log(of_p)) + (at_q - at_p) ** 2 / of_p
    return max(0.0, float(terms.sum() / 2))


def _implied(alpha: ArrayLike, n: ArrayLike, m: ArrayLike) -> Floats:
    return np.asarray(1 - symbols.ALPHA.read(alpha) * symbols.M.read(m) / symbols.N.read(n))


def _variance(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = symbols.positive(name).read(values)
    if array.shape not in ((), shape):
        raise ValueError(f"{name} must be one number or of the shape {shape} of the means but got {array.shape}")
    return array
