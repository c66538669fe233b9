"""A query -> Arrow tables, from SQLite: through ADBC if every value is known to fit its column's type, else from the driver's rows.

ADBC is three times faster. But it derives a column's type from the first rows, and refuses or changes a later value of another type.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import adbc_driver_manager
import adbc_driver_sqlite.dbapi as adbc
import pyarrow as pa
from sqlalchemy.exc import SQLAlchemyError

from fabric_assets.connectors.sql_database import sqlite_columns
from fabric_assets.connectors.sql_database.columns import get_kind
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import BATCH_BYTES, Query
from fabric_assets.errors import SourceError
from fabric_assets.rows import arrow_types

_MOST_ROWS = 100_000
# The bytes of a row besides its texts.
_ROW_BYTES = 100
# ADBC has its own SQLite, in which a view's computed numbers may have other last digits. So each load reads a view with Python's SQLite.
_IS_VIEW = """select exists (select 1 from sqlite_master where type = 'view'
    and substr(lower(?1), -length(name) - 2) = lower('"' || name || '"'))"""
_SAMPLES = {arrow_types.BOOL: "0", arrow_types.BIGINT: "0", arrow_types.DOUBLE: "0.5", arrow_types.BINARY: "x''"}


def read(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    # Options of the url are the driver's own; ADBC would not know them.
    if query.row_bytes is not None and database.url.database and not database.url.query:
        return _read_arrow(database, query, label)
    return _read_rows(database, query, label)


def decide_types(database: Database, query: Query, kept: Callable[[str], pa.DataType | None], *, is_bounded: bool, label: str) -> Query:
    """Use the warehouse's types or the declared ones if every value fits, else types that fit the values."""
    known = {column.name: kind for column in query.columns if (kind := kept(column.name)) is not None}
    wanted = tuple(replace(column, kind=known.get(column.name) or sqlite_columns.get_declared_type(column.declared)) for column in query.columns)
    if is_bounded and len(known) == len(wanted):
        return replace(query, columns=wanted)
    try:
        with database.engine.connect() as connection:
            scan = sqlite_columns.build_scan_sql([(column.sql, get_kind(column)) for column in wanted])
            misfits, row_bytes = connection.exec_driver_sql(query.build_sql(select=scan)).one()
            if not misfits:
                is_view = connection.exec_driver_sql(_IS_VIEW, (query.table,)).scalar_one()
                return replace(query, columns=wanted, row_bytes=None if is_view else row_bytes or 0)
            asked = [column for column in query.columns if column.name not in known]
            if asked:
                facts = sqlite_columns.build_facts_sql([(column.sql, column.declared) for column in asked])
                answer = connection.exec_driver_sql(query.build_sql(select=facts)).one()
                known |= sqlite_columns.read_types(answer, [(column.name, column.declared) for column in asked])
    except SQLAlchemyError as error:
        raise database.explain(error, label=label) from None
    return replace(query, columns=tuple(replace(column, kind=known[column.name]) for column in query.columns))


def refuse_alike_keys(database: Database, query: Query, key: Sequence[str], *, label: str) -> None:
    """Refuse keys that are different values in SQLite, but the same text in a warehouse.

    Raises:
        SourceError: two rows have such keys.
    """
    columns = [column for column in query.columns if column.name in key]
    if not any(sqlite_columns.may_hold_alike(column.declared, get_kind(column)) for column in columns):
        return
    select, groups = sqlite_columns.build_alike_sql([column.sql for column in columns])
    try:
        with database.engine.connect() as connection:
            found = connection.exec_driver_sql(replace(query, bound=None).build_sql(select=select) + groups).first()
    except SQLAlchemyError as error:
        raise database.explain(error, label=label) from None
    if found:
        different = [(column.name, *found[2 * index : 2 * index + 2]) for index, column in enumerate(columns)]
        name, one, other = next(each for each in different if each[1] != each[2])
        raise SourceError(
            f"{label}: the primary_key {name} holds {one} and {other}, which are two keys in SQLite and one text in a warehouse",
            remedy=f"correct the values, or read a view that has typeof({name}) as well, and name both in primary_key",
        )


def _read_arrow(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    """Read through ADBC, with a first row that shows it each column's type and that is then dropped."""
    samples = ", ".join(_SAMPLES.get(kind, "0.5" if pa.types.is_decimal(kind) else "''") for kind in query.schema.types)
    rows = max(1, min(_MOST_ROWS, BATCH_BYTES // ((query.row_bytes or 0) + _ROW_BYTES)))
    try:
        with adbc.connect(database.url.database) as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(rows)})
            cursor.execute(f"select {samples} union all {query.build_sql('?')}", (query.bound[1],) if query.bound and query.bound[1] is not None else None)
            first = 1
            for batch in cursor.fetch_record_batch():
                arrays = [sqlite_columns.carry(values[first:], kind) for values, kind in zip(batch.columns, query.schema.types, strict=True)]
                yield pa.table(arrays, names=query.names)
                first = 0
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        raise database.explain(error, label=label) from None


def _read_rows(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    sizes = sqlite_columns.build_length_sql([column.sql for column in query.columns])
    select = ", ".join([column.sql for column in query.columns] + [sizes])
    try:
        with closing(database.engine.raw_connection()) as pooled:
            connection: Any = pooled.driver_connection
            # A text that is not valid UTF-8 would end the load. So it comes as far as the engine, which rejects its row.
            connection.text_factory = _decode
            cursor = connection.cursor()
            cursor.execute(query.build_sql("?", select=select), (query.bound[1],) if query.bound and query.bound[1] is not None else ())
            rows, size = [], 0
            for row in cursor:
                rows.append(row)
                size += row[-1] + _ROW_BYTES
                if size >= BATCH_BYTES or len(rows) == _MOST_ROWS:
                    yield _build_table(rows, query)
                    rows, size = [], 0
            if rows:
                yield _build_table(rows, query)
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise database.explain(error, label=label) from None


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _build_table(rows: list[Any], query: Query) -> pa.Table:
    *columns, _ = zip(*rows, strict=True)
    return pa.table([sqlite_columns.build_array(values, kind) for values, kind in zip(columns, query.schema.types, strict=True)], names=query.names)
