"""The parts of a run in one file, so that ten thousand trials are not ten thousand files to read.

The parts are the truth: a trial has ended when its part is renamed into place. The pack beside them is a copy of the
parts that were there when it was written, each row with the name of its part and that file's version. Its rows count
while their part still has that version; parts that are new or were replaced are read themselves. So the pack may be
old, absent or damaged at any time, and whoever reads the run may write it again.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddnl_ray.files import write_atomic
from ddnl_ray.results import FORMAT_VERSION, SCHEMA, read_table

PART, VERSION, SELECT_ON = "part", "part_version", "part_select_on"
MANY = 64
"""So many parts that are not in the pack are worth writing it again."""

READERS = 8
"""Parts that are read at once: on a network file system most of the time is waiting."""

_ADDED = pa.schema([(name, pa.string()) for name in (PART, VERSION, SELECT_ON)])
_FORMAT = {"ddnl_pack": f"1.{FORMAT_VERSION}"}


class Pack:
    """The rows of all parts of a folder.

    Args:
        parts: The folder of the parts.
        path: The pack; another file system than that of the parts will do.
    """

    def __init__(self, parts: Path, path: Path) -> None:
        self.parts, self.path = parts, path

    def rows(self, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of all parts as they were published, in the order of the parts' names.

        Args:
            columns: Columns of :data:`ddnl_ray.results.SCHEMA`; None: all.

        Returns:
            These columns, and ``part`` (the file's name) and ``part_select_on``.

        Raises:
            CorruptFileError: A part is not a result file.
        """
        names = columns or SCHEMA.names
        there = self._versions()
        kept = {name for name, version in self._packed_versions() if there.get(name) == version}
        new = {name: version for name, version in there.items() if name not in kept}
        if len(new) >= MANY:
            table = self._merge(self._packed(SCHEMA.names, kept), self._read(new, SCHEMA.names))
            with suppress(OSError):  # a folder that may only be read is read as it is
                self._write(table)
        else:
            table = self._merge(self._packed(names, kept), self._read(new, names))
        return table.select([PART, SELECT_ON, *names])

    def _versions(self) -> dict[str, str]:
        """Return the parts that are there; a part that was replaced has another version."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self.parts) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet"):
                    about = entry.stat()
                    found[entry.name] = f"{about.st_ino}-{about.st_size}-{about.st_mtime_ns}"
        return found

    def _packed_versions(self) -> Iterable[tuple[str, str]]:
        table = self._open([PART, VERSION])
        if table is None:
            return []
        pairs = table.group_by([PART, VERSION]).aggregate([]).to_pydict()
        return zip(pairs[PART], pairs[VERSION], strict=True)

    def _packed(self, names: list[str], kept: set[str]) -> pa.Table:
        """Return columns of the pack's rows that are still true."""
        table = self._open([*_ADDED.names, *names]) if kept else None
        if table is None:
            return _schema(names).empty_table()
        return table.filter(pc.is_in(table[PART], pa.array(list(kept), pa.string())))

    def _open(self, names: list[str]) -> pa.Table | None:
        """Return columns of the pack; None where there is none that can be used."""
        with (
            suppress(pa.ArrowException, OSError, KeyError),
            pq.ParquetFile(self.path, page_checksum_verification=True) as file,
        ):
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"ddnl_pack") == _FORMAT["ddnl_pack"].encode():
                return file.read(names, use_threads=False).select(names).replace_schema_metadata(None)
        return None

    def _read(self, new: Mapping[str, str], names: list[str]) -> pa.Table:
        """Return columns of the parts that the pack lacks."""

        def one(item: tuple[str, str]) -> pa.Table:
            (name, version), (table, select_on) = item, read_table(self.parts / item[0], names)
            added = [pa.repeat(pa.scalar(value), len(table)) for value in (name, version, select_on)]
            return pa.Table.from_arrays([*added, *table.columns], schema=_schema(names))

        with ThreadPoolExecutor(READERS) as readers:
            return pa.concat_tables([_schema(names).empty_table(), *readers.map(one, new.items())])

    def _merge(self, packed: pa.Table, new: pa.Table) -> pa.Table:
        """Return rows in the order of their parts; those of one part stay in theirs (the sort is stable)."""
        table = pa.concat_tables([packed, new])
        return table.take(pc.sort_indices(table[PART])).combine_chunks()

    def _write(self, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(_FORMAT), buffer, write_page_checksum=True)
        write_atomic(self.path, buffer.getvalue())


def _schema(names: list[str]) -> pa.Schema:
    return pa.schema([*_ADDED, *(SCHEMA.field(name) for name in names)])
