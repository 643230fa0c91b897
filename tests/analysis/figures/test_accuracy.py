from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import DARK, LIGHT, Theme, accuracy_data, accuracy_figure, render
from analysis.figures.style import save
from analysis.fits.curves import accuracy_curves
from analysis.panels import accuracy_panels
from analysis.scores import scores
from analysis.tables import accuracy_table

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


def drawn(frame: pd.DataFrame, **options: Any) -> Figure:
    return accuracy_figure(accuracy_data(frame), **options)


def panels_of(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(loc="left"): axis for axis in figure.axes if axis.axison}


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def flat_lines(axis: Axes) -> list[Line2D]:
    """The horizontal lines that cross the whole panel."""
    return [line for line in axis.lines if list(line.get_xdata()) == [0, 1]]


def curves(axis: Axes, marker: str) -> list[Line2D]:
    return [line for line in axis.lines if line.get_marker() == marker]


def test_one_panel_per_method_with_the_numbers_of_the_table(sweep: pd.DataFrame) -> None:
    panels = panels_of(drawn(sweep))
    assert list(panels) == ["datm", "datm+tad"]
    mean = {(row.noise_rate, row.method, row.ipc): 100 * row.mean for row in accuracy_table(sweep)}
    for method, axis in panels.items():
        for marker, rate in zip("os^", (0.0, 0.3, 0.6), strict=True):
            (line,) = curves(axis, marker)
            assert list(line.get_xdata()) == [1, 10, 50]
            assert line.get_ydata() == pytest.approx([mean[rate, method, ipc] for ipc in (1, 10, 50)])
        assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "10", "50"]
        assert axis.get_xscale() == "log"


def test_full_data_lines_have_the_colour_of_their_rate(sweep: pd.DataFrame) -> None:
    axis = panels_of(drawn(sweep))["datm"]
    mean = {(row.noise_rate, row.method): 100 * row.mean for row in accuracy_table(sweep) if row.ipc is None}
    flat = {round(float(line.get_ydata()[0]), 6): line for line in flat_lines(axis)}
    for marker, rate in zip("os^", (0.0, 0.3, 0.6), strict=True):
        colour = curves(axis, marker)[0].get_color()
        dashed = flat[round(mean[rate, "full (last epoch)"], 6)]
        dotted = flat[round(mean[rate, "full (early stopped)"], 6)]
        assert to_rgba(dashed.get_color()) == to_rgba(dotted.get_color()) == to_rgba(colour)
        assert dashed.get_linewidth() > dotted.get_linewidth()
    assert len(flat) == 6


def test_colours_of_rates_are_ordered_in_lightness(sweep: pd.DataFrame) -> None:
    axis = panels_of(drawn(sweep))["datm"]
    rgb = np.array([to_rgba(curves(axis, marker)[0].get_color())[:3] for marker in "os^"])
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0.1)


def test_bars_are_the_intervals_of_the_table(sweep: pd.DataFrame) -> None:
    axis = panels_of(drawn(sweep))["datm"]
    row = next(row for row in accuracy_table(sweep) if (row.noise_rate, row.method, row.ipc) == (0.6, "datm", 50))
    bars = [list(line.get_ydata()) for line in axis.lines if list(line.get_xdata()) == [50, 50]]
    assert any(bar == pytest.approx([100 * row.low, 100 * row.high]) for bar in bars)


def test_bands_are_those_of_the_fits_in_the_colour_of_their_curve(sweep: pd.DataFrame) -> None:
    axis = panels_of(drawn(sweep))["datm"]
    found = [item for item in accuracy_curves(sweep) if item.setting.method == "datm"]
    assert len(axis.collections) == len(found) == 3
    for band, item, marker in zip(axis.collections, found, "os^", strict=True):
        (path,) = band.get_paths()
        heights = {round(float(y), 6) for _, y in path.vertices}
        assert {round(100 * end, 6) for point in item.points for end in (point.low, point.high)} <= heights
        assert to_rgba(band.get_facecolor()[0])[:3] == to_rgba(curves(axis, marker)[0].get_color())[:3]


def test_legends_name_what_is_drawn_and_nothing_else(sweep: pd.DataFrame) -> None:
    kinds = ["distilled, with interval", "full data, last epoch", "full data, early stopped", "random images"]
    band = ["bootstrap band"]
    rates = ["no noise", "30 % noise", "60 % noise"]
    assert legend_texts(drawn(sweep)) == rates + kinds + band
    bare = sweep[~sweep["base_method"].isin(["full", "random"]) & (sweep["noise_rate"] > 0)]
    assert legend_texts(drawn(bare)) == [*rates[1:], kinds[0], *band]


def test_random_alone_gets_a_panel_of_its_own(sweep: pd.DataFrame) -> None:
    panels = panels_of(drawn(sweep[sweep["base_method"] == "random"]))
    assert list(panels) == ["random"]
    assert curves(panels["random"], "x") == []


def test_what_has_no_noise_joins_every_kind_of_noise(make_frame: MakeFrame, row: MakeRow) -> None:
    settings = [
        ("none", 0.0, None),
        ("symmetric", 0.4, None),
        ("natural", 0.09, "aggre"),
        ("natural", 0.4, "worse"),
    ]
    rows = [
        row(
            cell=str(i),
            noise=noise,
            noise_rate=rate,
            label_set=label,
            base_method="datm",
            ipc=1,
            accuracy=0.5,
        )
        for i, (noise, rate, label) in enumerate(settings)
    ]
    found = accuracy_panels(scores(make_frame(rows)))
    assert [(panel.key.noise, set(panel.curves)) for panel in found] == [
        ("symmetric", {settings[0], settings[1]}),
        ("natural", {settings[0], settings[2], settings[3]}),
    ]
    figure = drawn(make_frame(rows))
    assert legend_texts(figure)[:4] == ["no noise", "40 % noise", "aggre", "worse"]
    natural = figure.axes[1]
    assert len({to_rgba(line.get_color()) for line in natural.lines}) == 3
    (alone,) = accuracy_panels(scores(make_frame(rows[:1])))
    assert alone.key.noise == "none"


def test_one_replicate_has_bars_and_no_band(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [
        row(cell=str(ipc), base_method="datm", ipc=ipc, eval_seed=i, accuracy=0.5 + i / 100)
        for ipc in (1, 10)
        for i in (0, 1)
    ]
    figure = drawn(make_frame(rows))
    assert list(figure.axes[0].collections) == []
    assert legend_texts(figure)[-1] == "interval of retraining only"


def test_panels_of_a_data_set_share_their_accuracy_axis_within_bounds(sweep: pd.DataFrame) -> None:
    first, second = panels_of(drawn(sweep)).values()
    assert first.get_ylim() == second.get_ylim()
    low, high = first.get_ylim()
    assert 0 <= low < 22
    assert 97 < high <= 101.5


def test_nothing_to_draw_is_a_sentence(sweep: pd.DataFrame) -> None:
    for frame in (sweep.iloc[:0], sweep[sweep["base_method"] == "full"], sweep[sweep["outcome"] != "ok"]):
        figure = drawn(frame)
        assert [text.get_text() for text in figure.texts] == ["No distilled set has a score on the test set."]


def test_columns_and_theme(sweep: pd.DataFrame) -> None:
    wide, narrow = drawn(sweep), drawn(sweep, columns=1, theme=DARK)
    assert narrow.get_figwidth() == wide.get_figwidth() / 2
    assert to_rgba(narrow.get_facecolor()) == to_rgba(DARK.paper)
    assert to_rgba(wide.get_facecolor()) == to_rgba(LIGHT.paper)


def test_one_kind_of_noise_has_a_figure_of_its_own_in_the_same_colours(make_frame: MakeFrame, row: MakeRow) -> None:
    settings = [("none", 0.0), ("symmetric", 0.2), ("symmetric", 0.4), ("asymmetric", 0.4)]
    rows = [
        row(cell=f"{noise}{rate}", noise=noise, noise_rate=rate, base_method="datm", ipc=1, accuracy=0.5)
        for noise, rate in settings
    ]
    data = accuracy_data(make_frame(rows))
    assert data.noises == ["symmetric", "asymmetric"]
    whole, alone = accuracy_figure(data), accuracy_figure(data, noise="asymmetric")
    assert [len(figure.axes) for figure in (whole, alone)] == [2, 1]
    assert legend_texts(alone)[:2] == ["no noise", "40 % noise"]
    colours = [{to_rgba(line.get_color()) for line in axis.lines} for axis in (whole.axes[1], alone.axes[0])]
    assert colours[0] == colours[1]
    missing = accuracy_figure(data, noise="natural")
    assert [text.get_text() for text in missing.texts] == [
        "No distilled set under natural noise has a score on the test set."
    ]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_without_an_order_have_contrast_with_the_paper(theme: Theme) -> None:
    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgba(colour)[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance(theme.paper)
    for colour in (*theme.palette, theme.muted, theme.text):
        light, dark = max(luminance(colour), paper), min(luminance(colour), paper)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_saved_figures_are_whole_and_the_same_each_time(sweep: pd.DataFrame, tmp_path: Path) -> None:
    paths = save(drawn(sweep), tmp_path / "figures", "accuracy")
    assert [path.name for path in paths] == ["accuracy.svg", "accuracy.pdf", "accuracy.png"]
    first = [path.read_bytes() for path in paths]
    assert ElementTree.fromstring(first[0]).tag.endswith("svg")
    assert first[1].startswith(b"%PDF")
    assert first[2].startswith(b"\x89PNG")
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    save(drawn(sweep), tmp_path / "figures", "accuracy")
    assert [path.read_bytes() for path in paths] == first
    assert render(drawn(sweep), "svg") == render(drawn(sweep), "svg")


def test_figures_do_without_pyplot() -> None:
    code = "import sys, analysis.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
