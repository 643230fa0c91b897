"""Looking at a run from anywhere: its folder, or a copy of what tables, reports and figures read of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddnl_ray.errors import DdnlError, RequestError
from ddnl_ray.storage import Address, open_folder


def is_read(name: str) -> bool:
    """Return whether tables, reports and figures read a file of a run; checkpoints and distilled sets they do not."""
    return not name.startswith(("figures/", "logs/")) and not name.endswith(".safetensors")


@contextmanager
def reading(address: Address) -> Iterator[Path]:
    """Give the folder of a run to read, brought up to date where it is a copy.

    Raises:
        RequestError: There is nothing at a remote address; and what readers raise, with the address in the text.
    """
    run = open_folder(address, "read")
    run.check()
    run.pull("", is_read)
    if run.is_remote and not any(run.path.glob("*")):
        raise RequestError(f"{run.named()} is not a run folder: there is nothing")
    try:
        yield run.path
    except DdnlError as error:
        if not run.is_remote:
            raise
        raise type(error)(str(error).replace(str(run.path), run.named())) from error
