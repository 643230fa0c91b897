"""Places where a folder may be: this machine, an object store in a folder or in memory, and a local S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import _MockFileSystem

from ddnl_ray.storage import Folder, LocalFolder, parse_address
from ddnl_ray.storage.connect import connect
from ddnl_ray.storage.lease import Timing
from ddnl_ray.storage.remote import RemoteFolder
from ddnl_ray.storage.retry import Patience
from ddnl_ray.testing.objects import Objects

FAST = Timing(beat_s=0.05, stale_s=0.6, settle_s=0.02)
BUCKET = "bucket"

Open = Callable[[str], Folder]


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """An object store in a folder."""
    (tmp_path / "objects" / BUCKET).mkdir(parents=True)
    return Objects(tmp_path / "objects")


@pytest.fixture
def remote(objects: Objects, tmp_path: Path) -> Callable[..., RemoteFolder]:
    """Open one folder of it, each name with a working copy of its own, as different machines would."""

    def opened(name: str, **options: Any) -> RemoteFolder:
        options = {"patience": Patience(total_s=0.5, first_s=0.01), "timing": FAST} | options
        address = f"s3://{BUCKET}/run"
        return RemoteFolder(
            address, address, objects.filesystem(), f"{BUCKET}/run", tmp_path / "copies" / name, **options
        )

    return opened


@pytest.fixture(params=["local", "folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open one folder of each kind, each name as from another machine."""
    if request.param == "local":
        return lambda _name: LocalFolder(tmp_path / "folder")
    if request.param == "s3":
        address: str = request.getfixturevalue("local_s3")
        remote_address: Any = parse_address(address)
        filesystem, prefix = connect(remote_address), remote_address.prefix
    else:
        inner = None if request.param == "folder" else _MockFileSystem()
        root = tmp_path / "objects" if inner is None else Path("objects")
        (inner.create_dir if inner is not None else lambda path: Path(path).mkdir(parents=True))(f"{root}/{BUCKET}")
        address, prefix, filesystem = f"s3://{BUCKET}/run", f"{BUCKET}/run", Objects(root, inner).filesystem()
    return lambda name: RemoteFolder(
        address, address, filesystem, prefix, tmp_path / "copies" / name, Patience(5.0), FAST
    )
