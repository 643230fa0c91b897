"""Where a folder is: a local path, or a place in an object store (``s3://bucket/key``, ``gs://bucket/key``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ddnl_ray.errors import RequestError, nearest

OPTIONS = {"s3": ("region", "endpoint_override", "scheme"), "gs": ("endpoint_override", "scheme")}
"""What may follow ``?`` in an address, by scheme: how to reach the store from every node."""

_SECRETS = ("access_key", "secret_key", "session_token", "access_token", "password")
_MEANT = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "aws": "s3"}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ONE_SLASH = re.compile(r"(s3a?|s3n|gcs|gs|file|https?|hdfs|abfss?):(?!//)", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_BUCKET = {
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
}
_EXAMPLES = "a folder, s3://bucket/folder or gs://bucket/folder"


@dataclass(frozen=True)
class RemoteAddress:
    """A place in an object store.

    Attributes:
        scheme: ``s3`` or ``gs``.
        bucket: The bucket.
        key: The names below it, joined by ``/``; empty: the bucket itself.
        options: How to reach the store (see :data:`OPTIONS`), as sorted pairs.
    """

    scheme: str
    bucket: str
    key: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __truediv__(self, name: str) -> RemoteAddress:
        """Return what has a name below this."""
        return replace(self, key=f"{self.key}/{name}".strip("/"))

    def __str__(self) -> str:
        """Return the address as a user writes it; it can be parsed again."""
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.place}{query}"

    @property
    def place(self) -> str:
        """The address without its options."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    @property
    def prefix(self) -> str:
        """Bucket and key as a file system names them."""
        return f"{self.bucket}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """The last part."""
        return self.prefix.rsplit("/", 1)[-1]


Address = Path | RemoteAddress


def parse_address(text: str) -> Address:
    """Read an address as a user writes it; a local one (with or without ``file://``) becomes a path.

    Raises:
        RequestError: It has no known form, or holds credentials, which it must not.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise RequestError(f"{text!r} is not an address: it is empty or has blanks around it; give {_EXAMPLES}")
    if _DRIVE.match(text):
        raise RequestError(f"{text!r} names a Windows drive, which there is none of here; give {_EXAMPLES}")
    single = _ONE_SLASH.match(text)
    if single:
        rest = text[single.end() :].lstrip("/")
        raise RequestError(f"{text!r} needs two slashes after the colon: {single[1].lower()}://{rest}")
    found = _URI.match(text)
    if not found:
        return Path(text)
    scheme = found[1].lower()
    if scheme == "file":
        return _local(text)
    if scheme not in OPTIONS:
        meant = _MEANT.get(scheme)
        hint = f"write {meant}:// instead" if meant else f"give {_EXAMPLES}"
        raise RequestError(f"{_shown(text)!r}: {scheme}:// cannot be read and written here; {hint}")
    return _remote(scheme, text)


def _local(text: str) -> Path:
    """Return the path of a ``file://`` address."""
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise RequestError(f"{text!r} is not the address of a local folder: write file:///absolute/path, or the path")
    return Path(unquote(parts.path))


def _remote(scheme: str, text: str) -> RemoteAddress:
    """Return an address in an object store, checked part by part."""
    shown = _shown(text)
    place, _, query = text.split("://", 1)[1].partition("?")
    bucket, _, key = place.partition("/")
    pairs = parse_qsl(query, keep_blank_values=True)
    if "@" in bucket or any(name.lower() in _SECRETS or "@" in value for name, value in pairs):
        raise RequestError(
            f"{shown!r} holds credentials, and addresses are written to logs and files; leave them to the environment "
            "(AWS_ACCESS_KEY_ID, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS), a credentials file or the machine's role"
        )
    if not bucket:
        raise RequestError(f"{shown!r} has no bucket: write {scheme}://bucket/folder")
    if not _BUCKET[scheme].fullmatch(bucket):
        raise RequestError(
            f"{shown!r}: {bucket!r} is not the name of a bucket: 3 or more lower-case letters, digits, dots, hyphens"
        )
    key = key.rstrip("/")
    if "#" in text or "\\" in key or any(part in ("", ".", "..") for part in key.split("/") if key):
        raise RequestError(f"{shown!r}: the folder {key!r} must be plain names with single slashes between them")
    return RemoteAddress(scheme, bucket, key, _options(scheme, query, shown))


def _options(scheme: str, query: str, shown: str) -> tuple[tuple[str, str], ...]:
    """Return what follows the question mark."""
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, value in pairs:
        if name not in OPTIONS[scheme]:
            raise RequestError(f"{shown!r}: unknown option {name!r}: {nearest(name, OPTIONS[scheme])}")
        if not value or (name == "scheme" and value not in ("http", "https")):
            raise RequestError(
                f"{shown!r}: option {name} needs a value ({'http or https' if name == 'scheme' else name})"
            )
    return tuple(sorted(dict(pairs).items()))


def _shown(text: str) -> str:
    """Return an address as messages may show it: without what stands before ``@`` or after ``?``."""
    scheme, _, rest = text.partition("://")
    place, question, _ = rest.partition("?")
    _user, at, host = place.rpartition("@")
    return f"{scheme}://{'...@' if at else ''}{host}{'?...' if question else ''}"
