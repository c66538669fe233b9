"""What the platform's tables say of one stream that is loaded, over any DB-API connection: for checks, which run beside loads.

A table that an earlier release has made may lack a column until the next load of the tenant.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fabric_assets import naming
from fabric_assets.quoting import quote_text
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import FIRST
from fabric_assets.warehouse.session import Table


def get_last_load(connection: Any, *, tenant: str, source: str, stream: str) -> datetime | None:
    """When the stream was last loaded; None if never."""
    cursor, loads = connection.cursor(), Table(naming.platform_dataset(tenant), "loads")
    if not _has_column(connection, tenant, "loads", "status"):
        return None
    cursor.execute(f"select max(loaded_at) from {loads} where source = {quote_text(source)} and stream = {quote_text(stream)} and status = 'success'")
    found = cursor.fetchone()[0]
    return None if found is None else found.astimezone(UTC)


def find_column(connection: Any, field: str, *, tenant: str, source: str, stream: str, columns: Sequence[str]) -> str:
    """The column of a stream's table that a field of its source has.

    Args:
        columns: of the table.
    """
    value_forms, kept = None, None
    if _has_column(connection, tenant, "stream_state", "column_names"):
        cursor = connection.cursor()
        cursor.execute(
            f"select value_forms, column_names from {Table(naming.platform_dataset(tenant), 'stream_state')}"
            f" where source = {quote_text(source)} and stream = {quote_text(stream)}"
        )
        value_forms, kept = cursor.fetchone() or (None, None)
    return StreamNames(stream, layout={stream: dict.fromkeys(columns)}, kept=kept, value_forms=value_forms or FIRST).find_column(field)


def _has_column(connection: Any, tenant: str, table: str, column: str) -> bool:
    """Whether a table of the platform has a column: one that an earlier release has made may lack it until the next load."""
    cursor, dataset = connection.cursor(), naming.platform_dataset(tenant)
    cursor.execute(
        f"select 1 from information_schema.columns where table_schema = {quote_text(dataset)}"
        f" and table_name = {quote_text(table)} and column_name = {quote_text(column)}"
    )
    return cursor.fetchone() is not None
