"""A tenant's `rejected_rows` -> the rows, in portions, because they may not fit in memory."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import Ask, has_column, has_table
from fabric_assets.drivers.destinations import open_ask
from fabric_assets.quoting import quote_text
from fabric_assets.rows.imported_file import FILE, UNMAPPED
from fabric_assets.settings import Settings
from fabric_assets.warehouse.platform_tables.ledger import select_failed_loads
from fabric_assets.warehouse.session import Table

PORTION = 1_000
# Reasons of rows that a connector could not read at all: their raw text is a line of a file, not a row.
UNREADABLE = frozenset({"ragged_row", "bad_csv", "bad_json", "bad_encoding", "bad_quotes", "nul_byte", "stray_line_end"})


@dataclass(frozen=True)
class RejectedRow:
    """One rejected row; see `batches.Reject`.

    Args:
        raw: cut if `raw_truncated`.
    """

    row_id: str
    source: str
    stream: str
    load_id: str
    run_id: str
    rejected_at: datetime
    origin: str
    row_number: int | None
    table_name: str | None
    column_name: str | None
    reason: str
    message: str
    raw: str
    raw_truncated: bool

    def parse(self) -> dict[str, Any] | None:
        """Parse the row's fields; None if it is only a piece of text."""
        if self.reason in UNREADABLE or self.raw_truncated:
            return None
        try:
            found = json.loads(self.raw)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    @property
    def is_shaped(self) -> bool:
        """Whether a dropped file's row passed the file's checks and failed later: its raw text has canonical columns and typed values."""
        return FILE in (self.parse() or {})

    def parse_dropped(self) -> dict[str, Any] | None:
        """Parse a dropped file's row by the columns of its header; None if only its text was kept."""
        found = self.parse()
        if found is None or FILE not in found:
            return found
        kept = json.loads(found.get(UNMAPPED) or "{}")
        return {name: value for name, value in found.items() if not name.startswith("_fabric_")} | kept


class RejectedRows:
    """The chosen rejected rows, in the order of load, file or page, and number.

    Args:
        ask: runs a query in the tenant's warehouse.
        columns: of the table: a table of an earlier release may lack some until the next load.
    """

    def __init__(self, ask: Ask, tenant: str, ids: Sequence[str], columns: str) -> None:
        self._ask, self._tenant, self._ids, self._columns = ask, tenant, ids, columns

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, limit: int | None = None) -> Iterator[list[RejectedRow]]:
        """Yield the rows in portions; only the first ones if there is a limit."""
        ids, table = self._ids[:limit], f'"{naming.platform_dataset(self._tenant)}".rejected_rows'
        for start in range(0, len(ids), PORTION):
            portion = ids[start : start + PORTION]
            rows = self._ask(f"select {self._columns} from {table} where row_id in ({', '.join(map(quote_text, portion))})")
            found = {row[0]: _build(row) for row in rows}
            yield [found[row_id] for row_id in portion if row_id in found]

    def choose(self, row_ids: Collection[str]) -> "RejectedRows":
        """Choose the rows that have these ids."""
        return RejectedRows(self._ask, self._tenant, [row_id for row_id in self._ids if row_id in row_ids], self._columns)

    def find_numbers(self, source: str, stream: str) -> frozenset[str]:
        """Find the columns of a stream's table that hold numbers, by their names in the warehouse."""
        where = f"table_schema = {quote_text(naming.raw_dataset(self._tenant, source))} and table_name = {quote_text(stream)}"
        found = self._ask(f"select column_name, data_type from information_schema.columns where {where}")
        return frozenset(name for name, kind in found if kind.lower().startswith(_NUMBERS))


def find_rejects(
    ask: Ask, tenant: str, *, source: str | None = None, stream: str | None = None, load_id: str | None = None, succeeded_only: bool = False
) -> RejectedRows:
    """Choose a tenant's rejected rows.

    Args:
        load_id: the last load that has rejected them.
        succeeded_only: leave out rows of failed loads, which the next load reads again.
    """
    dataset = naming.platform_dataset(tenant)
    wanted = [f"{column} = {quote_text(value)}" for column, value in (("source", source), ("stream", stream), ("load_id", load_id)) if value is not None]
    if succeeded_only:
        wanted.append(f"load_id not in ({select_failed_loads(dataset)})")
    where = f" where {' and '.join(wanted)}" if wanted else ""
    order = "source, stream, rejected_at, origin, row_number, row_id"
    ids = ask(f"select row_id from {Table(dataset, 'rejected_rows')}{where} order by {order}") if has_table(ask, dataset, "rejected_rows") else []
    has_table_name = not ids or has_column(ask, dataset, "rejected_rows", "table_name")
    columns = (field.name if field.name != "table_name" or has_table_name else "null as table_name" for field in fields(RejectedRow))
    return RejectedRows(ask, tenant, [row_id for (row_id,) in ids], ", ".join(columns))


@contextmanager
def open_rejects(
    tenant: TenantConfig, settings: Settings, *, source: str | None = None, stream: str | None = None, succeeded_only: bool = False
) -> Iterator[RejectedRows]:
    """Connect and choose a tenant's rejected rows; there are none before the first load.

    Raises:
        DestinationError, DestinationUnavailable: the connection.
    """
    with open_ask(tenant, settings) as ask:
        yield find_rejects(ask, tenant.tenant, source=source, stream=stream, succeeded_only=succeeded_only)


_NUMBERS = ("bigint", "double", "decimal", "numeric")


def _build(row: tuple[Any, ...]) -> RejectedRow:
    found = RejectedRow(*row)
    return replace(found, rejected_at=found.rejected_at.astimezone(UTC))
