"""The figures that set the theory over the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from analysis.analyze import Information, analyze
from analysis.figures import LIGHT, Material, accuracy_data
from analysis.figures.bounds import BAND, NO_CROSSOVER, bounds_figure, marked_panels
from analysis.figures.scaling import law_panels, law_sentences, scaling_figure
from analysis.figures.style import series_styles

LawRun = Callable[..., tuple[Path, pd.DataFrame]]
INFORMATION = Information(i_min=2.0, i_clean=1.0, redundancy=0.5)


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def overlay(run: tuple[Path, pd.DataFrame], information: Information = INFORMATION) -> Figure:
    material = Material.of([run])
    data = accuracy_data(material.frame)
    return bounds_figure(marked_panels(data, analyze(material.frame, material.facts, information)), data)


def law(run: tuple[Path, pd.DataFrame]) -> Figure:
    material = Material.of([run])
    panels = law_panels(analyze(material.frame, material.facts, Information()))
    return scaling_figure(panels, series_styles(accuracy_data(material.frame).series, LIGHT))


def marked(axis: Axes, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in axis.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def test_crossovers_lie_on_the_full_data_line_with_both_forms_of_the_bounds(law_run: LawRun) -> None:
    figure = overlay(law_run("law"))
    (axis,) = figure.axes
    crossings = [x for x, y in marked(axis, "D") if y == pytest.approx(50)]
    assert crossings == pytest.approx([4 / (1 - rate) for rate in (0.0, 0.2, 0.4, 0.6)], rel=0.02)
    lower, upper = [4 / (1 - rate) for rate in (0, 0.2, 0.4, 0.6)], [50 * (1 - rate) for rate in (0, 0.2, 0.4, 0.6)]
    bands = [line for line in axis.lines if line.get_linewidth() == BAND["linewidth"]]
    ends = np.array([[float(x) for x in line.get_xdata()] for line in bands])
    assert ends == pytest.approx(np.array([lower, upper]).T)
    assert [x for x, _ in marked(axis, "$[$")] == pytest.approx(lower)
    assert [x for x, _ in marked(axis, "$]$")] == pytest.approx(upper)
    texts = ["no noise", "20 % noise", "40 % noise", "60 % noise", "full data, last epoch", "IPC*, with interval"]
    assert legend_texts(figure) == [*texts, "bounds, as printed", "bounds, as derived"]
    assert [text.get_text() for text in axis.texts] == ["digits · symmetric noise · convnet3"]
    low, high = axis.get_xlim()
    assert low < min(lower)
    assert high > max(upper)
    dashed = {to_rgba(line.get_color()) for line in axis.lines if list(line.get_xdata()) == [0, 1]}
    assert dashed == {to_rgba(line.get_color()) for line in bands}


def test_censored_crossovers_are_arrows_beyond_what_was_run(law_run: LawRun) -> None:
    below, above = overlay(law_run("below", 0.3)), overlay(law_run("above", 35.0))
    assert {x for x, _ in marked(below.axes[0], "<")} == {1 / 1.6}
    assert "IPC* below those run" in legend_texts(below)
    assert "IPC* above those run" not in legend_texts(below)
    assert [x for x, _ in marked(above.axes[0], ">")] == pytest.approx([80, 80])  # at 40 and 60 %
    assert len(marked(above.axes[0], "D")) == 2
    for figure in (below, above):
        low, high = figure.axes[0].get_xlim()
        assert low < 1 / 1.6
        assert high > 80


def test_without_information_the_band_is_open_at_its_lower_end(law_run: LawRun) -> None:
    (axis,) = overlay(law_run("law"), Information()).axes
    bands = [line for line in axis.lines if line.get_linewidth() == BAND["linewidth"]]
    assert {float(line.get_xdata()[0]) for line in bands} == {axis.get_xlim()[0]}
    assert marked(axis, "$[$") == []
    assert len(marked(axis, "$]$")) == 4


def test_bounds_that_exclude_one_another_are_said(law_run: LawRun) -> None:
    (axis,) = overlay(law_run("law"), Information(i_min=24.0, i_clean=1.0)).axes
    assert "lower bound above upper: 60 % noise" in [text.get_text() for text in axis.texts]
    assert len([line for line in axis.lines if line.get_linewidth() == BAND["linewidth"]]) == 3


def test_a_run_of_unknown_size_has_crossovers_without_bounds(law_run: LawRun) -> None:
    run, frame = law_run("law")
    (run / "summary.json").unlink()
    texts = legend_texts(overlay((run, frame)))
    assert "IPC*, with interval" in texts
    assert not [text for text in texts if text.startswith("bounds")]


def test_without_full_data_training_there_is_nothing_to_mark(law_run: LawRun) -> None:
    run, frame = law_run("law")
    frame = frame[frame["base_method"] != "full"]
    found = analyze(frame, Material.of([(run, frame)]).facts, Information())
    assert marked_panels(accuracy_data(frame), found) == []
    assert law_panels(found) == []
    assert NO_CROSSOVER.endswith("so there is no IPC*.")


def test_the_law_is_a_straight_line_of_its_exponent(law_run: LawRun) -> None:
    figure = law(law_run("law"))
    (axis,) = figure.axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    fitted, predicted = (line for line in axis.lines if list(line.get_xdata()) == list(axis.get_xlim()))
    for line in (fitted, predicted):
        xs, ys = np.log(line.get_xdata()), np.log(line.get_ydata())
        assert (ys[1] - ys[0]) / (xs[1] - xs[0]) == pytest.approx(1.0, abs=0.01)
        assert np.exp(np.interp(0.0, xs, ys)) == pytest.approx(4.0, rel=0.02)
    assert fitted.get_linestyle() == "-"
    assert predicted.get_linestyle() == "--"
    places = [marked(axis, marker)[0] for marker in "os^D"]
    assert [x for x, _ in places] == pytest.approx([1 / (1 - rate) for rate in (0, 0.2, 0.4, 0.6)])
    assert [y for _, y in places] == pytest.approx([4 / (1 - rate) for rate in (0, 0.2, 0.4, 0.6)], rel=0.02)
    assert axis.get_xlabel().startswith("noise rate τ (%)")
    assert "predicted 1" in axis.get_xlabel()
    assert axis.get_ylabel() == "IPC*"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "20", "40", "60"]
    assert legend_texts(figure)[4:] == ["fitted law", "slope 1, as predicted"]


def test_a_law_without_a_fit_shows_arrows_and_says_why(law_run: LawRun) -> None:
    figure = law(law_run("above", 35.0))
    (axis,) = figure.axes
    assert "at least 3" in " ".join(axis.get_xlabel().split())
    assert legend_texts(figure)[4:] == ["slope 1, as predicted", "IPC* above those run"]
    hollow = [line for line in axis.lines if to_rgba(line.get_markerfacecolor()) == to_rgba(LIGHT.paper)]
    assert [list(line.get_ydata()) for line in hollow] == [[50], [50]]


def test_sentences_name_the_law_they_speak_of(law_run: LawRun) -> None:
    run, frame = law_run("law")
    found = analyze(frame, Material.of([(run, frame)]).facts, Information())
    (sentence,) = law_sentences(law_panels(found))
    assert sentence.startswith("digits · symmetric noise · convnet3, datm: b = ")
    assert law_panels(replace(found, laws=())) == []
