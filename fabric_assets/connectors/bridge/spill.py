"""Rows that a connector has sent, kept until their commit unit is complete: in memory, and beyond a limit in a nameless private file."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.bridge.json_lines import read_line, write_line
from fabric_assets.errors import SourceError
from fabric_assets.rows.batches import Row

_IN_MEMORY = 8 * 1024 * 1024
_BATCH_BYTES, _BATCH_ROWS = 8 * 1024 * 1024, 20_000
# The kinds of chunks in the file: lines of JSON, JSON objects as an Arrow stream, and other tables as one.
_LINES, _OBJECTS, _TABLE = b"l", b"o", b"t"
_CHUNK_BYTES = 1024 * 1024


class Budget:
    """The bytes that all streams of one load may wait with.

    Args:
        where: tenant and source, for messages.
    """

    def __init__(self, limit: int, *, where: str, connector: str) -> None:
        self._limit, self._left, self._where, self._connector = limit, limit, where, connector

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            SourceError: there are more than the limit.
        """
        self._left -= size
        if self._left < 0:
            raise SourceError(
                f"{self._where}: the connector {self._connector} sent more than {self._limit / 1e6:,.0f} MB that nothing could be committed of",
                remedy="raise limits.spill of the connector in connectors.yaml, or load fewer streams at a time",
            )

    def give_back(self, size: int) -> None:
        self._left += size


class Spill:
    """The rows of one stream, written once and then read once, in order: JSON objects, or columns.

    Args:
        folder: a private folder; its file has no name there, so a killed load leaves nothing behind.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by `close`
        self._budget, self._size, self._lines = budget, 0, bytearray()
        self.rows = 0

    def add(self, row: Row) -> None:
        """Add a row, which is JSON."""
        line = write_line(row)
        self._count(len(line))
        self._lines += line
        self.rows += 1
        if len(self._lines) >= _CHUNK_BYTES:
            self._write_lines()

    def add_table(self, rows: pa.Table, *, is_json: bool) -> None:
        """Add rows as columns.

        Args:
            is_json: see `Batch.is_json`.
        """
        self._write_lines()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        content = sink.getvalue()
        self._count(content.size)
        self._write(_OBJECTS if is_json else _TABLE, content)
        self.rows += rows.num_rows

    def read(self) -> Iterator[tuple[list[Row] | pa.Table, bool]]:
        """Yield the rows in batches, and of each whether its rows are JSON objects."""
        self._write_lines()
        self._file.seek(0)
        rows, size = list[Any](), 0
        while head := self._file.read(9):
            content = self._file.read(int.from_bytes(head[1:]))
            if head[:1] != _LINES:
                if rows:
                    yield rows, True
                    rows, size = [], 0
                yield pa.ipc.open_stream(content).read_all(), head[:1] == _OBJECTS
                continue
            for line in content.splitlines():
                rows.append(read_line(line))
                size += len(line)
                if size >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                    yield rows, True
                    rows, size = [], 0
        if rows:
            yield rows, True

    def clear(self) -> None:
        """Forget the rows."""
        self._file.seek(0)
        self._file.truncate()
        self._lines.clear()
        self._budget.give_back(self._size)
        self._size = self.rows = 0

    def close(self) -> None:
        self._budget.give_back(self._size)
        self._size = 0
        self._file.close()

    def _count(self, size: int) -> None:
        self._budget.take(size)
        self._size += size

    def _write_lines(self) -> None:
        if self._lines:
            self._write(_LINES, bytes(self._lines))
            self._lines.clear()

    def _write(self, kind: bytes, content: Any) -> None:
        self._file.write(kind + len(content).to_bytes(8))
        self._file.write(content)
