"""An object store for tests, over another file system of pyarrow: objects appear when their stream closes.

It notes what is done, and can be told to fail, or to die, at any step. It needs no server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, LocalFileSystem, PyFileSystem


class Killed(BaseException):
    """The process is gone, as far as storage can see."""


class Objects(FileSystemHandler):  # type: ignore[misc]
    """A store as a handler of pyarrow.

    Args:
        root: The folder in which buckets are folders; it exists.
        inner: The file system of that folder; None: this machine's.

    Attributes:
        before: Called with the name of every step (``head``, ``list``, ``get``, ``open``, ``part``, ``complete``,
            ``delete``) and the path of its object before it happens; it may raise.
        steps: What was begun: names and paths.
    """

    def __init__(self, root: Path, inner: Any = None) -> None:
        self.inner, self.root = inner or LocalFileSystem(), str(root)
        self.before: Callable[[str, str], None] = lambda _step, _path: None
        self.steps: list[tuple[str, str]] = []

    def filesystem(self) -> Any:
        """Return the file system."""
        return PyFileSystem(self)

    def step(self, name: str, path: str) -> None:
        """Note a step, and fail where told to."""
        self.steps.append((name, path))
        self.before(name, path)

    def _at(self, step: str, path: str) -> str:
        self.step(step, path)
        return f"{self.root}/{path}"

    def _mine(self, info: FileInfo) -> FileInfo:
        path = info.path.removeprefix(f"{self.root}/")
        return FileInfo(path, info.type, size=info.size, mtime_ns=info.mtime_ns)

    def get_type_name(self) -> str:
        """Return a name."""
        return "objects"

    def normalize_path(self, path: str) -> str:
        """Return a path as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """Look for objects."""
        return [self._mine(self.inner.get_file_info(self._at("head", path))) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """List objects."""
        path = self._at("list", selector.base_dir)
        found = self.inner.get_file_info(
            FileSelector(path, recursive=selector.recursive, allow_not_found=selector.allow_not_found)
        )
        return [self._mine(info) for info in found if ".upload-" not in info.path]

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open an object for reading."""
        return pa.PythonFile(self.inner.open_input_stream(self._at("get", path), compression=None), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object for reading."""
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Begin an upload."""
        return pa.PythonFile(_Upload(self, self._at("open", path), path), mode="w")

    def delete_file(self, path: str) -> None:
        """Remove an object."""
        self.inner.delete_file(self._at("delete", path))

    def _no(self, *_: Any) -> Any:
        raise NotImplementedError("object stores have no such operation")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _no
    move = copy_file = open_append_stream = _no


class _Upload:
    """A stream whose object appears when it is closed, unless writing has failed."""

    def __init__(self, objects: Objects, path: str, name: str) -> None:
        self.objects, self.path, self.name = objects, path, name
        self.part = f"{os.path.dirname(path)}/.upload-{uuid.uuid4().hex}"
        objects.inner.create_dir(os.path.dirname(path), recursive=True)
        self.stream = objects.inner.open_output_stream(self.part, compression=None)
        self.closed, self.failed = False, False

    def write(self, data: Any) -> None:
        """Upload in two parts."""
        try:
            view = memoryview(data)
            self.objects.step("part", self.name)
            self.stream.write(view[: len(view) // 2])
            self.objects.step("part", self.name)
            self.stream.write(view[len(view) // 2 :])
        except BaseException:
            self.failed = True
            raise

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Complete the upload."""
        if self.closed:
            return
        self.closed = True
        self.stream.close()
        if not self.failed:
            self.objects.step("complete", self.name)
            self.objects.inner.move(self.part, self.path)
