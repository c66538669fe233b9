"""A `sql_database` source's config -> one group of batches per stream.

Tables and columns are looked up once for all streams, when the source is opened; a wrong name ends its own stream before a row
is read, in words that name the nearest right one.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fabric_assets.config.sources import SqlDatabaseSource, SqlStream
from fabric_assets.connectors import sql_bounds, sql_columns, sql_order, sql_readers
from fabric_assets.connectors.batches import Batch, ReadGroup, SourceReader, StreamMemory, StreamPlan
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.cursor import Cursor
from fabric_assets.connectors.local_paths import LocalPaths
from fabric_assets.connectors.sql_databases import Database
from fabric_assets.connectors.sql_query import Query
from fabric_assets.connectors.suggestions import build_missing_error


@dataclass(frozen=True)
class _Reading:
    """One stream of one load.

    Args:
        columns: of its table, with the types that the database declares; None where there is no such table.
    """

    context: SourceContext
    name: str
    config: SqlStream
    database: Database
    columns: Mapping[str, Any] | None

    @property
    def place(self) -> str:
        return self.context.describe(self.name)

    @property
    def table(self) -> str:
        return self.config.table or self.name


def open_source(context: SourceContext) -> SourceReader:
    """Connect, and look up the tables of the context's streams.

    Raises:
        ConfigurationError, SourceError, SourceUnavailable: the url or the connection.
    """
    config = context.config
    assert isinstance(config, SqlDatabaseSource)
    database = sql_readers.open_database(config, context.resolve(config.url), place=context.describe())
    _check_file(database, context)
    streams = {name: config.streams[name] for name in context.streams}
    tables = database.reflect({stream.table or name for name, stream in streams.items()})
    groups = []
    for name, stream in streams.items():
        newest = stream.cursor.field if stream.cursor else None
        declared = tables.get(stream.table or name)
        plan = StreamPlan(
            name,
            stream.disposition,
            key=stream.primary_key or (),
            newest_by=newest,
            reads_all=stream.cursor is None,
            declares_columns=True,
            unread=tuple(column for column in declared or () if stream.columns and column not in stream.columns),
        )
        groups.append(ReadGroup((plan,), partial(_read, _Reading(context, name, stream, database, declared))))
    return SourceReader(tuple(groups), connections=config.max_connections, close=database.close)


def _check_file(database: Database, context: SourceContext) -> None:
    """Raises:
    ConfigurationError: the url is of a file that no load of this tenant may read.
    """
    if database.dialect not in {"sqlite", "duckdb"} or database.url.database in (None, "", ":memory:"):
        return
    files, paths = [*_list_files(database.url.database)], LocalPaths(context)
    # A URI is no file's name, but where there is a file of this name, a driver may open that.
    for file in [file for file in files if os.path.lexists(file)] or files:
        paths.check(file.parent, "of its url")


def _list_files(written: str) -> Iterator[Path]:
    """Every file that a driver may take this for: some read URIs, with a host and with escapes, even where the url does not say that it is one."""
    paths = [written]
    if uri := re.match("file:(?://[^/]*)?([^?#]*)", written):
        paths += [uri[1], unquote(uri[1])]
    for path in paths:
        # SQLite ends a name at an escaped NUL; two slashes in front mean something to Python alone.
        yield Path(os.path.realpath(re.sub("^/+", "/", path.partition("\0")[0])))


def _read(reading: _Reading, memories: Mapping[str, StreamMemory]) -> Iterator[Batch]:
    memory, database, place = memories[reading.name], reading.database, reading.place
    query = _build_query(reading, memory)
    if reading.config.cursor is None:
        # What an earlier cursor has left would tell a replay that not all is read.
        memory.state.clear()
        for table in sql_readers.read(database, query, place=place):
            yield Batch(reading.name, table)
        return
    field = reading.config.cursor.field
    column = next(column for column in query.columns if column.name == field)
    cursor = Cursor(
        reading.config.cursor,
        kind=sql_columns.get_kind(column),
        append=reading.config.disposition == "append",
        key=reading.config.primary_key or (),
        columns=query.names,
        memory=memory,
        place=place,
    )
    sql_order.check_order(database, query, column, place=place)
    bound = sql_bounds.build_bound(column, cursor.start, database.dialect)
    for table in sql_readers.read(database, replace(query, bound=bound), place=place):
        yield Batch(reading.name, cursor.filter(table))
    if cursor.may_have_gone_back:
        highest = _find_highest(reading, replace(query, columns=(column,), bound=sql_bounds.build_not_null(column)), cursor)
        if cursor.begin_again(highest, context=reading.context):
            bound = sql_bounds.build_bound_again(column, cursor.start, database.dialect)
            for table in sql_readers.read(database, replace(query, bound=bound), place=place):
                yield Batch(reading.name, cursor.filter(table))
    cursor.commit(context=reading.context)


def _find_highest(reading: _Reading, query: Query, cursor: Cursor) -> Any:
    """By reading the one column: what the database calls the highest text or date need not be what an exact comparison does."""
    return max(
        (value for table in sql_readers.read(reading.database, query, place=reading.place) if (value := cursor.find_highest(table)) is not None), default=None
    )


def _build_query(reading: _Reading, memory: StreamMemory) -> Query:
    query = Query(_plan_columns(reading), reading.database.quote_table(reading.table), reading.config.where)
    return sql_readers.decide_types(reading.database, query, memory.get_type, is_bounded=reading.config.cursor is not None, place=reading.place)


def _plan_columns(reading: _Reading) -> tuple[sql_columns.SqlColumn, ...]:
    config, database, declared = reading.config, reading.database, reading.columns
    if declared is None:
        raise database.build_missing_table_error(reading.table, place=reading.place)
    named = [("column", name) for name in config.columns or ()]
    named += [("cursor field", config.cursor.field)] if config.cursor else []
    named += [("primary_key column", name) for name in config.primary_key or ()]
    for kind, name in named:
        if name not in declared:
            raise build_missing_error(
                f"{reading.place}: table {reading.table}",
                kind=kind,
                name=name,
                known=declared,
                remedy=f"correct the stream's {kind.split()[0]}, in the source's own spelling",
            )
    return tuple(database.build_column(name, declared[name], place=reading.place) for name in config.columns or declared)
