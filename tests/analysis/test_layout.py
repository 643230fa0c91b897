from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from analysis.layout import Column, Layout, latex_escaped

VOID = {"br", "hr", "img", "meta"}


class Parsed(HTMLParser):
    """The cells of a table by row, each with its tag and attributes; unbalanced tags are errors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[tuple[str, dict[str, str | None], str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            tag, attributes, text = self.rows[-1][-1]
            self.rows[-1][-1] = (tag, attributes, text + data)


GROUPED = Layout(
    "Numbers & more.",
    [
        Column("Method", ["a", "b", "c"], is_heading=True),
        Column("1", ["1 ± 2", "3", "–"], is_number=True, groups=("Sym", "20 %")),
        Column("10", ["4", "5", "<6>"], is_number=True, groups=("Sym", "20 %")),
        Column("1", ["7", "8", "9"], is_number=True, groups=("Sym", "40 %")),
        Column("n", ["x|y", "_", "\\"], is_number=True, groups=("Real",)),
    ],
    ["A note."],
    blocks={0: "First", 2: "Second"},
)


def latex_lines(text: str) -> list[str]:
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    return [line for line in inside.splitlines() if line.endswith(r" \\")]


def latex_width(line: str) -> int:
    spans = [int(number) for number in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return len(re.split(r"(?<!\\)&", line)) + sum(spans) - len(spans)


def test_groups_of_columns_span_them_in_latex() -> None:
    text = GROUPED.latex()
    lines = latex_lines(text)
    assert lines[0] == r" & \multicolumn{3}{c}{Sym} & \multicolumn{1}{c}{Real} \\"
    assert lines[1] == r" & \multicolumn{2}{c}{20 \%} & \multicolumn{1}{c}{40 \%} &  \\"
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-5}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in text
    assert {latex_width(line) for line in lines} == {5}
    assert text.count(r"\midrule") == 2
    assert r"\begin{tabular}{lrrrr}" in text
    assert text.count("{") == text.count("}")


def test_groups_of_columns_have_scopes_in_html() -> None:
    rows = Parsed(GROUPED.html()).rows
    spans = [[(text, own.get("scope"), own.get("colspan"), own.get("rowspan")) for _, own, text in row] for row in rows]
    assert spans[0] == [
        ("Method", "col", None, "3"),
        ("Sym", "colgroup", "3", None),
        ("Real", "colgroup", "1", None),
    ]
    assert spans[1] == [
        ("20 %", "colgroup", "2", None),
        ("40 %", "colgroup", "1", None),
        ("n", "col", None, "2"),
    ]
    assert [text for text, *_ in spans[2]] == ["1", "10", "1"]
    assert spans[3] == [("First", "rowgroup", "5", None)]
    assert spans[4][0] == ("a", "row", None, None)
    assert rows[-1][2][2] == "<6>"


def test_html_is_ascii_and_escapes_what_comes_from_data() -> None:
    text = Layout("<script>", [Column("±", ["<b>"])], ["&"]).html()
    assert text.isascii()
    assert "<script>" not in text
    assert "<b>" not in text


def test_every_block_is_a_body_of_its_own() -> None:
    assert GROUPED.html().count("<tbody>") == GROUPED.html().count("</tbody>") == 2


def test_a_table_without_rows_says_why_in_every_form() -> None:
    layout = Layout("What it is.", [Column("a", [])], empty="Nothing was run.")
    for text in (layout.text(), layout.markdown(), layout.latex(), layout.html()):
        assert "Nothing was run." in text


def test_columns_without_groups_look_as_ever() -> None:
    layout = Layout("C.", [Column("a", ["1"]), Column("b", ["2"], is_number=True)])
    assert layout.markdown() == "C.\n\n| a | b |\n| :--- | ---: |\n| 1 | 2 |\n"
    assert "cmidrule" not in layout.latex()


TEXT = st.text("ab±–%&_|<>−† ", max_size=6).map(str.strip)
TABLES = st.integers(1, 4).flatmap(
    lambda rows: st.lists(
        st.builds(
            Column,
            st.sampled_from(["x", "y & z"]),
            st.lists(TEXT, min_size=rows, max_size=rows),
            st.booleans(),
            st.sampled_from([(), ("g",), ("g", "h"), ("k",)]),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)


@given(TABLES, st.sets(st.integers(0, 3)))
def test_all_forms_have_the_same_cells(columns: list[Column], starts: set[int]) -> None:
    rows = len(columns[0].texts)
    layout = Layout("C.", columns, blocks={start: "T" for start in starts if start < rows})
    body = layout.body
    markdown = [line for line in layout.markdown().splitlines()[4:] if not line.startswith("| **T**")]
    assert markdown == ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in body]
    html = [row for row in Parsed(layout.html()).rows if row[0][1].get("scope") != "rowgroup"]
    assert [[text for _, _, text in row] for row in html[-rows:]] == body
    latex = [line for line in latex_lines(layout.latex()) if r"\emph{T}" not in line]
    assert latex[-rows:] == [" & ".join(map(latex_escaped, row)) + r" \\" for row in body]
    assert {latex_width(line) for line in latex_lines(layout.latex())} == {len(columns)}
    read = list(csv.reader(io.StringIO(layout.csv())))
    assert [row[bool(layout.blocks) :] for row in read[1:]] == body
    for line in (span for span in layout.levels):
        assert sum(span.columns for span in line) == len(columns)
