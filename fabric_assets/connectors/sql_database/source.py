"""A `sql_database` source's config -> one group of batches per stream.

Tables and columns are looked up once for all streams, when the source is opened. A wrong name ends its own stream before a row is read, with a message that
names the nearest right one.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from fabric_assets.config.sources.models import SqlDatabaseSource, SqlStream
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.cursor import Cursor
from fabric_assets.connectors.cursor_proof import CursorProof
from fabric_assets.connectors.local_paths import LocalPaths
from fabric_assets.connectors.sql_database import bounds as sql_bounds
from fabric_assets.connectors.sql_database import columns as sql_columns
from fabric_assets.connectors.sql_database import order as sql_order
from fabric_assets.connectors.sql_database import readers as sql_readers
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.keys import count_rows, read_keys
from fabric_assets.connectors.sql_database.late_rows import LateRows
from fabric_assets.connectors.sql_database.moments import Moment, MomentGone, Moments
from fabric_assets.connectors.sql_database.query import Query
from fabric_assets.errors import ConfigurationError
from fabric_assets.rows.batches import Batch, KeysRead, ReadGroup, SourceKeys, SourceReader, StreamMemory, StreamPlan
from fabric_assets.rows.former_forms import find_declared_form
from fabric_assets.rows.value_forms import CURRENT, FIRST
from fabric_assets.suggestions import build_missing_error

# The last attempt reads the present.
_MOST_ATTEMPTS = 4


@dataclass(frozen=True)
class _Reading:
    """One stream of one load.

    Args:
        columns: of its table, with the types that the database declares; None if the table does not exist.
        moments: shared by the source's streams; None if it has none.
    """

    context: SourceContext[SqlDatabaseSource]
    name: str
    config: SqlStream
    database: Database
    columns: Mapping[str, Any] | None
    moments: Moments | None

    @property
    def label(self) -> str:
        return self.context.describe(self.name)

    @property
    def table(self) -> str:
        return self.config.table or self.name


def open_source(context: SourceContext[SqlDatabaseSource]) -> SourceReader:
    """Connect, and look up the tables of the context's streams.

    Raises:
        ConfigurationError, SourceError, SourceUnavailable: the url is not valid, or the connection fails.
    """
    config = context.config
    database = sql_readers.open_database(config, context.resolve(config.url), label=context.describe())
    _check_file(database, context)
    streams = {name: config.streams[name] for name in context.streams}
    tables = database.reflect({stream.table or name for name, stream in streams.items()})
    groups, moments = [], _open_moments(database, config, streams)
    for name, stream in streams.items():
        declared = tables.get(stream.table or name)
        unread = tuple(column for column in declared or () if stream.columns and column not in stream.columns)
        plan = replace(plan_stream(config, name), unread=unread)
        groups.append(ReadGroup((plan,), partial(_read, _Reading(context, name, stream, database, declared, moments))))

    def close() -> None:
        if moments is not None:
            moments.close()
        database.close()

    # If only one connection shows the moment, the streams are read one after the other.
    return SourceReader(tuple(groups), connections=1 if config.consistent and not (moments and moments.are_shared) else config.max_connections, close=close)


def plan_stream(config: SqlDatabaseSource, name: str) -> StreamPlan:
    """Plan how a stream's rows are written. Which columns it leaves out is known only with the database."""
    stream = config.streams[name]
    newest = stream.cursor.field if stream.cursor else None
    return StreamPlan.declared(name, stream, newest_by=newest, reads_all=stream.cursor is None, declares_columns=True)


def _open_moments(database: Database, config: SqlDatabaseSource, streams: Mapping[str, SqlStream]) -> Moments | None:
    """Prepare the moment that the streams share; None if the source has none.

    Raises:
        ConfigurationError: the source declares `consistent`, but its database does not support it.
    """
    if database.url.drivername == "postgresql+psycopg2":
        from fabric_assets.connectors.sql_database.postgres_moments import PostgresMoments  # its driver is loaded for Postgres alone

        asked = [database.quote_table(stream.table or name) for name, stream in streams.items() if stream.cursor and config.late_rows is not None]
        return PostgresMoments(database, streams=streams, tables=asked, hold_seconds=config.snapshot_hold.total_seconds())
    if not config.consistent:
        return None
    if not database.url.drivername.endswith("+pymysql"):
        raise ConfigurationError(
            f"{database.label}: consistent: true is for MySQL and MariaDB; a {database.dialect} database does not show all tables at one moment",
            remedy="leave consistent out",
        )
    from fabric_assets.connectors.sql_database.mysql_moments import MysqlMoments  # its driver is loaded for MySQL alone

    return MysqlMoments(database, streams=streams)


def _check_file(database: Database, context: SourceContext) -> None:
    """Check the file of a database in a file.

    Raises:
        ConfigurationError: this tenant must not read it.
    """
    if database.dialect not in {"sqlite", "duckdb"} or database.url.database in (None, "", ":memory:"):
        return
    files, paths = [*_list_files(database.url.database)], LocalPaths(context)
    # A URI is not a file's name, but if a file with this name exists, a driver may open it.
    for file in [file for file in files if os.path.lexists(file)] or files:
        paths.check(file.parent, "of its url", below=False)


def _list_files(written: str) -> Iterator[Path]:
    """Yield every file that a driver may open. Some read URIs, with a host and with escapes, even if the url does not declare one."""
    paths = [written]
    if uri := re.match("file:(?://[^/]*)?([^?#]*)", written):
        paths += [uri[1], unquote(uri[1])]
    for path in paths:
        # SQLite ends a name at an escaped NUL; two slashes in front have a meaning only in Python.
        yield Path(os.path.realpath(re.sub("^/+", "/", path.partition("\0")[0])))


def _read(reading: _Reading, memories: Mapping[str, StreamMemory]) -> Iterator[Batch | SourceKeys | KeysRead]:
    memory = memories[reading.name]
    query = _build_query(reading, memory)
    _note_older_forms(reading, memory)
    yield from _read_rows(reading, memory, query)
    if memory.needs_keys:
        yield from read_keys(reading.name, reading.database, query, key=reading.config.primary_key or (), memory=memory, label=reading.label)
    elif reading.name in reading.context.counted:
        memory.source_rows = count_rows(reading.database, query, label=reading.label)


def _read_rows(reading: _Reading, memory: StreamMemory, query: Query) -> Iterator[Batch]:
    database, label = reading.database, reading.label
    if reading.config.cursor is None:
        # The state of an earlier cursor would tell a replay that not all rows are read.
        memory.state.clear()
        for table in _read_at_one_moment(reading, memory, lambda moment: replace(query, moment=moment)):
            yield Batch(reading.name, table)
        return
    field = reading.config.cursor.field
    column = next(column for column in query.columns if column.name == field)
    proof = _build_proof(reading, column, memory)
    cursor = Cursor(
        reading.config.cursor,
        kind=sql_columns.get_kind(column),
        append=reading.config.disposition == "append",
        key=reading.config.primary_key or (),
        columns=query.names,
        memory=memory,
        where=label,
        proof=proof,
    )
    sql_order.check_order(database, query, column, label=label)
    late = LateRows(memory.state, table=query.table, every=_get_late_rows(reading))

    def build(moment: Moment | None) -> Query:
        bound, condition = sql_bounds.build_bound(column, cursor.start, database.dialect, any_width=proof is not None), late.begin(moment)
        cursor.reads_late = bound is not None and condition is not None
        return replace(query, moment=moment, bound=(f"{bound[0]} or {condition}", bound[1]) if bound and condition else bound)

    reads_all = cursor.start is None
    for table in _read_at_one_moment(reading, memory, build):
        yield Batch(reading.name, cursor.filter(table))
    if cursor.may_have_gone_back:
        highest = _find_highest(reading, replace(query, columns=(column,), bound=sql_bounds.build_not_null(column)), cursor)
        if cursor.begin_again(highest, context=reading.context):
            bound = sql_bounds.build_bound_again(column, cursor.start, database.dialect)
            for table in sql_readers.read(database, replace(query, bound=bound), label=label):
                yield Batch(reading.name, cursor.filter(table))
    cursor.commit(context=reading.context)
    late.commit(is_complete=reads_all or cursor.reads_late)
    if (
        reads_all
        and reading.config.cursor.lag is None
        and reading.moments is not None
        and reading.moments.are_shared
        and not late.is_possible
        and _get_late_rows(reading) is not None
    ):
        memory.warnings.append(
            f"rows that are committed late with an older {field} are missed. {reading.table} is a view or a foreign table, its rows do not name their "
            "transaction, or the server is a standby. Set cursor.lag to the longest time that a transaction takes"
        )


def _build_proof(reading: _Reading, column: sql_columns.SqlColumn, memory: StreamMemory) -> CursorProof | None:
    """Build the proof that the cursor grows with time; None where the YAML trusts it.

    Raises:
        DataError: the cursor's type has no order in time, and the stream is new.
    """
    assert reading.config.cursor is not None
    if reading.config.cursor.trust:
        return None
    proof = CursorProof(column.name, sql_columns.get_kind(column), is_new=not memory.has_loaded, where=reading.label, warnings=memory.warnings)
    if reading.columns is not None and sql_columns.is_category(reading.columns[column.name]):
        proof.refuse_declared(column.declared)
    return proof


def _get_late_rows(reading: _Reading) -> timedelta | None:
    """How often late rows are read; None if the stream cannot tell them from rows that it has."""
    return None if reading.config.disposition == "append" and not reading.config.primary_key else reading.context.config.late_rows


def _read_at_one_moment(reading: _Reading, memory: StreamMemory, build: Callable[[Moment | None], Query]) -> Iterator[pa.Table]:
    """Read the rows at the moment that the source's streams share, and warn if other streams have read an earlier one.

    Args:
        build: builds the query for a moment; called again if the moment is gone before anything is read.
    """
    moments, tables = reading.moments, iter(())
    moment, first = None, None
    for attempt in range(_MOST_ATTEMPTS):
        moment = moments.acquire() if moments and attempt < _MOST_ATTEMPTS - 1 else None
        tables = sql_readers.read(reading.database, build(moment), label=reading.label)
        try:
            first = next(tables)
            break
        except MomentGone:
            if moments and moment:
                moments.lose(moment)
    if moments and moments.impossible:
        reading.context.report(f"{reading.label}: not read at one moment with the other streams: {moments.impossible}")
    others = [*reading.context.loaded_before, *(moments.note_begun(reading.name, moment) if moments and moment else ())]
    if moments and others:
        memory.warnings.append(f"shows a later moment of the source than {', '.join(others)}: what belongs together may differ until the next load")
    if first is not None:
        yield first
    yield from tables


def _find_highest(reading: _Reading, query: Query, cursor: Cursor) -> Any:
    """Find the highest cursor value by reading the column: the database's own maximum of texts or dates may differ from an exact comparison."""
    return max(
        (value for table in sql_readers.read(reading.database, query, label=reading.label) if (value := cursor.find_highest(table)) is not None), default=None
    )


def _note_older_forms(reading: _Reading, memory: StreamMemory) -> None:
    if memory.value_forms < CURRENT:
        for former, present in zip(_plan_columns(reading, FIRST), _plan_columns(reading, CURRENT), strict=True):
            if former != present:
                declared = (reading.columns or {})[former.name]
                memory.note_older_form(former.name, find_declared_form(declared, reading.database.dialect, present.kind))


def _build_query(reading: _Reading, memory: StreamMemory) -> Query:
    query = Query(_plan_columns(reading, memory.value_forms), reading.database.quote_table(reading.table), reading.config.where)
    key, is_bounded = reading.config.primary_key or (), reading.config.cursor is not None
    return sql_readers.decide_types(reading.database, query, memory.get_type, key=key, is_bounded=is_bounded, label=reading.label)


def _plan_columns(reading: _Reading, value_forms: int) -> tuple[sql_columns.SqlColumn, ...]:
    config, database, declared = reading.config, reading.database, reading.columns
    if declared is None:
        raise database.build_missing_table_error(reading.table, label=reading.label)
    named = [("column", name) for name in config.columns or ()]
    named += [("cursor field", config.cursor.field)] if config.cursor else []
    named += [("primary_key column", name) for name in config.primary_key or ()]
    for kind, name in named:
        if name not in declared:
            raise build_missing_error(
                f"{reading.label}: table {reading.table}",
                kind=kind,
                name=name,
                known=declared,
                remedy=f"correct the stream's {kind.split()[0]}, in the source's own spelling",
            )
    return tuple(database.build_column(name, declared[name], label=reading.label, value_forms=value_forms) for name in config.columns or declared)
