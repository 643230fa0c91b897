"""What a search of hyper-parameters shows: its trials, what mattered, and the price of choosing on the test set."""

from __future__ import annotations

from analysis.tuning.choosing import Choosing, choosing
from analysis.tuning.importance import MIN_TRIALS, Importance, Share, importance
from analysis.tuning.parallel import Plot, parallel_plot
from analysis.tuning.searches import Axis, Search, Searched, read_space, searches, value_text

__all__ = [
    "MIN_TRIALS",
    "Axis",
    "Choosing",
    "Importance",
    "Plot",
    "Search",
    "Searched",
    "Share",
    "choosing",
    "importance",
    "parallel_plot",
    "read_space",
    "searches",
    "value_text",
]
