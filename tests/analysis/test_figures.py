from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import DARK, LIGHT, accuracy_figure, render, save_figures
from analysis.panels import accuracy_panels
from analysis.scores import scores
from analysis.tables import accuracy_table

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


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
    panels = panels_of(accuracy_figure(sweep))
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
    axis = panels_of(accuracy_figure(sweep))["datm"]
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
    axis = panels_of(accuracy_figure(sweep))["datm"]
    rgb = np.array([to_rgba(curves(axis, marker)[0].get_color())[:3] for marker in "os^"])
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0.1)


def test_bands_are_the_intervals(sweep: pd.DataFrame) -> None:
    axis = panels_of(accuracy_figure(sweep))["datm"]
    row = next(row for row in accuracy_table(sweep) if (row.noise_rate, row.method, row.ipc) == (0.6, "datm", 50))
    ends = {(round(band.get_datalim(axis.transData).y0, 4)) for band in axis.collections}
    assert round(100 * row.low, 4) in ends
    bars = [list(line.get_ydata()) for line in axis.lines if list(line.get_xdata()) == [50, 50]]
    assert any(bar == pytest.approx([100 * row.low, 100 * row.high]) for bar in bars)


def test_legends_name_what_is_drawn_and_nothing_else(sweep: pd.DataFrame) -> None:
    kinds = ["distilled, with interval", "full data, last epoch", "full data, early stopped", "random images"]
    rates = ["no noise", "30 % noise", "60 % noise"]
    assert legend_texts(accuracy_figure(sweep)) == rates + kinds
    bare = sweep[~sweep["base_method"].isin(["full", "random"]) & (sweep["noise_rate"] > 0)]
    assert legend_texts(accuracy_figure(bare)) == [*rates[1:], kinds[0]]


def test_random_alone_gets_a_panel_of_its_own(sweep: pd.DataFrame) -> None:
    panels = panels_of(accuracy_figure(sweep[sweep["base_method"] == "random"]))
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
    figure = accuracy_figure(make_frame(rows))
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
    figure = accuracy_figure(make_frame(rows))
    assert list(figure.axes[0].collections) == []
    assert legend_texts(figure)[-1] == "interval of retraining only"


def test_panels_of_a_data_set_share_their_accuracy_axis_within_bounds(sweep: pd.DataFrame) -> None:
    first, second = panels_of(accuracy_figure(sweep)).values()
    assert first.get_ylim() == second.get_ylim()
    low, high = first.get_ylim()
    assert 0 <= low < 22
    assert 97 < high <= 101.5


def test_nothing_to_draw_is_a_sentence(sweep: pd.DataFrame) -> None:
    for frame in (sweep.iloc[:0], sweep[sweep["base_method"] == "full"], sweep[sweep["outcome"] != "ok"]):
        figure = accuracy_figure(frame)
        assert [text.get_text() for text in figure.texts] == ["No distilled set has a score on the test set."]


def test_columns_and_theme(sweep: pd.DataFrame) -> None:
    wide, narrow = accuracy_figure(sweep), accuracy_figure(sweep, columns=1, theme=DARK)
    assert narrow.get_figwidth() == wide.get_figwidth() / 2
    assert to_rgba(narrow.get_facecolor()) == to_rgba(DARK.paper)
    assert to_rgba(wide.get_facecolor()) == to_rgba(LIGHT.paper)


def test_saved_figures_are_whole_and_the_same_each_time(sweep: pd.DataFrame, tmp_path: Path) -> None:
    paths = save_figures(sweep, tmp_path / "figures")
    assert [path.name for path in paths] == ["accuracy.png", "accuracy.pdf"]
    first = [path.read_bytes() for path in paths]
    assert first[0].startswith(b"\x89PNG")
    assert first[1].startswith(b"%PDF")
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    save_figures(sweep, tmp_path / "figures")
    assert [path.read_bytes() for path in paths] == first
    assert render(accuracy_figure(sweep), "svg") == render(accuracy_figure(sweep), "svg")


def test_figures_do_without_pyplot() -> None:
    code = "import sys, analysis.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
