"""The symbols of the theory: the domain of each, and the two forms that a statement can have.

Names and domains follow "Dataset Distillers Are Good Label Denoisers", Table 1 and the assumptions of its
Appendix B.

Differs from the original:

- m is real, not an integer: an interpolated crossover lies between two numbers of images.
- alpha is any number > 0. Remark 3 of Corollary IV restricts it to (0, 1] and in the same sentence speaks of
  distilled images that hold more than one clean sample, which is alpha > 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddnl_ray.errors import require_known

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

Form = Literal["published", "derived"]
FORMS: tuple[Form, ...] = ("published", "derived")
"""``published``: as printed in the source. ``derived``: what the source's own proof gives."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol and the numbers that it may stand for.

    Attributes:
        name: As the source writes it.
        domain: The domain in words, to follow "must be".
        holds: Whether each of an array of numbers lies in the domain; false for not-a-number.
    """

    name: str
    domain: str
    holds: Callable[[Floats], Flags]

    def read(self, values: ArrayLike) -> Floats:
        """Return ``values`` in float64, of their own shape.

        Raises:
            ValueError: A value lies outside the domain; the message names the symbol, the first such value,
                its index and the domain.
        """
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name} must be {self.domain} but got {values!r}") from error
        outside = np.argwhere(~self.holds(array))
        if len(outside):
            index = tuple(map(int, outside[0]))
            where = f" at index {index[0] if array.ndim == 1 else index}" if array.ndim else ""
            raise ValueError(f"{self.name} must be {self.domain} but got {float(array[index])}{where}")
        return array


def known_form(form: Form) -> Form:
    """Return ``form`` if it is one of :data:`FORMS`.

    Raises:
        RequestError: It is not.
    """
    require_known("form", form, FORMS)
    return form


def frozen(array: ArrayLike) -> Floats:
    """Return a read-only float64 copy."""
    copy = np.array(array, dtype=np.float64)
    copy.setflags(write=False)
    return copy


def positive(name: str) -> Symbol:
    """Return a symbol that stands for finite numbers > 0."""
    return Symbol(name, "finite and > 0", lambda x: np.isfinite(x) & (x > 0))


def _at_least_one(name: str) -> Symbol:
    return Symbol(name, "finite and >= 1", lambda x: np.isfinite(x) & (x >= 1))


def _integer(name: str, smallest: int, domain: str) -> Symbol:
    return Symbol(name, domain, lambda x: np.isfinite(x) & (x == np.floor(x)) & (x >= smallest))


N = _integer("n", 1, "an integer > 0")
N_VAL = _integer("n_val", 1, "an integer > 0")
C = _integer("C", 2, "an integer >= 2")
IPC = positive("IPC")
M = _at_least_one("m")
TAU = Symbol("tau", "in [0, 1)", lambda x: (x >= 0) & (x < 1))
R = Symbol("r", "in (0, 1]", lambda x: (x > 0) & (x <= 1))
I_MIN = positive("I_min")
I_CLEAN = positive("I_clean")
C_EFF = _at_least_one("C_eff")
KAPPA = _at_least_one("kappa")
ALPHA = positive("alpha")
DELTA = Symbol("delta", "in (0, 1)", lambda x: (x > 0) & (x < 1))
KL = Symbol("KL", "finite and >= 0", lambda x: np.isfinite(x) & (x >= 0))
EPS = Symbol("eps_m", "finite and >= 0", KL.holds)
