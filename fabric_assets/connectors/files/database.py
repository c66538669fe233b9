"""DuckDB in memory, which reads the texts of a stream's files: in bounded memory, and without any tenant's settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.drivers.duckdb_files import open_engine
from fabric_assets.quoting import quote_text

# The memory of a query. More data goes to the load's private folder, or ends the query with an error.
# With thousands of columns, one vector of each takes more memory.
_MEMORY, _WIDE_MEMORY = "192MiB", "320MiB"
_THREADS = 4


class Engine:
    """A database in memory that one file after the other uses: to open a database takes longer than to read a small file.

    Args:
        folder: private to the load; takes what does not fit in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._idle: list[tuple[Any, int]] = []

    @contextmanager
    def connect(self, *, threads: int = _THREADS) -> Iterator[Any]:
        """Connect to the database, whose settings are as they were at first. A database that failed is not used again.

        Args:
            threads: more threads read faster, but each has its own buffers.
        """
        database, most = self._idle.pop() if self._idle else self._open()
        try:
            database.execute(f"set memory_limit = '{_MEMORY}'; set threads = {min(threads, most)}")
            with database.cursor() as connection:
                yield connection
        except BaseException:
            database.close()
            raise
        self._idle.append((database, most))

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()

    def _open(self) -> tuple[Any, int]:
        database: Any = open_engine()
        database.execute(f"set temp_directory = {quote_text(str(self._folder))}")
        return database, database.execute("select current_setting('threads')").fetchone()[0]


def prepare_for_wide(connection: Any) -> None:
    """Prepare a connection for a file of hundreds of columns: use one thread, because its vectors are large."""
    connection.execute("set threads = 1")
    connection.execute(f"set memory_limit = '{_WIDE_MEMORY}'")


def stream(connection: Any, sql: str, rows: int) -> Iterator[pa.Table]:
    """Yield a query's rows in tables of about this many rows."""
    result = connection.execute(sql)
    # DuckDB 1.5 gave the method a new name, and warns about the old one.
    open_reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
    for batch in open_reader(rows):
        yield pa.Table.from_batches([batch])
