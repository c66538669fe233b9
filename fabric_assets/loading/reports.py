"""What a load is asked for and what it reports: plain dataclasses, so that factories need no import of the engine."""

from dataclasses import dataclass
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.settings import Settings


@dataclass(frozen=True)
class LoadRequest:
    """Args:
    streams: empty for all of the source's.
    full_refresh: forget cursors and tables of these streams, read everything again.
    run_id: of the orchestrator's run, for the ledger.
    """

    tenant: TenantConfig
    source: str
    streams: tuple[str, ...]
    settings: Settings
    full_refresh: bool = False
    run_id: str = ""


@dataclass(frozen=True)
class ColumnReport:
    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class StreamReport:
    """What one load did for one stream.

    Args:
        table_name: fully qualified: database.dataset.table.
        rows_loaded: rows written by this load, repeats of merged rows included.
        rows_total: rows in the table afterwards.
        seconds: of the whole source's load, which its streams share.
        first_run: the table was new, or made anew.
        bytes: size of what was written for the stream.
    """

    stream: str
    table_name: str
    rows_loaded: int
    rows_total: int
    columns: tuple[ColumnReport, ...]
    load_id: str
    destination: str
    dataset: str
    seconds: float
    first_run: bool
    bytes: int | None


def read_table(connection: Any, dataset: str, table: str) -> tuple[int, tuple[ColumnReport, ...]]:
    """Read a table's row count and columns; (0, ()) where it does not exist. Both names are fixed points of our own rule."""
    cursor = connection.cursor()
    cursor.execute(
        "select column_name, data_type, is_nullable, numeric_precision, numeric_scale from information_schema.columns"
        f" where table_schema = '{dataset}' and table_name = '{table}' order by ordinal_position"
    )
    columns = tuple(
        ColumnReport(name, _describe(kind, precision, scale), nullable == "YES")
        for name, kind, nullable, precision, scale in cursor.fetchall()
        if not name.startswith("_dlt_")
    )
    if not columns:
        return 0, ()
    cursor.execute(f'select count(*) from "{dataset}"."{table}"')
    return cursor.fetchone()[0], columns


def _describe(kind: str, precision: int | None, scale: int | None) -> str:
    return f"numeric({precision},{scale})" if kind == "numeric" and precision is not None else kind.lower()


def empty_staging(connection: Any, dataset: str) -> None:
    """Leave no copy of the rows in the load's staging dataset.

    Not by dlt's own setting: that one makes an empty dataset where a load needs none, and a later full refresh stumbles over it.
    """
    cursor = connection.cursor()
    cursor.execute(f"select table_name from information_schema.tables where table_schema = '{dataset}' and table_name not like '\\_dlt%' escape '\\'")
    for (table,) in cursor.fetchall():
        cursor.execute(f'truncate table "{dataset}"."{table}"')
