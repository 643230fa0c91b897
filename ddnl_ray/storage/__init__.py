"""Folders on local disks, NFS, S3 and GCS that publish files as a whole: run folders, and the store of experts."""

from __future__ import annotations

from ddnl_ray.storage.address import Address, RemoteAddress, parse_address
from ddnl_ray.storage.folder import Entry, Folder, LocalFolder
from ddnl_ray.storage.locks import Held

__all__ = [
    "Address",
    "Entry",
    "Folder",
    "Held",
    "LocalFolder",
    "RemoteAddress",
    "open_folder",
    "parse_address",
]


def open_folder(address: Address | str, purpose: str) -> Folder:
    """Return the folder at an address.

    Args:
        address: A path, a remote address, or the text of either.
        purpose: Who works in the working copy of a remote folder: ``drive``, ``read`` or ``experts``.

    Raises:
        RequestError: It is not an address, or this pyarrow cannot open it.
    """
    if isinstance(address, str):
        address = parse_address(address)
    if not isinstance(address, RemoteAddress):
        return LocalFolder(address)
    from ddnl_ray.storage import connect
    from ddnl_ray.storage.remote import RemoteFolder

    path = connect.cache_of(address, purpose)
    return RemoteFolder(str(address), address.place, connect.connect(address), address.prefix, path)
