"""The theory of the paper, as pure functions of numbers and arrays: no files, no frames, no hidden randomness.

``bounds`` has the bounds on IPC (Corollaries I-III and Eq. 10), ``modes`` kappa and C_eff, ``noise_rate``
Corollary IV. Where a printed statement contradicts its own proof, both forms are offered: ``form="published"``
(the default) and ``form="derived"``; the module docstrings say why.

The nine estimators of what the bounds are made of are imported by module: ``information`` (I_min), ``clean`` (I_clean)
and ``redundancy`` (r), with ``estimate``, ``measures``, ``densities``, ``chance`` and ``arrays`` below them.
"""

from analysis.theory.bounds import (
    Bounds,
    asymmetric_bounds,
    in_the_wild_bounds,
    natural_bounds,
    symmetric_bounds,
)
from analysis.theory.modes import (
    C_EFF_ESTIMATORS,
    FORM_OF,
    average_entropy,
    average_rate,
    effective_modes,
    kappa,
    row_normalised,
)
from analysis.theory.noise_rate import (
    RateInterval,
    eps_m,
    estimate_rate,
    kl_gaussian,
    rate_interval,
)
from analysis.theory.symbols import FORMS, Form

__all__ = [
    "C_EFF_ESTIMATORS",
    "FORMS",
    "FORM_OF",
    "Bounds",
    "Form",
    "RateInterval",
    "asymmetric_bounds",
    "average_entropy",
    "average_rate",
    "effective_modes",
    "eps_m",
    "estimate_rate",
    "in_the_wild_bounds",
    "kappa",
    "kl_gaussian",
    "natural_bounds",
    "rate_interval",
    "row_normalised",
    "symmetric_bounds",
]
