"""What makes a method trust the right samples.

TAD, SGR and TIAT do it by its experts and targets, RDC by golden sets, and cleaners by the labels that they hand over.
"""

from ddnl_ray.robust.cleaned import CleanedLabels, CleanerTraining
from ddnl_ray.robust.composition import BASES, NAMES, Composition, compose, nearest_method
from ddnl_ray.robust.derived import Derived, Inputs, bring
from ddnl_ray.robust.outcome import Trusted, describe_choice, describe_trust, golden_sets, trusted
from ddnl_ray.robust.preparation import Preparation, Setting, build_buffer, prepare, prepared_from
from ddnl_ray.robust.rdc_trajectory import golden_term

__all__ = [
    "BASES",
    "NAMES",
    "CleanedLabels",
    "CleanerTraining",
    "Composition",
    "Derived",
    "Inputs",
    "Preparation",
    "Setting",
    "Trusted",
    "bring",
    "build_buffer",
    "compose",
    "describe_choice",
    "describe_trust",
    "golden_sets",
    "golden_term",
    "nearest_method",
    "prepare",
    "prepared_from",
    "trusted",
]
