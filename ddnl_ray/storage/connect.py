"""From an address to the file system of its object store, and to the folder of its files on this machine."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from ddnl_ray.errors import RequestError
from ddnl_ray.storage.address import RemoteAddress

CONNECT_S, REQUEST_S = 10.0, 60.0


@functools.cache
def connect(address: RemoteAddress) -> Any:
    """Return the pyarrow file system of an address.

    Credentials come from where the vendors' own tools look for them. For S3, ``AWS_ENDPOINT_URL_S3``,
    ``AWS_ENDPOINT_URL``, ``AWS_REGION`` and ``AWS_DEFAULT_REGION`` are read where the address does not say more.

    Raises:
        RequestError: This pyarrow was built without it, or the settings contradict each other.
    """
    try:
        return (_s3 if address.scheme == "s3" else _gcs)(dict(address.options))
    except (ImportError, ValueError) as error:
        raise RequestError(f"{address.place} cannot be opened: {error}") from error


def _s3(options: dict[str, str]) -> Any:
    from pyarrow.fs import S3FileSystem

    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or ""
    protocol, _, host = endpoint.rpartition("://")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return S3FileSystem(
        endpoint_override=host or None,
        scheme=options.get("scheme") or protocol or None,
        region=region,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        allow_delayed_open=True,  # a small object is then one request
    )


def _gcs(options: dict[str, str]) -> Any:
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    return GcsFileSystem(
        endpoint_override=options.get("endpoint_override"),
        scheme=options.get("scheme"),
        retry_time_limit=timedelta(seconds=REQUEST_S),
    )


def cache_of(address: RemoteAddress, purpose: str) -> Path:
    """Return the folder of this machine that files of an address are kept in (below ``DDNL_CACHE``).

    Args:
        address: The remote folder.
        purpose: Who works in it; different purposes do not meet.
    """
    root = Path(os.environ.get("DDNL_CACHE", "~/.cache/ddnl/remote")).expanduser()
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:16]
    return root / purpose / digest / address.name
