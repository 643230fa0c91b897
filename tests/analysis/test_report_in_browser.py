"""The report's script, in a headless Chromium: what a reader sees after sorting, filtering and stepping through."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
import torch

from analysis import labels
from analysis.names import counted

TEMPLATES = Path(labels.__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOADED = "<script>addEventListener('load', () => {{ {} }})</script></body>"
ROWS = [
    ("no noise", "full", "–", "95.0"),
    ("no noise", "datm", "1", "60.0"),
    ("no noise", "datm", "10", "70.0"),
    ("no noise", "datm", "50", "80.0"),
    ("symmetric 40 %", "full", "–", "55.0"),
    ("symmetric 40 %", "datm", "1", "50.0"),
    ("symmetric 40 %", "datm", "10", "–"),
    ("symmetric 40 %", "datm", "50", "60.0"),
]

Show = Callable[..., "Seen"]


class Seen(HTMLParser):
    """The visible rows of the first table, the sorted column, the count, and the text of the label box."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.sorted: list[tuple[str, str]] = []
        self.count = self.labels = self.address = ""
        self._hidden: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "input", "img", "br"):
            return
        values = dict(attrs)
        self._open.append((tag, values))
        if tag == "tr" and not self._is_hidden():
            self.rows.append([])
        if tag in ("td", "th") and not self._is_hidden() and self.rows:
            self.rows[-1].append("")
        if values.get("aria-sort"):
            self.sorted.append((values["data-key"] or "", values["aria-sort"] or ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if self._is_hidden() or "script" in tags or "style" in tags:
            return
        if ("td" in tags or "th" in tags) and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data
        if "title" in tags:
            self.address += data
        self.labels += data if any((values.get("class") or "").startswith("labels") for _, values in self._open) else ""

    def _is_hidden(self) -> bool:
        return any("hidden" in values for _, values in self._open)

    @property
    def body(self) -> list[tuple[str, ...]]:
        """The texts of the visible rows below the header, a group's title alone."""
        return [tuple(text.strip() for text in row) for row in self.rows[1:]]


def table_html() -> str:
    groups = dict.fromkeys(noise for noise, *_ in ROWS)
    head = '<th class="condition" data-key="noise" data-filter>Noise</th><th data-key="method" data-filter>Method</th>'
    head += '<th data-key="ipc" data-filter>IPC</th><th data-key="accuracy" data-first="descending">Accuracy</th>'
    bodies = ""
    for group in groups:
        lines = "".join(
            f'<tr><td class="condition">{noise}</td>' + "".join(f"<td>{text}</td>" for text in rest) + "</tr>"
            for noise, *rest in ROWS
            if noise == group
        )
        bodies += f'<tbody><tr class="group"><th colspan="4">{group}</th></tr>{lines}</tbody>'
    return f'<table class="grouped" data-table="table"><thead><tr>{head}</tr></thead>{bodies}</table>'


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"no browser on PATH: {', '.join(NAMES)}")
    return found


@pytest.fixture
def show(chromium: str, tmp_path: Path) -> Show:
    """A function from a fragment and a script that runs once the page has loaded to what is then seen."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    parts = ("report_tables.js.j2", "report_pictures.js.j2")
    scripts = "".join(environment.get_template(part).render() for part in parts)

    def run(fragment: str = "", after: str = "", body: str = "") -> Seen:
        text = f"<!doctype html><html><head><meta charset='utf-8'><title></title></head><body>{body or table_html()}"
        page = tmp_path / "page.html"
        page.write_text(f"{text}<script>{scripts}</script>{LOADED.format(after)}</html>")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, "--dump-dom", f"{page.as_uri()}{fragment}"],
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        return Seen(done.stdout)

    return run


def count_of(num: int) -> str:
    return f"{num} of {counted(len(ROWS), 'row')}"


COUNT = "document.title = document.querySelector('output').value;"


def test_the_page_starts_grouped_and_complete(show: Show) -> None:
    seen = show(after=COUNT)
    assert [row for row in seen.body if len(row) == 1] == [("no noise",), ("symmetric 40 %",)]
    assert [row for row in seen.body if len(row) > 1] == ROWS
    assert (seen.address, seen.sorted) == (count_of(8), [])


def test_a_fragment_sorts_and_filters(show: Show) -> None:
    seen = show("#table&sort=-accuracy&noise=symmetric+40+%25", COUNT)
    accuracies = [row[-1] for row in seen.body]
    assert accuracies == ["60.0", "55.0", "50.0", "–"]
    assert all(row[0] == "symmetric 40 %" for row in seen.body)
    assert (seen.address, seen.sorted) == (count_of(4), [("accuracy", "descending")])


def test_numbers_sort_as_numbers_missing_ones_last_and_ties_as_they_were(show: Show) -> None:
    seen = show("#sort=ipc")
    assert [(row[2], row[0]) for row in seen.body] == [
        (ipc, noise) for ipc in ("1", "10", "50", "–") for noise in ("no noise", "symmetric 40 %")
    ]


def test_headers_are_buttons_that_turn_the_order_and_give_it_back(show: Show) -> None:
    press = "document.querySelector('[data-key=accuracy] button').click();"
    seen = show(after=f"{press * 2} document.title = location.hash;")
    assert [row[-1] for row in seen.body] == ["50.0", "55.0", "60.0", "60.0", "70.0", "80.0", "95.0", "–"]
    assert (seen.address, seen.sorted) == ("#table&sort=accuracy", [("accuracy", "ascending")])
    seen = show(after=f"{press * 3} document.title = location.hash;")
    assert [row for row in seen.body if len(row) > 1] == ROWS
    assert (seen.address, seen.sorted) == ("#table", [])


def test_words_filter_and_are_kept_in_the_address(show: Show) -> None:
    typed = "const field = document.querySelector('input'); field.value = 'DATM 40'; "
    seen = show(after=f"{typed} field.dispatchEvent(new Event('input')); document.title = location.hash;")
    assert [row[1:3] for row in seen.body if len(row) > 1] == [("datm", "1"), ("datm", "10"), ("datm", "50")]
    assert seen.address == "#table&q=DATM+40"


def test_arrow_keys_step_through_the_labels(show: Show) -> None:
    shown = labels.shown_labels(torch.tensor([[0.75, 0.25], [0.1, 0.9]]).numpy(), ("<cat>", "dog"))
    text = shown.text.replace('"', "&#34;").replace("<", "&lt;")
    body = f'<div class="picture" data-labels="{text}"><img alt=""></div>'
    press = "document.querySelector('.picture').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }));"
    assert show(after=press, body=body).labels == "Class <cat>, image 1<cat>75.0 %dog25.0 %"
    assert show(after=press * 2, body=body).labels == "Class dog, image 1dog90.0 %<cat>10.0 %"
