"""Every figure that the results of one or several runs can give, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure

from analysis.analyze import Analysis, Information, analyze
from analysis.facts import Facts
from analysis.figures.accuracy import AccuracyData, accuracy_data, accuracy_figure, nothing
from analysis.figures.bounds import NO_CROSSOVER, bounds_figure, marked_panels
from analysis.figures.images import NO_IMAGES, image_blocks, images_figure
from analysis.figures.label_sets import label_set_panels, label_sets_figure, no_label_sets
from analysis.figures.rates import no_rates, rate_panels, rates_figure
from analysis.figures.scaling import law_panels, law_sentences, scaling_figure
from analysis.figures.style import LIGHT, Theme, save, series_styles
from analysis.several import join, read_facts
from ddnl_ray.results import read_run

KINDS = ("symmetric", "asymmetric", "natural")
"""The kinds of noise of the papers' figures; others have a figure where they were run."""


class Draw(Protocol):
    """Draws one figure."""

    def __call__(self, *, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        """Return the figure in the colours of ``theme``, with so many panels per row (by default as in print)."""


@dataclass(frozen=True)
class Material:
    """What figures are made of.

    Attributes:
        frame: The result table of all runs.
        runs: Each run folder with its own result table.
        facts: What the bounds need to know of the runs.
    """

    frame: pd.DataFrame
    runs: tuple[tuple[Path, pd.DataFrame], ...]
    facts: Facts

    @classmethod
    def of(cls, runs: Sequence[tuple[Path, pd.DataFrame]]) -> Material:
        """Join runs that were read.

        Args:
            runs: At least one.
        """
        return cls(join(runs), tuple(runs), read_facts(runs))

    @classmethod
    def read(cls, runs: Sequence[Path]) -> Material:
        """Read run folders; one that is named twice counts once.

        Raises:
            RequestError: A folder is not a run folder, or no trial of it has finished.
        """
        return cls.of([(run, read_run(run)) for run in dict.fromkeys(runs)])


@dataclass(frozen=True)
class Entry:
    """A figure, or the sentence why there is none.

    Attributes:
        name: The stem of its files.
        title: What it shows.
        draw: Draws it; None if the runs do not have what it needs.
        reason: What they lack, in a sentence; empty if nothing.
        notes: What a reader must know beside it, in sentences.
    """

    name: str
    title: str
    draw: Draw | None
    reason: str = ""
    notes: tuple[str, ...] = ()

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write the figure as svg, pdf and png; nothing if there is none.

        Returns:
            The paths, in this order.
        """
        return save(self.draw(), folder, self.name) if self.draw is not None else ()


@dataclass(frozen=True)
class Catalogue:
    """All figures of some runs.

    Attributes:
        data: What the figures with an IPC axis draw.
        analysis: The results set against the theory.
        entries: The figures, in the order of the papers.
    """

    data: AccuracyData
    analysis: Analysis
    entries: tuple[Entry, ...]

    def named(self, name: str) -> Entry:
        """Return the entry of a name."""
        return next(entry for entry in self.entries if entry.name == name)


def catalogue(
    material: Material, split: str = "test", confidence: float = 0.95, information: Information | None = None
) -> Catalogue:
    """Return every figure that the runs can give, and why not the others.

    Args:
        material: The runs.
        split: The split that was scored.
        confidence: Coverage of bands and bars.
        information: What the bounds take beside the runs.
    """
    data = accuracy_data(material.frame, split, confidence)
    analysis = analyze(material.frame, material.facts, information or Information(), split)
    kinds = [*KINDS, *(noise for noise in data.noises if noise not in KINDS)]
    entries = [
        *(_accuracy(data, noise) for noise in kinds),
        *(_rates(data, noise) for noise in kinds if noise not in ("natural", "none")),
        _label_sets(material.frame, split, confidence),
        _images(material, split),
        _bounds(data, analysis),
        _scaling(data, analysis),
    ]
    return Catalogue(data, analysis, tuple(entries))


def _accuracy(data: AccuracyData, noise: str) -> Entry:
    name, words = ("accuracy-clean", "without noise") if noise == "none" else (f"accuracy-{noise}", f"{noise} noise")

    def draw(*, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        return accuracy_figure(data, noise=noise, theme=theme, columns=columns)

    return _entry(
        name, f"Accuracy against images per class, {words}", draw, noise in data.noises, nothing(data.split, noise)
    )


def _rates(data: AccuracyData, noise: str) -> Entry:
    panels = rate_panels(data.panels, noise)

    def draw(*, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        return rates_figure(panels, theme=theme, columns=columns)

    return _entry(f"rates-{noise}", f"Accuracy against the rate of {noise} noise", draw, bool(panels), no_rates(noise))


def _label_sets(frame: pd.DataFrame, split: str, confidence: float) -> Entry:
    panels = label_set_panels(frame, split, confidence)

    def draw(*, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        return label_sets_figure(panels, theme=theme, columns=columns)

    title = "Accuracy by label set, at the best and at the last epoch"
    return _entry("label-sets", title, draw, bool(panels), no_label_sets(split))


def _images(material: Material, split: str) -> Entry:
    blocks = image_blocks(material.runs, split)

    def draw(*, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        return images_figure(blocks, theme=theme, columns=columns)

    return _entry("images", "Distilled images, one per class", draw, bool(blocks), NO_IMAGES)


def _bounds(data: AccuracyData, analysis: Analysis) -> Entry:
    marked = marked_panels(data, analysis)
    unknown = {each.reason: None for each in analysis.bounds if each.reason}

    def draw(*, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        return bounds_figure(marked, data, theme=theme, columns=columns)

    title = "The theory over the data: crossovers and bounds"
    return _entry("bounds", title, draw, bool(marked), analysis.reason or NO_CROSSOVER, tuple(unknown))


def _scaling(data: AccuracyData, analysis: Analysis) -> Entry:
    panels = law_panels(analysis)

    def draw(*, theme: Theme = LIGHT, columns: int | None = None) -> Figure:
        return scaling_figure(panels, series_styles(data.series, theme), theme=theme, columns=columns)

    title = "The scaling law of the crossover"
    return _entry("scaling", title, draw, bool(panels), analysis.reason or NO_CROSSOVER, tuple(law_sentences(panels)))


def _entry(name: str, title: str, draw: Draw, exists: bool, reason: str, notes: tuple[str, ...] = ()) -> Entry:
    return Entry(name, title, draw, notes=notes) if exists else Entry(name, title, None, reason)
