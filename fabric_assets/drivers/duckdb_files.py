"""A DuckDB file -> a connection that can reach only that file. A test ensures that no other module calls `duckdb.connect`.

A tenant's models run SQL in the tenant's file, and may leave views, macros and types there for the next process that opens it. So the first statements
lock each connection, without reading the file, and each name that the platform uses means DuckDB's own object (ADR 0020).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from fabric_assets.drivers.duckdb_damage import build_damage_error, is_damage
from fabric_assets.drivers.duckdb_readers import READER_SECONDS, describe_holder, is_held, open_when_free
from fabric_assets.errors import DestinationError, DestinationUnavailable, FabricError
from fabric_assets.quoting import quote_text

# DuckDB's default is its oldest format. This one compresses text better and six times faster; DuckDB 1.3 and newer read it.
_FORMAT = "v1.3.0"
# A quarter of the default: an insert holds blocks of each column. With the default a table of 800 columns took 860 MB of memory.
_BLOCK_BYTES = 64 * 1024
# Else DuckDB downloads an extension when it opens a file that begins like an SQLite file, before any statement.
NO_DOWNLOADS: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
# Settings of the whole database, which no session can change afterwards. They are not options of `connect`, which DuckDB applies in its own order:
# the spill folder must be set before access to files is closed.
_LOCK = (
    "set global TimeZone = 'UTC'",
    "set autoinstall_known_extensions = false",
    "set autoload_known_extensions = false",
    "set allow_community_extensions = false",
    "set allow_persistent_secrets = false",
    "set python_enable_replacements = false",
    "set enable_external_access = false",
    "set lock_configuration = true",
)
# A text, not a list: DuckDB evaluates the value of `set`, and a list would call the function `list_value`.
_SIZES_MAY_CHANGE = "set allowed_configs = '[memory_limit, threads]'"
# The order in which names without a schema are looked up. `pg_catalog`, a schema that no file can have, stands for the file, so that `schema.table` is found
# there. DuckDB's own functions, operators and types come next, and the file's schema `main` comes last; by default it comes before DuckDB's own.
_BUILT_INS_FIRST = "set search_path = 'pg_catalog,system.main'"
_IS_LOCKED = "the configuration has been locked"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class LockedConnection:
    """A locked connection. Its cursors look names up in the same order; DuckDB's own cursors would not."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def cursor(self) -> duckdb.DuckDBPyConnection:
        cursor = self._connection.cursor()
        cursor.execute(_BUILT_INS_FIRST)
        return cursor

    def __enter__(self) -> "LockedConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def close_default_connection() -> None:
    """Close the connection that importing DuckDB opens: its threads would not survive a fork of this process."""
    duckdb.default_connection().close()


def open_file(
    file: Path | str,
    *,
    read_only: bool = False,
    spill: Path | None = None,
    memory: str = "",
    threads: int = 0,
    sizes_may_change: bool = False,
    exact_arrow: bool = False,
) -> LockedConnection:
    """Open a file, locked. All connections to DuckDB files are opened here, except dbt's own, which its plugin locks.

    Args:
        spill: see `lock`.
        memory: the limit of memory, as DuckDB writes it; default: DuckDB's own.
        threads: default: DuckDB's own.
        sizes_may_change: leave `memory_limit` and `threads` open, for a connection that runs no statement of a tenant's.
        exact_arrow: give types that Arrow lacks as extension types; by default UUIDs become texts, and large numbers lose digits.

    Raises:
        duckdb.Error: see `build_open_error`.
    """
    config = NO_DOWNLOADS | ({"arrow_lossless_conversion": "true"} if exact_arrow else {})
    connection = duckdb.connect(str(file), read_only=read_only, config=config)
    try:
        lock(connection, spill=spill, memory=memory, threads=threads, sizes_may_change=sizes_may_change)
        return LockedConnection(connection)
    except BaseException:
        connection.close()
        raise


# Files for which this process has waited in vain: dbt opens a file several times, and the waits would add up.
_given_up = set[Path]()


def wait_for_file(file: Path) -> None:
    """Wait until no other program has a tenant's file open.

    Raises:
        FabricError: it was not closed there in time, or it cannot be opened for another reason.
    """
    try:
        seconds = 0.0 if file in _given_up else READER_SECONDS
        open_when_free(lambda: duckdb.connect(str(file), config=NO_DOWNLOADS), file, seconds=seconds).close()
    except duckdb.Error as error:
        _given_up.add(file)
        raise build_open_error(error, f"tenant {file.stem}: {file.name}") from None


def make_file(file: Path) -> None:
    """Make an empty file."""
    duckdb.connect(str(file), config={**NO_DOWNLOADS, "storage_compatibility_version": _FORMAT, "default_block_size": _BLOCK_BYTES}).close()


def open_engine() -> duckdb.DuckDBPyConnection:
    """Open DuckDB without a file of its own, to read files whose paths the caller has checked."""
    connection = duckdb.connect(config=NO_DOWNLOADS)
    connection.execute("set global TimeZone = 'UTC'")
    return connection


def lock(connection: duckdb.DuckDBPyConnection, *, spill: Path | None = None, memory: str = "", threads: int = 0, sizes_may_change: bool = False) -> None:
    """Lock an open connection, and all others of this process to its database, permanently; their sessions are in UTC.

    Cursors look names up as DuckDB does by default: dbt's run models, and these may use macros of their own. `LockedConnection` gives others.

    Args:
        spill: the folder for data larger than memory. SQL can write there too, so it must hold nothing else. By default it is beside the database.
    """
    connection.execute(_BUILT_INS_FIRST)
    try:
        for statement in (*_list_sizes(connection, spill, memory, threads), *((_SIZES_MAY_CHANGE,) if sizes_may_change else ()), *_LOCK):
            connection.execute(statement)
    except duckdb.InvalidInputException as error:
        # The only accepted error: another connection of this process has already locked this database. A file cannot cause it.
        if _IS_LOCKED not in str(error):
            raise


def build_open_error(error: duckdb.Error, where: str) -> FabricError:
    """Build the error of a tenant's file that could not be opened.

    Args:
        where: the tenant and the file.
    """
    text = str(error)
    if is_held(error):
        remedy = "close it there, then try again; readers open the published file instead, FABRIC_PUBLISH_DIR/<tenant>/<tenant>.duckdb"
        return DestinationUnavailable(f"{where} is open in another program: {describe_holder(error)}", remedy=remedy)
    if is_damage(text):
        return build_damage_error(text, where)
    if "database file with version number" in text:
        return DestinationError(f"{where} was written by a newer DuckDB: {text}", remedy="install the version of DuckDB that wrote it, or a newer one")
    return DestinationUnavailable(f"{where} cannot be opened: {text}", remedy="see the reason, then try again")


def _list_sizes(connection: duckdb.DuckDBPyConnection, spill: Path | None, memory: str, threads: int) -> Iterator[str]:
    if spill is not None:
        yield f"set temp_directory = {quote_text(str(spill))}"
        # DuckDB would take 80 % of the machine, or of the container, for each process; several tenants' builds run at once.
        yield f"set memory_limit = '{_get_memory(connection) * 5 // 8}B'"
    if memory:
        yield f"set memory_limit = '{memory}'"
    if threads:
        yield f"set threads = {threads}"


def _get_memory(connection: duckdb.DuckDBPyConnection) -> int:
    """Read the limit by DuckDB's own function: with catalog and schema, because the file may have one of the same name."""
    (limit,) = connection.execute("select system.main.current_setting('memory_limit')").fetchone() or ("",)
    number, unit = limit.split()
    return int(float(number) * _UNITS[unit])
