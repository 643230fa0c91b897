"""What is wrong with the labels of a data set whose truth nobody knows: how many, which, and what to do next.

``confident`` and ``estimators`` are functions of arrays, ``findings`` gathers what they say and puts it into words and
JSON, ``page`` renders it. The networks behind the arrays are trained elsewhere (:mod:`ddnl_ray.audit`).
"""

from analysis.noise_rate.calibration import Calibration, calibrate
from analysis.noise_rate.estimators import RateEstimate, corollary
from analysis.noise_rate.findings import Evidence, Findings, Labels, find, suggested_labels, to_json, to_text
from analysis.noise_rate.gap import Gap, pac_bayes_gap
from analysis.noise_rate.page import SHEET, render_page
from ddnl_ray.lnl.confident import Confusion, Suspect

__all__ = [
    "SHEET",
    "Calibration",
    "Confusion",
    "Evidence",
    "Findings",
    "Gap",
    "Labels",
    "RateEstimate",
    "Suspect",
    "calibrate",
    "corollary",
    "find",
    "pac_bayes_gap",
    "render_page",
    "suggested_labels",
    "to_json",
    "to_text",
]
