"""Finished loads -> rows of `<tenant>_fabric.loads`: which stream was loaded when, by which run, with how many rows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fabric_assets import naming
from fabric_assets.loading.reports import LoadRequest, StreamReport

_COLUMNS = (
    "load_id text, run_id text, source text, stream text, loaded_at timestamp with time zone, rows_loaded bigint, rows_total bigint, seconds double precision"
)


def record(connection: Any, request: LoadRequest, reports: Sequence[StreamReport]) -> None:
    """Add a row per stream; the caller commits."""
    dataset, now = naming.platform_dataset(request.tenant.tenant), datetime.now(UTC)
    mark = "?" if request.tenant.destination.type == "duckdb" else "%s"
    cursor = connection.cursor()
    cursor.execute(f'create schema if not exists "{dataset}"')
    cursor.execute(f'create table if not exists "{dataset}".loads ({_COLUMNS})')
    for report in reports:
        cursor.execute(
            f'insert into "{dataset}".loads values ({", ".join([mark] * 8)})',
            (report.load_id, request.run_id, request.source, report.stream, now, report.rows_loaded, report.rows_total, report.seconds),
        )


def get_last_load(connection: Any, *, tenant: str, source: str, stream: str) -> datetime | None:
    """When the stream was last loaded; None if never. The names are fixed points of our own rule."""
    dataset, cursor = naming.platform_dataset(tenant), connection.cursor()
    cursor.execute(f"select 1 from information_schema.tables where table_schema = '{dataset}' and table_name = 'loads'")
    if cursor.fetchone() is None:
        return None
    cursor.execute(f"select max(loaded_at) from \"{dataset}\".loads where source = '{source}' and stream = '{stream}'")
    return cursor.fetchone()[0]
