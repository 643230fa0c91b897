from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from analysis import labels
from analysis.report import render_report, write_report
from ddnl_ray.files import write_json, write_tensors

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
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write_set(run: Path, frame: pd.DataFrame, classes: tuple[str, ...]) -> Path:
    """Give the first trial that has a preview soft labels: class 0 has 0.6 everywhere, class 1 the rest."""
    trial = next(path for path in sorted((run / "trials").iterdir()) if path.name in set(frame["trial"]))
    probabilities = torch.zeros(10, 10)
    probabilities[:, 0], probabilities[:, 1] = 0.6, 0.4
    write_tensors(trial / "distilled.safetensors", {"labels": probabilities})
    write_json(trial / "card.json", {"classes": list(classes)})
    return trial


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
    assert not {"link", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 1
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
        "digits · symmetric 30 % · convnet3 symmetric 30 % full (last epoch) – 3",
        "full (early stopped) – 3",
        "datm+tad · IPC 1 · digits · convnet3",
        "6 other replicates",
        "27 cells compared trials with different parameters. The optimism of choosing: had the best of the 2 trials",
        "(95 % interval 0.0 to 0.0, n = 3 replicates, 27 cells)",
        "datm+tad · IPC 10 · digits · symmetric 60 % · convnet3: 6 trials in 3 cells",
        "6 trials with a score say little about which parameter matters; it takes 10 or more.",
        "Of the variance within a setting, pooled over",
        "Noise rates from crossovers",
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
    params = {"<b>name</b>": '"><script>alert(1)</script>'}
    hostile = sweep.assign(dataset="<img src=x onerror=alert(1)>", device='"><script>', message="<b>bold</b>")
    where = hostile["trial"].str.endswith("-0") & hostile["variant"].eq("tad")
    hostile.loc[where, "params"] = json.dumps(params)
    write_set(run_folder, hostile, ("<script>", '"><b>', *map(str, range(8))))
    html = render_report(run_folder, hostile)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    page = Page(html)
    assert page.tags.count("script") == 1
    assert "&lt;b&gt;name&lt;/b&gt;" in html
    assert "&lt;script&gt;" in html
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


def test_labels_are_embedded_beside_their_picture(run_folder: Path, sweep: pd.DataFrame) -> None:
    small = sweep[sweep["ipc"].eq(1)]
    assert "data-labels=" not in render_report(run_folder, small)
    write_set(run_folder, small, tuple("abcdefghij"))
    html = render_report(run_folder, small)
    assert html.count('data-labels="{') == 1
    assert "&#34;names&#34;:{&#34;0&#34;:&#34;a&#34;,&#34;1&#34;:&#34;b&#34;" in html
    assert "n = 2 retrainings; soft labels, 60.0 % on the largest class" in Page(html).text


def test_labels_that_would_make_the_report_too_large_are_said(
    run_folder: Path, sweep: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = sweep[sweep["ipc"].eq(1)]
    write_set(run_folder, small, tuple("abcdefghij"))
    monkeypatch.setattr("analysis.previews.LABEL_BYTES", 10)
    html = render_report(run_folder, small)
    assert "data-labels=" not in html
    assert labels.left_out(1) in Page(html).text


def test_a_run_with_one_trial_has_a_report(make_frame: MakeFrame, row: MakeRow, tmp_path: Path) -> None:
    frame = make_frame([row(cell="d", trial="d", base_method="datm", ipc=1, accuracy=0.5)])
    text = Page(render_report(tmp_path, frame)).text
    for sentence in ("nothing was tuned", "No setting has more than one value", "so there is no IPC*"):
        assert sentence in text, sentence
