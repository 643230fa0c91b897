"""The figures of the papers, and the theory over them, from the result tables of runs.

``python -m analysis.figures RUN...`` writes them; :func:`analysis.figures.catalogue.catalogue` lists them.
"""

from analysis.figures.accuracy import accuracy_data, accuracy_figure
from analysis.figures.catalogue import Catalogue, Entry, Material, catalogue
from analysis.figures.style import DARK, LIGHT, Theme, render

__all__ = [
    "DARK",
    "LIGHT",
    "Catalogue",
    "Entry",
    "Material",
    "Theme",
    "accuracy_data",
    "accuracy_figure",
    "catalogue",
    "render",
]
