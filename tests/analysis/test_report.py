from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.report import render_report, write_report

MakeFrame = Callable[..., pd.DataFrame]
MakeRow = Callable[..., dict[str, Any]]

VOID = {"meta", "img", "br", "source", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects links, sources and the text of sections."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset"):
                self.sources.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_report_stands_alone(run_folder: Path, sweep: pd.DataFrame) -> None:
    path = write_report(run_folder, sweep)
    assert path == run_folder / "report.html"
    html = path.read_text()
    page = Page(html)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.removeprefix("#") in page.ids for link in page.links if link.startswith("#"))
    files = {link for link in page.links if not link.startswith("#")}
    drawn = ("accuracy-symmetric", "rates-symmetric", "images", "bounds", "scaling")
    assert files == {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "pdf", "png")}
    assert all((run_folder / file).is_file() for file in files)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "@import" not in html
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html


def test_report_says_everything_the_sweep_shows(run_folder: Path, sweep: pd.DataFrame) -> None:
    text = Page(render_report(run_folder, sweep)).text
    for part in (
        "89 of 90",
        "1 failed",
        "Against full-data training (last epoch), of 18 distilled settings:",
        "digits, symmetric 60 %, datm on convnet3 against full-data training (early stopped):",
        "Distilled set minus full-data training (last epoch), in points; n = 3 unless stated",
        "± 19.9 , n = 2",
        "digits · symmetric 30 % · convnet3 full (last epoch) – 3",
        "full (early stopped) – 3",
        "datm+tad · IPC 1 · digits · convnet3",
        "6 other replicates",
        "27 cells compared trials with different parameters",
        "tad.consistency_weight = 0.2, tad.top_k = 100",
        "highest accuracy on val_noisy (held-out data with noisy labels)",
        "diverged The matching loss stayed above its threshold",
        "loss 912.4 stayed above 500 for 200 iterations <of 400>",
        "noise seed 2, seed 0",
        "no score",
        "0.1.0+abc123",
        "cpu (2 cores)",
        "full 9 6 min 0 s 40 s 256.0 MiB",
        "Theory IPC* is the number of images per class",
        "digits · symmetric noise · convnet3, datm+tad: A scaling law needs at least 3 measured crossovers",
        "The run does not say how many training images and classes there are",
    ):
        assert part in text, part
    assert "selected on the test set" not in text.lower()


def test_data_cannot_write_html(run_folder: Path, sweep: pd.DataFrame) -> None:
    hostile = sweep.assign(dataset="<img src=x onerror=alert(1)>", device='"><script>', message="<b>bold</b>")
    html = render_report(run_folder, hostile)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    page = Page(html)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "x" not in page.sources


def test_selection_on_the_test_set_is_loud(make_frame: MakeFrame, row: MakeRow, tmp_path: Path) -> None:
    rows = [row(cell="d", trial="d", base_method="datm", ipc=1, accuracy=0.5)]
    html = render_report(tmp_path, make_frame(rows, select_on="test"))
    assert 'role="alert"><strong>Selected on the test set.</strong>' in html
    assert Page(html).text.lower().count("selected on the test set") == 3


@pytest.mark.parametrize(
    ("keep", "sentences"),
    [
        (
            lambda frame: frame["base_method"] != "full",
            ["The sweep has no scored `full` cell", "under the same noise, so there is no IPC*."],
        ),
        (lambda frame: frame["base_method"] == "full", ["No distilled set has a score on the test set"]),
        (lambda frame: frame["outcome"] == "ok", ["No trial failed."]),
        (
            lambda frame: frame["outcome"] != "ok",
            ["No selected trial has a score on the test set.", "diverged"],
        ),
        (lambda frame: frame["split"] != "test", ["No selected trial has a score on the test set."]),
        (
            lambda frame: frame["base_method"] == "datm0",
            ["No trial has finished.", "nothing was tuned", "The result table is empty, so there is nothing to fit."],
        ),
    ],
)
def test_what_is_missing_is_a_sentence(
    tmp_path: Path, sweep: pd.DataFrame, keep: Callable[[pd.DataFrame], Any], sentences: list[str]
) -> None:
    text = Page(write_report(tmp_path, sweep[keep(sweep)]).read_text()).text
    for sentence in [*sentences, "No selected trial has a preview.", "The run folder has no sweep.yaml."]:
        assert sentence in text


def test_one_replicate_is_marked(tmp_path: Path, sweep: pd.DataFrame) -> None:
    text = Page(render_report(tmp_path, sweep[sweep["noise_seed"].eq(0)])).text
    assert "2†" in text
    assert "† One replicate only: n counts retrainings" in text
    assert "2 retrainings of one replicate" in text


def test_a_selection_that_is_not_recorded_is_said(tmp_path: Path, sweep: pd.DataFrame) -> None:
    frame = sweep.copy()
    frame.attrs.clear()
    text = Page(render_report(tmp_path, frame)).text
    assert "The result table does not say on which split" in text


def test_the_same_run_gives_the_same_report(run_folder: Path, sweep: pd.DataFrame) -> None:
    small = sweep[sweep["ipc"].eq(1) | sweep["ipc"].isna()]
    assert render_report(run_folder, small) == render_report(run_folder, small)
