"""A load's request and its reports: plain dataclasses, so that factories need no import of the engine."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import Ask
from fabric_assets.errors import FabricError
from fabric_assets.quoting import quote_table, quote_text
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.settings import Settings


@dataclass(frozen=True)
class LoadRequest:
    """What one load of a source is asked to do.

    Args:
        streams: empty for all of the source's.
        full_refresh: forget cursors and tables of these streams, read everything again.
        run_id: of the orchestrator's run, for the ledger.
        earlier_runs: runs that this one continues: streams that they have loaded are reported again, not loaded again.
    """

    tenant: TenantConfig
    source: str
    streams: tuple[str, ...]
    settings: Settings
    full_refresh: bool = False
    run_id: str = ""
    earlier_runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaChange:
    """A difference between a table and the rows that came for it.

    Args:
        change: `column_named` is for a column whose name differs from dlt's rule.
        before: the column's type in the warehouse; empty where there was no column. Of a name: the source's field, or the former name.
        after: the type that came; empty where none came. Of a name: the column, or the nested table.
        values: of `type_changed`: how many values of this load went into the variant column.
        declared: of `column_missing`: the source declares its columns, and no longer this one.
    """

    table: str
    column: str
    change: Literal["column_added", "column_missing", "type_changed", "column_named", "column_renamed"]
    before: str = ""
    after: str = ""
    values: int = 0
    declared: bool = False


@dataclass(frozen=True)
class LoadRecord:
    """One row of `<tenant>_fabric.loads`: what one load did, or failed to do, for one stream.

    Args:
        window_start: the cursor value from which the load read, inclusive; None for the beginning.
        window_end: the highest cursor value that it met.
        rows_read: rows that the source gave: those loaded and those rejected.
        rows_loaded: rows written, including duplicates that a merge left out.
        rows_total: rows in the table afterwards; None where the load failed.
        rows_deleted: rows that the source no longer has, deleted or marked by this load; None where it did not look for them.
        deletes_kept: why this load has followed no delete, although it looked for them.
        source_rows: rows that the source held when the load ended; None where it has not counted them.
        bytes: size of the loaded rows in memory, as Arrow.
        retriable: of a load that failed: whether another try may help.
        value_forms: the version of the forms (rows/value_forms.py) in the stream's table; None of loads before there were versions.
        column_names: the fields whose columns have other names (stream_names.py), as JSON; None where the load has changed none.
    """

    load_id: str
    run_id: str
    source: str
    stream: str
    write_disposition: str
    started_at: datetime
    status: Literal["running", "success", "failed"] = "running"
    loaded_at: datetime | None = None
    window_start: str | None = None
    window_end: str | None = None
    rows_read: int = 0
    rows_loaded: int = 0
    rows_rejected: int = 0
    rows_total: int | None = None
    rows_deleted: int | None = None
    deletes_kept: str | None = None
    source_rows: int | None = None
    bytes: int = 0
    seconds: float = 0.0
    schema_changes: tuple[SchemaChange, ...] = ()
    error: str | None = None
    retriable: bool | None = None
    value_forms: int | None = None
    column_names: str | None = None


@dataclass(frozen=True)
class ColumnReport:
    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class StreamReport:
    """What one load did for one stream, once it is committed.

    Args:
        record: its row of the ledger.
        table_name: fully qualified: database.dataset.table.
        first_run: the table is new, or was recreated.
        files: the dropped files of the load, with their new status; only of a source that imports them.
        warnings: what a reader of the run should know, a sentence each.
        rows_missing: rows that something other than a load has deleted from the table since the last load.
    """

    record: LoadRecord
    table_name: str
    columns: tuple[ColumnReport, ...]
    destination: str
    dataset: str
    first_run: bool
    files: tuple[ImportedFile, ...] = ()
    warnings: tuple[str, ...] = ()
    rows_missing: int = 0

    @property
    def stream(self) -> str:
        return self.record.stream

    @property
    def rows_loaded(self) -> int:
        return self.record.rows_loaded

    @property
    def rows_rejected(self) -> int:
        return self.record.rows_rejected

    @property
    def rows_total(self) -> int:
        return self.record.rows_total or 0


@dataclass(frozen=True)
class StreamFailure:
    """A stream that was not loaded, and why."""

    stream: str
    error: FabricError = field(compare=False)


def read_table(ask: Ask, dataset: str, table: str) -> tuple[int, tuple[ColumnReport, ...]]:
    """Read a table's row count and columns; (0, ()) where it does not exist."""
    found = ask(
        "select column_name, data_type, is_nullable, numeric_precision, numeric_scale from information_schema.columns"
        f" where table_schema = {quote_text(dataset)} and table_name = {quote_text(table)} order by ordinal_position"
    )
    columns = tuple(
        ColumnReport(name, _describe(kind, precision, scale), nullable == "YES")
        for name, kind, nullable, precision, scale in found
        if not name.startswith("_dlt_")
    )
    if not columns:
        return 0, ()
    return ask(f"select count(*) from {quote_table(dataset, table)}")[0][0], columns


def _describe(kind: str, precision: int | None, scale: int | None) -> str:
    return f"numeric({precision},{scale})" if kind == "numeric" and precision is not None else kind.lower()
