from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from analysis.figures import LIGHT
from analysis.figures.label_sets import label_set_panels, label_sets_figure, no_label_sets

MakeRow = Callable[..., dict[str, Any]]
SETS = {"worse": 0.4, "aggre": 0.09, "random1": 0.17}
LAST = {"aggre": 0.60, "random1": 0.55, "worse": 0.45}


@pytest.fixture
def frame(make_frame: Callable[..., pd.DataFrame], row: MakeRow) -> pd.DataFrame:
    """Two draws of datm at IPC 10 and of full-data training, whose best epoch is 0.1 above the last."""
    rows = []
    for name, rate in SETS.items():
        for draw, shift in enumerate((-0.01, 0.01)):
            same = {"noise": "natural", "noise_rate": rate, "label_set": name, "noise_seed": draw}
            last = LAST[name] + shift
            rows.append(
                row(cell=f"{name}{draw}", base_method="datm", ipc=10, accuracy=last, accuracy_best=last + 0.02, **same)
            )
            rows.append(row(cell=f"f{name}{draw}", base_method="full", accuracy=last - 0.1, accuracy_best=last, **same))
    return make_frame(rows)


def test_best_and_last_by_set_with_full_data_in_the_same_colours(frame: pd.DataFrame) -> None:
    (panel,) = label_set_panels(frame)
    figure = label_sets_figure([panel])
    (axis,) = figure.axes
    assert axis.get_title(loc="left") == "datm · IPC 10"
    assert axis.get_xlabel() == "label set (share of wrong labels)"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["aggre\n9 %", "random1\n17 %", "worse\n40 %"]
    means = [100 * LAST[name] for name in ("aggre", "random1", "worse")]
    wanted = [
        ("s", "-", LIGHT.palette[1], means),
        ("o", "-", LIGHT.palette[0], [mean + 2 for mean in means]),
        ("None", "--", LIGHT.palette[1], [mean - 10 for mean in means]),
        ("None", "--", LIGHT.palette[0], means),
    ]
    drawn = [line for line in axis.lines if list(line.get_xdata()) == [0, 1, 2]]
    assert len(drawn) == 4
    for marker, style, colour, values in wanted:
        (line,) = [
            line
            for line in drawn
            if (line.get_marker(), line.get_linestyle()) == (marker, style)
            and to_rgba(line.get_color()) == to_rgba(colour)
        ]
        assert line.get_ydata() == pytest.approx(values)
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == [
        "distilled, best epoch",
        "distilled, last epoch",
        "full data, last epoch",
        "full data, early stopped",
    ]


def test_what_was_not_scored_at_its_best_epoch_has_the_last_alone(frame: pd.DataFrame) -> None:
    panels = label_set_panels(frame.assign(accuracy_best=None))
    assert panels[0].best == {}
    texts = [text.get_text() for legend in label_sets_figure(panels).legends for text in legend.get_texts()]
    assert texts == ["distilled, last epoch", "full data, last epoch"]


def test_runs_without_annotators_have_no_panel(sweep: pd.DataFrame) -> None:
    assert label_set_panels(sweep) == []
    assert no_label_sets("test").endswith("has a score on the test set.")
