"""Reading shell commands: where they start Ray, with which options and environment."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ASSIGNMENT = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.DOTALL)
_CONTINUED = re.compile(r"\\\n\s*")
_ARITHMETIC = re.compile(r"\$\(\([^()]*\)\)")
_COMMENT = re.compile(r"""^\s*\#.*$ | \s\#\s[^'"\n]*$""", re.MULTILINE | re.VERBOSE)


@dataclass(frozen=True)
class RayStart:
    """One ``ray start``.

    Attributes:
        place: Where it stands.
        options: Its options by name (``--port``); a flag has the value ``""``.
        environment: The variables that the same command sets before it.
    """

    place: str
    options: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def is_head(self) -> bool:
        """Whether it starts a head."""
        return "--head" in self.options


def ray_starts(place: str, command: str, environment: Mapping[str, str] | None = None) -> Iterator[RayStart]:
    """Yield every ``ray start`` of a command or script, those inside quotes (``bash -c '...'``) too.

    What a command exports holds until its end and not in the next of a list, which Ray runs in a shell of its own.

    Args:
        place: Where the command stands.
        command: Shell commands.
        environment: What is set before the command runs.

    Raises:
        ValueError: A quote is not closed.
    """
    exported = dict(environment or {})
    for words in statements(command):
        local = dict(exported)
        assigning = True
        for index, word in enumerate(words):
            assignment = _ASSIGNMENT.match(word)
            if assigning and assignment:
                local[assignment[1]] = assignment[2]
            elif word == "env":
                assigning = True
            elif word == "start" and index and words[index - 1].rpartition("/")[2] == "ray":
                yield RayStart(place, _options(words[index + 1 :]), local)
            elif re.search(r"\bray\s+start\b", word):
                yield from ray_starts(place, word, local)
            else:
                assigning = word == "export"
        if words[0] == "export" or all(_ASSIGNMENT.match(word) for word in words):
            exported = local


def statements(command: str) -> list[list[str]]:
    """Return the words of every simple command, without comments.

    Raises:
        ValueError: A quote is not closed.
    """
    text = _ARITHMETIC.sub("$sum", _CONTINUED.sub(" ", _COMMENT.sub("", command))).replace("\n", " ;\n")
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();&|")
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();&|"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def _options(words: list[str]) -> dict[str, str]:
    """Return the options of a command by name."""
    found: dict[str, str] = {}
    last = ""
    for word in words:
        if word.startswith("--"):
            last, _, value = word.partition("=")
            found[last] = value
        elif re.match(r"\d*[<>]", word):
            last = ""
        elif last and not found[last]:
            found[last] = word
    return found
