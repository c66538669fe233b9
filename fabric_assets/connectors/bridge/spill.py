"""Rows that a connector has sent, kept until their commit unit is complete: in memory, and beyond a limit in one nameless private file."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.bridge.json_lines import read_line, write_line
from fabric_assets.errors import SourceError
from fabric_assets.rows.batches import Row

# Lines of all streams that wait in memory.
_IN_MEMORY = 16 * 1024 * 1024
_BATCH_BYTES, _BATCH_ROWS = 8 * 1024 * 1024, 20_000
# The kinds of chunks in the file: lines of JSON, JSON objects as an Arrow stream, and other tables as one.
_LINES, _OBJECTS, _TABLE = "lines", "objects", "table"
_CHUNK_BYTES = 1024 * 1024


class SpillFile:
    """The file of one load.

    Args:
        folder: a private folder; the file has no name there, so a killed load leaves nothing behind.
        limit: bytes that may wait.
        where: tenant and source, for messages.
    """

    def __init__(self, folder: Path, limit: int, *, where: str, connector: str) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._limit, self._where, self._connector = limit, where, connector
        self._spills, self._size, self._waiting, self._end = list["Spill"](), 0, 0, 0

    def open_spill(self) -> "Spill":
        """Open the spill of a stream."""
        self._spills.append(Spill(self))
        return self._spills[-1]

    def count(self, size: int) -> None:
        """Count bytes of a stream's rows.

        Raises:
            SourceError: there are more than the limit.
        """
        self._size += size
        if self._size > self._limit:
            raise SourceError(
                f"{self._where}: the connector {self._connector} sent more than {self._limit / 1e6:,.0f} MB that nothing could be committed of",
                remedy="raise limits.spill of the connector in connectors.yaml, or load fewer streams at a time",
            )

    def wait(self, size: int) -> None:
        """Count bytes that wait in memory; too many are written, those of all streams."""
        self._waiting += size
        if self._waiting > _IN_MEMORY:
            for spill in self._spills:
                spill.write_lines()

    def write(self, content: Any, *, waited: bool) -> tuple[int, int]:
        """Write a chunk; return where it begins, and its size.

        Raises:
            SourceError: there is no room for it.
        """
        begin, size = self._end, len(content)
        try:
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise SourceError(
                f"{self._where}: the rows of {self._connector} cannot be kept until they are complete: {error.strerror}",
                remedy="make room where FABRIC_DATA_DIR lies, or load fewer streams at a time",
            ) from None
        self._end += size
        self._waiting -= size if waited else 0
        return begin, size

    def read(self, begin: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, begin)

    def close(self) -> None:
        self._file.close()


class Spill:
    """The rows of one stream, written once and then read once, in order: JSON objects, or columns."""

    def __init__(self, file: SpillFile) -> None:
        self._file, self._lines = file, bytearray()
        self._chunks = list[tuple[str, int, int]]()
        self.rows = 0

    def add(self, row: Row) -> None:
        """Add a row, which is JSON."""
        line = write_line(row)
        self._file.count(len(line))
        self._lines += line
        self.rows += 1
        self._file.wait(len(line))
        if len(self._lines) >= _CHUNK_BYTES:
            self.write_lines()

    def add_table(self, rows: pa.Table, *, is_json: bool) -> None:
        """Add rows as columns.

        Args:
            is_json: see `Batch.is_json`.
        """
        self.write_lines()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        content = sink.getvalue()
        self._file.count(content.size)
        self._chunks.append((_OBJECTS if is_json else _TABLE, *self._file.write(content, waited=False)))
        self.rows += rows.num_rows

    def write_lines(self) -> None:
        """Write the lines that wait in memory."""
        if self._lines:
            self._chunks.append((_LINES, *self._file.write(self._lines, waited=True)))
            self._lines = bytearray()

    def read(self) -> Iterator[tuple[list[Row] | pa.Table, bool]]:
        """Yield the rows in batches, and of each whether its rows are JSON objects."""
        rows, size = list[Any](), 0
        for kind, content in self._list_contents():
            if kind != _LINES:
                if rows:
                    yield rows, True
                    rows, size = [], 0
                yield pa.ipc.open_stream(content).read_all(), kind == _OBJECTS
                continue
            for line in content.splitlines():
                rows.append(read_line(line))
                size += len(line)
                if size >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                    yield rows, True
                    rows, size = [], 0
        if rows:
            yield rows, True

    def _list_contents(self) -> Iterator[tuple[str, bytes]]:
        for kind, begin, size in self._chunks:
            yield kind, self._file.read(begin, size)
        if self._lines:
            yield _LINES, bytes(self._lines)
