"""Rows that a connector has sent, kept until their commit unit is complete: in memory, and beyond a limit in a nameless private file."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabric_assets.connectors.bridge.json_lines import read_line, write_line
from fabric_assets.errors import SourceError
from fabric_assets.rows.batches import Row

_IN_MEMORY = 8 * 1024 * 1024
_BATCH_BYTES, _BATCH_ROWS = 8 * 1024 * 1024, 20_000


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
    """The rows of one stream, written once and then read once, in order.

    Args:
        folder: a private folder; its file has no name there, so a killed load leaves nothing behind.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by `close`
        self._budget, self._size = budget, 0
        self.rows = 0

    def add(self, row: Row) -> None:
        """Add a row, which is JSON."""
        line = write_line(row)
        self._budget.take(len(line))
        self._file.write(line)
        self._size += len(line)
        self.rows += 1

    def read(self) -> Iterator[list[Row]]:
        """Yield the rows in batches."""
        self._file.seek(0)
        rows, size = list[Any](), 0
        for line in self._file:
            rows.append(read_line(line))
            size += len(line)
            if size >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    def clear(self) -> None:
        """Forget the rows."""
        self._file.seek(0)
        self._file.truncate()
        self._budget.give_back(self._size)
        self._size = self.rows = 0

    def close(self) -> None:
        self._budget.give_back(self._size)
        self._size = 0
        self._file.close()
