from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from analysis.figures import LIGHT
from analysis.figures.accuracy import accuracy_data
from analysis.figures.rates import no_rates, rate_panels, rates_figure
from analysis.tables import accuracy_table

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]


def lines_of(axis: Axes, marker: str) -> list[Line2D]:
    return [line for line in axis.lines if line.get_marker() == marker and len(line.get_xdata()) == 3]


def test_one_panel_per_ipc_with_the_numbers_of_the_table(sweep: pd.DataFrame) -> None:
    panels = rate_panels(accuracy_data(sweep).panels, "symmetric")
    assert [panel.key.ipc for panel in panels] == [1, 10, 50]
    figure = rates_figure(panels)
    mean = {(row.noise_rate, row.method, row.ipc): 100 * row.mean for row in accuracy_table(sweep)}
    for axis, ipc in zip(figure.axes, (1, 10, 50), strict=True):
        assert axis.get_title(loc="left") == f"IPC {ipc}"
        assert axis.get_xlabel() == "noise rate (%)"
        assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "30", "60"]
        for method, marker in (("datm", "o"), ("datm+tad", "s")):
            (line,) = lines_of(axis, marker)
            assert list(line.get_xdata()) == [0, 30, 60]
            assert line.get_ydata() == pytest.approx([mean[rate, method, ipc] for rate in (0.0, 0.3, 0.6)])
        full = [mean[rate, "full (last epoch)", None] for rate in (0.0, 0.3, 0.6)]
        (dashed,) = [line for line in axis.lines if list(line.get_ydata()) == pytest.approx(full)]
        assert dashed.get_linestyle() == "--"
        assert to_rgba(dashed.get_color()) == to_rgba(LIGHT.muted)
    assert figure.axes[0].get_ylabel() == "accuracy (%)"
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["datm", "datm+tad", "full data, last epoch", "full data, early stopped", "random images"]


def test_one_rate_is_no_figure(sweep: pd.DataFrame) -> None:
    data = accuracy_data(sweep[sweep["noise_rate"] == 0.6])
    assert rate_panels(data.panels, "symmetric") == []
    assert rate_panels(accuracy_data(sweep).panels, "asymmetric") == []
    assert "asymmetric noise" in no_rates("asymmetric")


def test_a_failed_cell_leaves_a_gap_and_no_point(sweep: pd.DataFrame) -> None:
    lost = sweep["base_method"].eq("datm") & sweep["variant"].eq("none") & sweep["ipc"].eq(50).fillna(False)
    panels = rate_panels(accuracy_data(sweep[~(lost & sweep["noise_rate"].eq(0.3))]).panels, "symmetric")
    assert sorted(panels[2].methods["datm"]) == [0.0, 0.6]
    assert panels[2].rates == [0.0, 0.3, 0.6]
    texts = [text.get_text() for text in rates_figure(panels).axes[2].get_xticklabels()]
    assert texts == ["0", "30", "60"]


def test_one_replicate_and_no_baseline(make_frame: MakeFrame, row: MakeRow) -> None:
    rows = [
        row(cell=str(rate), noise="pairflip", noise_rate=rate, base_method="dm", ipc=10, accuracy=0.5)
        for rate in (0.1, 0.4)
    ]
    figure = rates_figure(rate_panels(accuracy_data(make_frame(rows)).panels, "pairflip"))
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == ["dm"]
    assert len(figure.axes[0].lines) == 1  # one value per point: no bar
