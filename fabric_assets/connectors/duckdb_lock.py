"""A DuckDB connection -> one that reaches nothing but its own database: for SQL that tenants write, and for reading what it left behind.

DuckDB reads and writes files, attaches databases and loads extensions by SQL, so this lock is all that stands between a tenant's SQL and another's file.
It closes the files, then the settings themselves. They are made one by one: as options of `connect` they would come in an order of DuckDB's own, and once
the files are closed the spill folder can no longer be named.
"""

from pathlib import Path
from typing import Any

# What is set for the whole database holds in each of its sessions: none can set it any more.
_LOCK = (
    "set global TimeZone = 'UTC'",
    "set autoinstall_known_extensions = false",
    "set autoload_known_extensions = false",
    "set allow_community_extensions = false",
    "set enable_external_access = false",
    "set lock_configuration = true",
)
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def lock(connection: Any, *, spill: Path | None = None) -> None:
    """Lock an open connection, and all others of this process to its database, for good; their sessions are in UTC.

    Args:
        spill: where DuckDB may write what is larger than memory; SQL can write there too, so it must hold nothing else. Default: beside the database.
    """
    if connection.execute("select current_setting('lock_configuration')").fetchone()[0]:
        return
    if spill is not None:
        path = str(spill).replace("'", "''")
        connection.execute(f"set temp_directory = '{path}'")
        # DuckDB would take 80 % of the machine, or of the container, for each process; several tenants' builds run at once.
        connection.execute(f"set memory_limit = '{_get_memory(connection) * 5 // 8}B'")
    for statement in _LOCK:
        connection.execute(statement)


def _get_memory(connection: Any) -> int:
    number, unit = connection.execute("select current_setting('memory_limit')").fetchone()[0].split()
    return int(float(number) * _UNITS[unit])
