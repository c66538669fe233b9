"""A query -> Arrow tables, from the rows of SQLAlchemy's driver for the database."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sqla
from sqlalchemy.exc import SQLAlchemyError

from fabric_assets.connectors.sql_database.columns import SqlColumn, get_kind
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import BATCH_BYTES, Query
from fabric_assets.rows import arrow_types
from fabric_assets.rows.mixed_columns import build_column

# Few rows at first, because their width is not known.
_FIRST_ROWS, _MOST_ROWS = 8, 100_000


def read(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    size = _FIRST_ROWS
    try:
        with database.engine.connect().execution_options(stream_results=True) as connection:
            # SQLAlchemy reads `:word` as a parameter; all words but our own are plain SQL.
            statement = sqla.text(query.build_sql("\0").replace(":", "\\:").replace("\0", ":value"))
            try:
                result = connection.execute(statement, {"value": query.bound[1]} if query.bound else {})
                while rows := result.fetchmany(size):
                    table = build_table(rows, query)
                    size = max(1, min(_MOST_ROWS, size * 8, int(len(rows) * BATCH_BYTES / max(table.nbytes, 1))))
                    yield table
            except BaseException:
                # Drivers read a result to its end before they give a connection back.
                connection.invalidate()
                raise
    except SQLAlchemyError as error:
        raise database.explain(error, label=label) from None


def build_table(rows: Sequence[Any], query: Query) -> pa.Table:
    columns = zip(query.columns, zip(*rows, strict=True), strict=True)
    return pa.table([_build_array(values, column, get_kind(column)) for column, values in columns], names=query.names)


def _build_array(values: Sequence[Any], column: SqlColumn, kind: pa.DataType) -> pa.Array:
    def build(values: Sequence[Any]) -> pa.Array:
        if (convert := column.convert) is not None:
            return pa.array([None if value is None else convert(value) for value in values], type=kind)
        # Given the type, pyarrow silently turns 2.5 into 2; with an inferred type the cast fails.
        return pa.array(values).cast(kind) if kind == arrow_types.BIGINT else pa.array(values, type=kind)

    return build_column(values, kind, build, str)
