"""The error tree: what a user can do wrong, and what a machine can do to a file.

Every message names the rule, the offending value and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DdnlError(Exception):
    """Root of every error that ddnl-ray raises on purpose."""


class RequestError(DdnlError, ValueError):
    """The request is wrong: a key, a value or a combination. The command line exits with code 2."""


class DataError(RequestError):
    """A data set or label file is missing, malformed or does not fit the request."""


class CorruptFileError(DdnlError):
    """A file of ours does not match its checksum, format or version."""


class FaultError(DdnlError):
    """Something around us failed; what has been stored is safe, and the same command goes on."""


class StorageError(FaultError):
    """Storage that a run or a store lies on does not answer; what has been stored is safe."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that lists the known names, the nearest one first.

    Args:
        name: What the user wrote.
        known: The valid names.

    Returns:
        For example ``"did you mean 'datm'? Known: datm, mtt"``.
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(options)}"


def require_known(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``known``.

    Raises:
        RequestError: ``name`` is unknown; the message lists the known names, the nearest first.
    """
    options = list(known)
    if name not in options:
        raise RequestError(f"unknown {kind} {name!r}: {nearest(name, options)}")
    return name
