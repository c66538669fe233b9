"""A declared check and a stream's table -> passed or failed, with the figures that explain it.

Each check is one SQL text for DuckDB and Postgres alike, over a read-only connection: a check can change nothing. A check that cannot
run (no table yet, no such column) fails with a message, and the checks after it still run.

Values that a check found are part of its `message`, which is metadata of the check. Logs, errors and alerts show `log_message`, which has
only counts.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from fabric_assets import naming
from fabric_assets.config.checks import (
    AcceptedValuesCheck,
    AnyCheck,
    FreshnessCheck,
    NotNullCheck,
    RowCountCheck,
    SchemaChangeCheck,
    SourceRowCountCheck,
    UniqueCheck,
)
from fabric_assets.config.sources.deletes import DeletesCheck
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import Ask, build_ask
from fabric_assets.drivers.destinations import connect
from fabric_assets.errors import DestinationError
from fabric_assets.findings import MOST_VALUES, count, describe_duplicates, describe_duration, describe_unexpected
from fabric_assets.loading import loaded_streams
from fabric_assets.loading.drift import describe_change
from fabric_assets.quoting import quote, quote_table, quote_text
from fabric_assets.rows.reports import read_table
from fabric_assets.settings import Settings
from fabric_assets.suggestions import suggest
from fabric_assets.warehouse.lease import LEASE_SECONDS, warehouse_lease
from fabric_assets.warehouse.platform_tables import ledger
from fabric_assets.warehouse.source_keys import MARK

_SHOWN = 5

Metadata = dict[str, str | int | float | None]


@dataclass(frozen=True)
class CheckOutcome:
    """The result of a check.

    Args:
        metadata: figures of the check. `message` says what failed, with values; `log_message` says the same without values.
    """

    passed: bool
    metadata: Metadata


class _Unanswerable(Exception):
    """Raised when the table lacks what a check needs."""


@dataclass(frozen=True)
class _Table:
    ask: Ask
    name: str
    columns: tuple[str, ...]
    rows: int
    find_column: Callable[[str], str]
    sensitive: frozenset[str] = frozenset()

    def hides(self, columns: Iterable[str]) -> bool:
        """Whether no message may show values of these columns, because the dbt project tags one of them `sensitive`."""
        return any(name in self.sensitive for column in columns for name in (column.lower(), self.find(column).lower()))

    def quote(self, column: str) -> str:
        return quote(self.find(column))

    def find(self, column: str) -> str:
        """Find the column in the warehouse for a name of the YAML."""
        found = column if column in self.columns else self.find_column(column)
        if found in self.columns:
            return found
        raise _Unanswerable(f"the table has no column {column!r}{suggest(column, self.columns)}")


def run_check(check: AnyCheck | DeletesCheck, *, tenant: TenantConfig, source: str, stream: str, settings: Settings) -> CheckOutcome:
    """Run one check on the loaded table.

    Raises:
        DestinationUnavailable, LeaseHeld: the check could not run; another try may succeed.
    """
    return run_checks((check,), tenant=tenant, source=source, stream=stream, settings=settings)[0]


def run_checks(
    checks: tuple[AnyCheck | DeletesCheck, ...], *, tenant: TenantConfig, source: str, stream: str, settings: Settings, sensitive: frozenset[str] = frozenset()
) -> tuple[CheckOutcome, ...]:
    """Run a stream's checks over one connection; the outcomes in the checks' order.

    Args:
        sensitive: columns, in lower case, whose values no message shows.
    """
    with warehouse_lease(tenant.tenant, settings, timeout_seconds=LEASE_SECONDS):
        try:
            connection = connect(tenant, settings, read_only=True)
        except DestinationError as error:
            return tuple(CheckOutcome(False, {"message": str(error)}) for _ in checks)
        try:
            dataset = naming.raw_dataset(tenant.tenant, source)
            ask = build_ask(connection)
            rows, columns = read_table(ask, dataset, stream)
            names = tuple(column.name for column in columns)
            find_column = partial(loaded_streams.find_column, ask, tenant=tenant.tenant, source=source, stream=stream, columns=names)
            table = _Table(ask, quote_table(dataset, stream), names, rows, find_column, sensitive)
            return tuple(_run(check, table, tenant=tenant, source=source, stream=stream) for check in checks)
        finally:
            connection.close()


def _run(check: AnyCheck | DeletesCheck, table: _Table, *, tenant: TenantConfig, source: str, stream: str) -> CheckOutcome:
    started = time.monotonic()
    try:
        if not table.columns:
            raise _Unanswerable(f"the table {table.name} does not exist yet: load raw/{source}/{stream} first")
        match check:
            case RowCountCheck():
                outcome = _check_row_count(check, table)
            case NotNullCheck():
                outcome = _check_not_null(check, table)
            case UniqueCheck():
                outcome = _check_unique(check, table)
            case AcceptedValuesCheck():
                outcome = _check_accepted_values(check, table)
            case FreshnessCheck():
                outcome = _check_freshness(check, table, tenant=tenant, source=source, stream=stream)
            case SchemaChangeCheck():
                outcome = _check_schema_change(check, table, tenant=tenant, source=source, stream=stream)
            case SourceRowCountCheck():
                outcome = _check_source_row_count(check, table, tenant=tenant, source=source, stream=stream)
            case DeletesCheck():
                outcome = _check_deletes(table, tenant=tenant, source=source, stream=stream)
    except _Unanswerable as error:
        outcome = CheckOutcome(False, {"message": str(error)})
    return CheckOutcome(outcome.passed, {**outcome.metadata, "rows": table.rows, "seconds": round(time.monotonic() - started, 3)})


def _check_row_count(check: RowCountCheck, table: _Table) -> CheckOutcome:
    low, high = check.min is not None and table.rows < check.min, check.max is not None and table.rows > check.max
    metadata: Metadata = {"min": check.min, "max": check.max}
    if low or high:
        metadata["message"] = f"{count(table.rows, 'row')}, {f'fewer than {check.min}' if low else f'more than {check.max}'}"
    return CheckOutcome(not (low or high), metadata)


def _check_source_row_count(check: SourceRowCountCheck, table: _Table, *, tenant: TenantConfig, source: str, stream: str) -> CheckOutcome:
    counted = loaded_streams.read_last(table.ask, ("source_rows",), tenant=tenant.tenant, source=source, stream=stream)
    if counted is None:
        raise _Unanswerable(f"no load has counted the source's rows yet: load raw/{source}/{stream}")
    ((rows,),) = table.ask(f"select count(*) from {table.name} where {quote(MARK)} is null") if MARK in table.columns else [(table.rows,)]
    metadata: Metadata = {"source_rows": counted[0], "rows_there": rows, "max_difference": check.max_difference}
    exceeded = check.is_exceeded(counted[0], rows)
    if exceeded:
        metadata["message"] = f"the source held {count(counted[0], 'row')}, and the table holds {rows:,}; allowed is a difference of {check.max_difference}"
    return CheckOutcome(not exceeded, metadata)


def _check_deletes(table: _Table, *, tenant: TenantConfig, source: str, stream: str) -> CheckOutcome:
    found = loaded_streams.read_last(table.ask, ("rows_deleted", "deletes_kept"), tenant=tenant.tenant, source=source, stream=stream)
    if found is None:
        return CheckOutcome(True, {"rows_deleted": 0})
    rows, problem = found
    return CheckOutcome(not problem, {"rows_deleted": rows, **({"message": problem} if problem else {})})


def _check_not_null(check: NotNullCheck, table: _Table) -> CheckOutcome:
    quoted = [table.quote(column) for column in check.columns]
    (counts,) = table.ask(f"select {', '.join(f'count(*) - count({column})' for column in quoted)} from {table.name}")
    missing = {column: missed for column, missed in zip(check.columns, counts, strict=True) if missed}
    ((failures,),) = table.ask(f"select count(*) from {table.name} where {' or '.join(f'{column} is null' for column in quoted)}")
    metadata: Metadata = {"failures": failures}
    if missing:
        metadata["message"] = ", ".join(f"{column} is NULL in {count(rows, 'row')}" for column, rows in missing.items())
    return CheckOutcome(not failures, metadata)


def _check_unique(check: UniqueCheck, table: _Table) -> CheckOutcome:
    quoted = [table.quote(column) for column in check.columns]
    # As in SQL and dbt, NULL equals nothing: a row with a NULL among the columns is no duplicate.
    known = " and ".join(f"{column} is not null" for column in quoted)
    repeated = f"select {', '.join(quoted)}, count(*) as n from {table.name} where {known} group by {', '.join(quoted)} having count(*) > 1"
    ((groups, surplus),) = table.ask(f"select count(*), coalesce(sum(n - 1), 0) from ({repeated}) as repeated")
    metadata: Metadata = {"failures": int(surplus)}
    if groups:
        texts = ", ".join(f"cast({column} as text)" for column in quoted)
        wanted = f"select {texts}, n from ({repeated}) as repeated order by n desc, {texts} limit {MOST_VALUES}"
        shown = [] if table.hides(check.columns) else table.ask(wanted)
        metadata |= describe_duplicates(check.columns, groups, [(row[:-1], row[-1]) for row in shown])
    return CheckOutcome(not groups, metadata)


def _check_accepted_values(check: AcceptedValuesCheck, table: _Table) -> CheckOutcome:
    # Compared as text: one list may name 1 and 'a', which have no common type. Both databases write a flag as true.
    subject = f"cast({table.quote(check.column)} as text)"
    values = [str(value).lower() if isinstance(value, bool) else str(value) for value in check.values]
    condition = f"{subject} not in ({', '.join(map(quote_text, values))})"
    ((failures, distinct),) = table.ask(f"select count(*), count(distinct {subject}) from {table.name} where {condition}")
    metadata: Metadata = {"failures": failures}
    if failures:
        found = f"select {subject}, count(*) from {table.name} where {condition} group by 1 order by 2 desc, 1 limit {MOST_VALUES}"
        shown = [] if table.hides((check.column,)) else table.ask(found)
        metadata |= describe_unexpected(check.column, distinct, failures, shown)
    return CheckOutcome(not failures, metadata)


def _check_freshness(check: FreshnessCheck, table: _Table, *, tenant: TenantConfig, source: str, stream: str) -> CheckOutcome:
    column = check.column or _get_cursor_column(tenant, source, stream, table)
    if column is None:
        newest, subject = loaded_streams.get_last_load(table.ask, tenant=tenant.tenant, source=source, stream=stream), "the last load"
    else:
        newest, subject = _as_moment(table.ask(f"select max({table.quote(column)}) from {table.name}")[0][0], column), f"the newest {column}"
    if newest is None:
        return CheckOutcome(False, {"message": f"{subject} is unknown: the table has no row with a value" if column else "the stream has not been loaded yet"})
    age = (datetime.now(UTC) - newest).total_seconds()
    limit = check.max_age.total_seconds()
    metadata: Metadata = {"newest": newest.isoformat(), "age_seconds": round(age), "max_age_seconds": round(limit)}
    if age > limit:
        metadata["message"] = f"{subject} is {describe_duration(age)} old, limit {describe_duration(limit)}"
    return CheckOutcome(age <= limit, metadata)


def _check_schema_change(check: SchemaChangeCheck, table: _Table, *, tenant: TenantConfig, source: str, stream: str) -> CheckOutcome:
    changes = ledger.get_last_changes(table.ask, tenant=tenant.tenant, source=source, stream=stream)
    found = [change for change in changes if change.change in check.changes and (change.change != "column_missing" or change.declared)]
    metadata: Metadata = {"changes": len(found)}
    if found:
        metadata["message"] = "the last load found: " + ", ".join(describe_change(change) for change in found[:_SHOWN])
        if len(found) > _SHOWN:
            metadata["message"] += f" and {len(found) - _SHOWN} more"
    return CheckOutcome(not found, metadata)


def _get_cursor_column(tenant: TenantConfig, source: str, stream: str, table: _Table) -> str | None:
    """Return the stream's cursor if it holds times; a number says nothing about age."""
    cursor = getattr(tenant.sources[source].streams[stream], "cursor", None)
    if cursor is None:
        return None
    try:
        ((value,),) = table.ask(f"select max({table.quote(cursor.field)}) from {table.name}")
        _as_moment(value, cursor.field)
    except _Unanswerable:
        return None
    return cursor.field


def _as_moment(value: Any, column: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _Unanswerable(f"the column {column!r} holds texts that are not timestamps, so it has no age") from None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise _Unanswerable(f"the column {column!r} is not a timestamp, so it has no age")
