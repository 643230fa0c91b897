"""A table of texts as aligned plain text, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WITHIN_MARK = "†"
POOLED_MARK = "‡"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its heading.
        texts: Its cells, from top to bottom.
        is_number: Whether they are aligned to the right.
    """

    name: str
    texts: Sequence[str]
    is_number: bool = False


@dataclass(frozen=True)
class Layout:
    """A table that is ready to be written.

    Attributes:
        caption: What the table shows.
        columns: From left to right, equally long.
        footnotes: Below the table; in LaTeX they follow the caption.
        empty: What to say instead of a table without rows.
    """

    caption: str
    columns: Sequence[Column]
    footnotes: Sequence[str] = ()
    empty: str = ""

    @property
    def header(self) -> list[str]:
        """The headings."""
        return [column.name for column in self.columns]

    @property
    def body(self) -> list[list[str]]:
        """The cells, row by row."""
        return [list(row) for row in zip(*(column.texts for column in self.columns), strict=True)]

    def text(self) -> str:
        """Return the table as aligned plain text, for a terminal."""
        if not self.body:
            return self._without_rows()
        widths = [max(map(len, [column.name, *column.texts])) for column in self.columns]

        def line(row: list[str]) -> str:
            padded = (
                text.rjust(width) if column.is_number else text.ljust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return _joined([self.caption, "", line(self.header), rule, *map(line, self.body), *self._below()])

    def markdown(self) -> str:
        """Return the table as GitHub-flavoured Markdown, its caption above it."""
        if not self.body:
            return self._without_rows()

        def line(row: list[str]) -> str:
            return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |"

        rule = line(["---:" if column.is_number else ":---" for column in self.columns])
        return _joined([self.caption, "", line(self.header), rule, *map(line, self.body), *self._below()])

    def latex(self) -> str:
        """Return the table as a LaTeX ``table`` environment; it needs the package booktabs."""
        if not self.body:
            return _joined([f"% {text}" for text in (self.caption, self.empty, *self.footnotes)])

        def line(row: list[str]) -> str:
            return " & ".join(map(latex_escaped, row)) + r" \\"

        caption = latex_escaped(" ".join([self.caption, *self.footnotes]))
        alignment = "".join("r" if column.is_number else "l" for column in self.columns)
        return _joined(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                line(self.header),
                r"\midrule",
                *map(line, self.body),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )

    def _without_rows(self) -> str:
        return _joined([self.caption, "", self.empty, *self._below()])

    def _below(self) -> list[str]:
        return ["", *self.footnotes] if self.footnotes else []


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{">": r"\textgreater{}", "<": r"\textless{}", "|": r"\textbar{}", "√": r"$\surd$"},
    **{"±": r"$\pm$", "→": r"$\to$", "−": "$-$", "–": "--"},
    **{WITHIN_MARK: r"$^\dagger$", POOLED_MARK: r"$^\ddagger$"},
}


def latex_escaped(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
