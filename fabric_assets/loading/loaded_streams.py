"""A connection -> what the platform's tables record of one loaded stream; for checks, which run beside loads.

A table of an earlier release may lack a column until the next load of the tenant.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fabric_assets import naming
from fabric_assets.drivers.asking import Ask, Rows, has_column
from fabric_assets.quoting import quote, quote_all, quote_text
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import FIRST
from fabric_assets.warehouse.session import Table


def get_last_load(ask: Ask, *, tenant: str, source: str, stream: str) -> datetime | None:
    """Return when the stream was last loaded; None if never."""
    if not has_column(ask, naming.platform_dataset(tenant), "loads", "status"):
        return None
    loads, where = Table(naming.platform_dataset(tenant), "loads"), f"source = {quote_text(source)} and stream = {quote_text(stream)}"
    ((found,),) = ask(f"select max(loaded_at) from {loads} where {where} and status = 'success'")
    return None if found is None else found.astimezone(UTC)


def find_column(ask: Ask, field: str, *, tenant: str, source: str, stream: str, columns: Sequence[str]) -> str:
    """Find the column of a stream's table for a field of its source.

    Args:
        columns: of the table.
    """
    found: Rows = []
    if has_column(ask, naming.platform_dataset(tenant), "stream_state", "column_names"):
        states = Table(naming.platform_dataset(tenant), "stream_state")
        found = ask(f"select value_forms, column_names from {states} where source = {quote_text(source)} and stream = {quote_text(stream)}")
    value_forms, kept = found[0] if found else (None, None)
    return StreamNames(stream, layout={stream: dict.fromkeys(columns)}, kept=kept, value_forms=value_forms or FIRST).find_column(field)


def read_last(ask: Ask, columns: Sequence[str], *, tenant: str, source: str, stream: str) -> tuple[Any, ...] | None:
    """Read columns of the stream's last successful load that has a value in the first of them; None if there is none.

    A ledger of an earlier release lacks the column until the next load of the tenant.
    """
    platform = naming.platform_dataset(tenant)
    if not all(has_column(ask, platform, "loads", column) for column in columns):
        return None
    rows = ask(
        f"select {quote_all(columns)} from {Table(platform, 'loads')} where source = {quote_text(source)} and stream = {quote_text(stream)}"
        f" and status = 'success' and {quote(columns[0])} is not null order by loaded_at desc limit 1"
    )
    return rows[0] if rows else None
