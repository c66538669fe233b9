"""A DuckDB of its own for each reading of a file: it reads texts, in bounded memory, and no setting of a tenant's reaches it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.drivers.duckdb_files import open_engine
from fabric_assets.quoting import quote_text

# What a query keeps at a time. More goes to the load's private folder, or ends the query with an error.
# A row of vectors of thousands of columns is larger than that of a few.
_MEMORY, _WIDE_MEMORY = "192MiB", "320MiB"
_THREADS = 4


def connect(folder: Path, *, threads: int = _THREADS) -> Any:
    """Open one.

    Args:
        folder: private to the load; takes what does not fit in memory.
        threads: more read faster, and each has buffers of its own.
    """
    connection: Any = open_engine()
    connection.execute(f"set memory_limit = '{_MEMORY}'")
    connection.execute(f"set temp_directory = {quote_text(str(folder))}")
    if connection.execute("select current_setting('threads')").fetchone()[0] > threads:
        connection.execute(f"set threads = {threads}")
    return connection


def prepare_for_wide(connection: Any) -> None:
    """Let a connection read a file of hundreds of columns: by one thread, whose vectors are large."""
    connection.execute("set threads = 1")
    connection.execute(f"set memory_limit = '{_WIDE_MEMORY}'")


def stream(connection: Any, sql: str, rows: int) -> Iterator[pa.Table]:
    """Give a query's rows in tables of about so many rows."""
    result = connection.execute(sql)
    # DuckDB 1.5 gave the method a new name, and warns about the old one.
    open_reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
    for batch in open_reader(rows):
        yield pa.Table.from_batches([batch])
