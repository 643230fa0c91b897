"""How many distilled images a class needs, and how many can hold clean content: the bounds on IPC.

Corollaries I (symmetric noise), II (asymmetric) and III (natural) of "Dataset Distillers Are Good Label
Denoisers", Eqs. 1-3, and Corollary I of "Dataset Distillers Are Good Label Denoisers In the Wild", Eq. 10.
Every argument is a number or an array, arguments broadcast against each other, and the arithmetic is float64.
Information is in nats, rates are fractions.

Differs from the original:

- Corollary III, lower end: the proof bounds the information of a class by ``I_clean * IPC * r / kappa``,
  from which ``IPC >= kappa * I_min / (r * I_clean)``. The source prints kappa in the denominator. Its own
  prose (annotations of high kappa need more images) agrees with the proof. ``form="derived"`` is the proof's.
- Corollary II: the formula is the same in both forms; the forms differ in the estimator of C_eff
  (:mod:`analysis.theory.modes`), which is an argument here.
- Eq. 10 states no lower end; it is 0 here, the number below which no IPC lies.

Kept as printed although it is loose: the upper end of Corollary III. Kappa is 1 without confusion, where the
end is ``n * r``, C times that of Corollary I at tau = 0 and, at r = 1, C times the images that a class has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.theory import symbols
from analysis.theory.symbols import Flags, Floats, Form, frozen, known_form

Kind = Literal["symmetric", "in_the_wild", "asymmetric", "natural"]


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """A closed interval of images per class, or an array of them.

    Attributes:
        lower: Lower ends, float64, read-only; the shape is that of the broadcast arguments, () for numbers.
        upper: Upper ends, of the same shape.
        kind: Which statement gave them.
        form: As printed, or as its proof has it. The two coincide for every kind but ``natural``.
    """

    lower: Floats
    upper: Floats
    kind: Kind
    form: Form

    @property
    def empty(self) -> Flags:
        """Whether no IPC is inside: more images are needed than can hold clean content."""
        return np.asarray(self.lower > self.upper)

    def contains(self, ipc: ArrayLike) -> Flags:
        """Return whether numbers of images per class lie inside, ends included.

        Args:
            ipc: Finite numbers > 0, not necessarily integers (a crossover is interpolated), of a shape that
                broadcasts against that of the ends.

        Raises:
            ValueError: An IPC is not finite and positive. A censored crossover has no value to pass.
        """
        values = symbols.IPC.read(ipc)
        return np.asarray((self.lower <= values) & (values <= self.upper))


def symmetric_bounds(
    *,
    n: ArrayLike,
    num_classes: ArrayLike,
    tau: ArrayLike,
    r: ArrayLike,
    i_min: ArrayLike,
    i_clean: ArrayLike,
    form: Form = "published",
) -> Bounds:
    """Return Corollary I (Eq. 1): ``I_min / (r (1 - tau) I_clean) <= IPC <= n (1 - tau) r / C``.

    Args:
        n: Noisy training samples, an integer > 0.
        num_classes: C, an integer >= 2.
        tau: Noise rate, in [0, 1).
        r: Redundancy compression rate, in (0, 1].
        i_min: Information that a class needs to generalise, > 0, in nats.
        i_clean: Information of one clean, non-redundant sample, > 0, in nats.
        form: The forms coincide; recorded in the result.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    classes = symbols.C.read(num_classes)
    return _bounds(_needed(tau, r, i_min, i_clean), _clean(n, tau) * symbols.R.read(r) / classes, "symmetric", form)


def in_the_wild_bounds(*, n: ArrayLike, num_classes: ArrayLike, tau: ArrayLike, form: Form = "published") -> Bounds:
    """Return Corollary I of the in-the-wild paper (Eq. 10): ``0 <= IPC <= n (1 - tau) / C``.

    The upper end is that of Corollary I without redundancy, r = 1.

    Args:
        n: Noisy training samples, an integer > 0.
        num_classes: C, an integer >= 2.
        tau: Noise rate, in [0, 1).
        form: The forms coincide; recorded in the result.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    return _bounds(np.zeros(()), _clean(n, tau) / symbols.C.read(num_classes), "in_the_wild", form)


def asymmetric_bounds(
    *,
    n: ArrayLike,
    tau: ArrayLike,
    r: ArrayLike,
    c_eff: ArrayLike,
    i_min: ArrayLike,
    i_clean: ArrayLike,
    form: Form = "published",
) -> Bounds:
    """Return Corollary II (Eq. 2): ``I_min / (r (1 - tau) I_clean) <= IPC <= n (1 - tau) r / C_eff``.

    Args:
        n: Noisy training samples, an integer > 0.
        tau: Average noise rate of the transition matrix, in [0, 1) (:func:`analysis.theory.modes.average_rate`).
        r: Redundancy compression rate, in (0, 1].
        c_eff: Effective number of modes, >= 1 (:func:`analysis.theory.modes.effective_modes`); at C this is
            Corollary I.
        i_min: Information that a class needs to generalise, > 0, in nats.
        i_clean: Information of one clean, non-redundant sample, > 0, in nats.
        form: Which form ``c_eff`` has (:data:`analysis.theory.modes.FORM_OF`); the ends follow from ``c_eff``
            in the same way in both.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    modes = symbols.C_EFF.read(c_eff)
    return _bounds(_needed(tau, r, i_min, i_clean), _clean(n, tau) * symbols.R.read(r) / modes, "asymmetric", form)


def natural_bounds(
    *,
    n: ArrayLike,
    r: ArrayLike,
    kappa: ArrayLike,
    i_min: ArrayLike,
    i_clean: ArrayLike,
    form: Form = "published",
) -> Bounds:
    """Return Corollary III (Eq. 3): ``I_min / (kappa r I_clean) <= IPC <= n r / kappa``.

    The derived form has ``kappa * I_min / (r I_clean)`` as its lower end.

    Args:
        n: Noisy training samples, an integer > 0.
        r: Redundancy compression rate, in (0, 1].
        kappa: Perplexity of the average confusion, >= 1 (:func:`analysis.theory.modes.kappa`).
        i_min: Information that a class needs to generalise, > 0, in nats.
        i_clean: Information of one clean, non-redundant sample, > 0, in nats.
        form: Which lower end.

    Raises:
        ValueError: A value lies outside its domain, or the shapes do not broadcast.
    """
    confusion = symbols.KAPPA.read(kappa)
    without = _needed(0.0, r, i_min, i_clean)
    lower = without / confusion if known_form(form) == "published" else without * confusion
    return _bounds(lower, symbols.N.read(n) * symbols.R.read(r) / confusion, "natural", form)


def _needed(tau: ArrayLike, r: ArrayLike, i_min: ArrayLike, i_clean: ArrayLike) -> Floats:
    """Return the images of which a class needs ``I_min``, if a share ``r (1 - tau)`` of them is informative.

    Infinite where float64 has no number as large.
    """
    useful = symbols.R.read(r) * (1 - symbols.TAU.read(tau))
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(symbols.I_MIN.read(i_min) / (useful * symbols.I_CLEAN.read(i_clean)))


def _clean(n: ArrayLike, tau: ArrayLike) -> Floats:
    """Return the expected number of samples with a true label."""
    return np.asarray(symbols.N.read(n) * (1 - symbols.TAU.read(tau)))


def _bounds(lower: Floats, upper: Floats, kind: Kind, form: Form) -> Bounds:
    both = np.broadcast_arrays(lower, upper)
    return Bounds(frozen(both[0]), frozen(both[1]), kind, known_form(form))
