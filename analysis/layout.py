"""A table of texts as aligned plain text, Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

WITHIN_MARK = "†"
POOLED_MARK = "‡"
LEVEL = " · "
"""Between the groups and the name of a column where headings have one line only."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its heading.
        texts: Its cells, from top to bottom.
        is_number: Whether they are aligned to the right.
        groups: Headings that it shares with its neighbours, the widest first.
        is_heading: Whether its cells name their rows.
    """

    name: str
    texts: Sequence[str]
    is_number: bool = False
    groups: tuple[str, ...] = ()
    is_heading: bool = False

    @property
    def heading(self) -> str:
        """Its groups and its name in one line."""
        return LEVEL.join([*self.groups, self.name])


@dataclass(frozen=True)
class Span:
    """One heading of one line of headings.

    Attributes:
        text: What it says; "" above a column without a group at this level.
        start: Position of its first column.
        columns: How many columns it is above.
        is_name: Whether it is a column's own name and not a group.
    """

    text: str
    start: int
    columns: int
    is_name: bool


@dataclass(frozen=True)
class Layout:
    """A table that is ready to be written.

    Attributes:
        caption: What the table shows.
        columns: From left to right, equally long.
        footnotes: Below the table; in LaTeX they follow the caption.
        empty: What to say instead of a table without rows.
        blocks: Position of a row to the title that stands above it, where a block of rows begins.
    """

    caption: str
    columns: Sequence[Column]
    footnotes: Sequence[str] = ()
    empty: str = ""
    blocks: Mapping[int, str] = field(default_factory=dict)

    @property
    def header(self) -> list[str]:
        """The headings, one line for all levels."""
        return [column.heading for column in self.columns]

    @property
    def body(self) -> list[list[str]]:
        """The cells, row by row."""
        return [list(row) for row in zip(*(column.texts for column in self.columns), strict=True)]

    @property
    def levels(self) -> list[list[Span]]:
        """The lines of headings from top to bottom: groups, then names."""
        depth = max((len(column.groups) for column in self.columns), default=0)
        return [*(list(self._spans(level)) for level in range(depth)), self._names()]

    def text(self) -> str:
        """Return the table as aligned plain text, for a terminal."""
        if not self.body:
            return self._without_rows()
        widths = [max(map(len, [column.heading, *column.texts])) for column in self.columns]

        def line(row: list[str]) -> str:
            padded = (
                text.rjust(width) if column.is_number else text.ljust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "  ".join("-" * width for width in widths)
        body = self._with_titles(line, lambda title: title)
        return _joined([self.caption, "", line(self.header), rule, *body, *self._below()])

    def markdown(self) -> str:
        """Return the table as GitHub-flavoured Markdown, its caption above it."""
        if not self.body:
            return self._without_rows()

        def line(row: list[str]) -> str:
            return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |"

        rule = line(["---:" if column.is_number else ":---" for column in self.columns])
        body = self._with_titles(line, lambda title: line([f"**{title}**", *[""] * (len(self.columns) - 1)]))
        return _joined([self.caption, "", line(self.header), rule, *body, *self._below()])

    def latex(self) -> str:
        """Return the table as a LaTeX ``table`` environment; it needs the package booktabs."""
        if not self.body:
            return _joined([f"% {text}" for text in (self.caption, self.empty, *self.footnotes)])

        def line(row: list[str]) -> str:
            return " & ".join(map(latex_escaped, row)) + r" \\"

        def title(text: str) -> str:
            return rf"\multicolumn{{{len(self.columns)}}}{{l}}{{\emph{{{latex_escaped(text)}}}}} \\"

        caption = latex_escaped(" ".join([self.caption, *self.footnotes]))
        alignment = "".join("r" if column.is_number else "l" for column in self.columns)
        return _joined(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                *(line for level in self.levels for line in _latex_level(level)),
                r"\midrule",
                *self._with_titles(line, title, between=r"\midrule"),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )

    def html(self) -> str:
        """Return the table as a fragment of HTML in ASCII that needs no style sheet, caption and footnotes with it."""
        if not self.body:
            texts = [self.caption, self.empty, *self.footnotes]
            return _ascii(_joined([f"<p>{html.escape(text)}</p>" for text in texts if text]))
        return _ascii(
            _joined(
                [
                    '<figure class="ddnl-table">',
                    f"<style>{_STYLE}</style>",
                    '<div class="scroll">',
                    "<table>",
                    f"<caption>{html.escape(self.caption)}</caption>",
                    "<thead>",
                    *self._html_head(),
                    "</thead>",
                    "<tbody>",
                    *self._with_titles(self._html_line, self._html_title, between="</tbody>\n<tbody>"),
                    "</tbody>",
                    "</table>",
                    "</div>",
                    *(f"<p>{html.escape(note)}</p>" for note in self.footnotes),
                    "</figure>",
                ]
            )
        )

    def csv(self) -> str:
        """Return headings and cells as CSV, the title of its block before each row where there are blocks."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        title = ""
        writer.writerow([*(["block"] if self.blocks else []), *self.header])
        for i, row in enumerate(self.body):
            title = self.blocks.get(i, title)
            writer.writerow([*([title] if self.blocks else []), *row])
        return out.getvalue()

    def _spans(self, level: int) -> Iterator[Span]:
        """Yield the groups of one level; neighbours share one where all wider groups agree as well."""
        start = 0
        for groups, members in groupby(column.groups[: level + 1] for column in self.columns):
            number = len(list(members))
            if len(groups) > level:
                yield Span(groups[level], start, number, is_name=False)
            else:
                yield from (Span("", start + i, 1, is_name=False) for i in range(number))
            start += number

    def _names(self) -> list[Span]:
        return [Span(column.name, i, 1, is_name=True) for i, column in enumerate(self.columns)]

    def _with_titles(self, line: _Line, title: _Title, between: str = "") -> Iterator[str]:
        """Yield the lines of the body with the titles of blocks, and ``between`` before all titles but the first."""
        for i, row in enumerate(self.body):
            if i in self.blocks:
                if i and between:
                    yield between
                yield title(self.blocks[i])
            yield line(row)

    def _html_head(self) -> Iterator[str]:
        """Yield the lines of headings; a name stands as high as its groups leave room."""
        depth = len(self.levels) - 1
        for level, spans in enumerate(self.levels):
            cells = []
            for span in spans:
                column = self.columns[span.start]
                if span.text and not span.is_name:
                    cells.append(f'<th scope="colgroup" colspan="{span.columns}">{html.escape(span.text)}</th>')
                elif len(column.groups) == level:
                    high = f' rowspan="{depth + 1 - level}"' if level < depth else ""
                    side = ' class="number"' if column.is_number else ""
                    cells.append(f'<th scope="col"{high}{side}>{html.escape(column.name)}</th>')
            yield f"<tr>{''.join(cells)}</tr>"

    def _html_line(self, row: list[str]) -> str:
        cells = []
        for text, column in zip(row, self.columns, strict=True):
            tag, attributes = ("th", ' scope="row"') if column.is_heading else ("td", "")
            side = ' class="number"' if column.is_number else ""
            cells.append(f"<{tag}{attributes}{side}>{html.escape(text)}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    def _html_title(self, title: str) -> str:
        span = f'scope="rowgroup" colspan="{len(self.columns)}"'
        return f'<tr class="block"><th {span}>{html.escape(title)}</th></tr>'

    def _without_rows(self) -> str:
        return _joined([self.caption, "", self.empty, *self._below()])

    def _below(self) -> list[str]:
        return ["", *self.footnotes] if self.footnotes else []


_Line = Callable[[list[str]], str]
_Title = Callable[[str], str]

_STYLE = (
    ".ddnl-table{margin:1em 0;font:14px/1.4 system-ui,sans-serif}"
    ".ddnl-table .scroll{overflow-x:auto}"
    ".ddnl-table table{border-collapse:collapse;border-bottom:2px solid;font:inherit;min-width:min(100%,46em);"
    "font-variant-numeric:tabular-nums}"
    ".ddnl-table caption,.ddnl-table p{text-align:left;max-width:60em;margin:.5em 0}"
    ".ddnl-table thead{border-top:2px solid;border-bottom:1px solid}"
    ".ddnl-table tbody{border-bottom:1px solid}"
    ".ddnl-table th,.ddnl-table td{padding:.15em .6em;font-weight:normal;white-space:nowrap}"
    ".ddnl-table th,.ddnl-table td{text-align:left;vertical-align:bottom}"
    ".ddnl-table thead th,.ddnl-table .block th{font-weight:600}"
    '.ddnl-table th[scope="colgroup"]{text-align:center;border-bottom:1px solid}'
    ".ddnl-table .number{text-align:right}"
    "@media print{.ddnl-table{font-size:8pt}.ddnl-table .scroll{overflow:visible}"
    ".ddnl-table th,.ddnl-table td{padding:.1em .35em}"
    ".ddnl-table thead{display:table-header-group}.ddnl-table tr{break-inside:avoid}}"
)
"""Of the class of the fragment alone, so that it can stand in any page."""


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{">": r"\textgreater{}", "<": r"\textless{}", "|": r"\textbar{}", "√": r"$\surd$"},
    **{"±": r"$\pm$", "→": r"$\to$", "−": "$-$", "–": "--"},
    **{"·": r"$\cdot$", "β": r"$\beta$"},
    **{WITHIN_MARK: r"$^\dagger$", POOLED_MARK: r"$^\ddagger$"},
}


def latex_escaped(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _latex_level(spans: Sequence[Span]) -> Iterator[str]:
    """Yield a line of headings, and the rules under its groups."""
    cells = []
    for span in spans:
        text = latex_escaped(span.text)
        cells.append(text if span.is_name or not text else rf"\multicolumn{{{span.columns}}}{{c}}{{{text}}}")
    yield " & ".join(cells) + r" \\"
    groups = [span for span in spans if span.text and not span.is_name]
    if groups:
        yield " ".join(rf"\cmidrule(lr){{{span.start + 1}-{span.start + span.columns}}}" for span in groups)


def _ascii(text: str) -> str:
    """Return HTML that reads the same whatever encoding a page declares."""
    return text.encode("ascii", "xmlcharrefreplace").decode()
