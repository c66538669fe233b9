"""A query -> Arrow tables of bounded size, by the fastest exact method for each database.

Postgres: ADBC's binary COPY. SQLite: ADBC where every value fits its column. MySQL and MariaDB: the rows as they come over the
wire. DuckDB: its own Arrow. Any other: the driver's rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import pyarrow as pa

from fabric_assets.config.sources.models import SqlDatabaseSource
from fabric_assets.connectors.sql_database.condition import explain_refusal
from fabric_assets.connectors.sql_database.database import Database, parse_url
from fabric_assets.connectors.sql_database.query import Query
from fabric_assets.errors import SourceError

GetType = Callable[[str], pa.DataType | None]
Answer = TypeVar("Answer")

# Each imports its own drivers, so only the required one is imported.
_READERS: Mapping[str, str] = {
    "postgresql+psycopg2": "postgres_reader",
    "mysql+pymysql": "mysql_reader",
    "mariadb+pymysql": "mysql_reader",
    "sqlite": "sqlite_reader",
    "duckdb": "duckdb_reader",
}


def open_database(config: SqlDatabaseSource, url: str, *, label: str) -> Database:
    """Open the source's database, without connecting.

    Args:
        url: the resolved url.

    Raises:
        ConfigurationError, SourceError: the url is not valid, its driver is not installed, or its file does not exist.
    """
    parsed = parse_url(url, label=label, origin=config.url.describe())
    kind = _get_reader("duckdb").DuckDatabase if parsed.get_backend_name() == "duckdb" else Database
    return kind(parsed, config.schema_, label, config.timeout.total_seconds(), config.max_connections)


def read(database: Database, query: Query, *, label: str) -> Iterator[pa.Table]:
    """Read the rows: at least one table, which may be empty. The first one has the query's types.

    A later one has text in a column where a value does not fit the type.

    Raises:
        SourceError, SourceUnavailable: the database refuses, cannot be reached, or the load's time is up.
    """
    begun, schema = False, query.schema
    tables = _get_reader(database.url.drivername).read(database, query, label)
    while (table := _ask(lambda: next(tables, None), database, query, label)) is not None:
        if not begun and table.schema != schema:
            yield schema.empty_table()
        begun = True
        yield table
        database.check_time()
    if not begun:
        yield schema.empty_table()


def decide_types(database: Database, query: Query, kept: GetType, *, key: Sequence[str], is_bounded: bool, label: str) -> Query:
    """Decide the types of columns whose declaration is not binding: the warehouse's type if every value fits, else one that fits the values.

    Args:
        kept: a column's type in the warehouse.
        key: the names of the primary key's columns.
        is_bounded: only some rows will be read, so checking all of them is not worth the cost.
    """
    if database.dialect == "sqlite":
        decide = _get_reader("sqlite").decide_types
        decided = _ask(lambda: decide(database, query, kept, is_bounded=is_bounded, label=label), database, query, label)
        _get_reader("sqlite").refuse_alike_keys(database, decided, key, label=label)
        return decided
    if database.dialect == "postgresql" and any(column.kind is None for column in query.columns):
        decide = _get_reader("postgresql+psycopg2").decide_types
        return _ask(lambda: decide(database, query, kept, label=label), database, query, label)
    return query


def _ask(question: Callable[[], Answer], database: Database, query: Query, label: str) -> Answer:
    try:
        return question()
    except SourceError as error:
        refusal = explain_refusal(database, query, error, label=label)
    raise refusal


def _get_reader(drivername: str) -> Any:
    return import_module(f"fabric_assets.connectors.sql_database.{_READERS.get(drivername, 'row_reader')}")
