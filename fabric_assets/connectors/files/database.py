"""A separate DuckDB for each reading of a file: it reads texts, in bounded memory, and without any tenant's settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.drivers.duckdb_files import open_engine
from fabric_assets.quoting import quote_text

# The memory of a query. More data goes to the load's private folder, or ends the query with an error.
# With thousands of columns, one vector of each takes more memory.
_MEMORY, _WIDE_MEMORY = "192MiB", "320MiB"
_THREADS = 4


def connect(folder: Path, *, threads: int = _THREADS) -> Any:
    """Open a database in memory.

    Args:
        folder: private to the load; takes what does not fit in memory.
        threads: more threads read faster, but each has its own buffers.
    """
    connection: Any = open_engine()
    connection.execute(f"set memory_limit = '{_MEMORY}'")
    connection.execute(f"set temp_directory = {quote_text(str(folder))}")
    if connection.execute("select current_setting('threads')").fetchone()[0] > threads:
        connection.execute(f"set threads = {threads}")
    return connection


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
