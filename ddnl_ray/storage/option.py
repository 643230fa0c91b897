"""Addresses on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddnl_ray.storage.address import Address, RemoteAddress, parse_address


class AddressType(click.ParamType):  # type: ignore[type-arg]
    """A folder: a path, or an address in an object store, which a path would mangle."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read an address (see :func:`ddnl_ray.storage.parse_address`)."""
        return value if isinstance(value, Path | RemoteAddress) else parse_address(value)


ADDRESS = AddressType()
