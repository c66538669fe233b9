"""A query -> Arrow tables of bounded size: Postgres through ADBC's binary COPY, everything else from the driver's rows.

ADBC has no driver for MySQL, and its SQLite driver takes a column's type from the first rows, which loses the later ones of
another type. Building columns from the driver's tuples is exact, and no slower than what the load costs afterwards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import sqlalchemy as sqla
from sqlalchemy.exc import SQLAlchemyError

from fabric_assets.connectors import arrow_types, sqlite_columns
from fabric_assets.connectors.sql_columns import SqlColumn
from fabric_assets.connectors.sql_databases import CONNECT_TIMEOUT_SECONDS, Database

_TARGET_BYTES = 16 * 1024 * 1024
_FIRST_ROWS, _MOST_ROWS = 2_000, 200_000

# A Postgres numeric without declared precision: a number where all values fit this one, else text, which holds NaN as well.
UNDECLARED_DECIMAL = pa.decimal128(38, 18)
_UNDECLARED_FITS = "coalesce(bool_and({c} <> 'NaN' and abs({c}) < 1e20 and scale({c}) <= 18), true)"


@dataclass(frozen=True)
class Query:
    """What to read.

    Args:
        columns: with their types decided.
        table: quoted.
        where: the YAML's own condition, in the source's dialect.
        bound: an expression with `{value}` in it and the value that it is compared with; None reads from the beginning.
    """

    columns: tuple[SqlColumn, ...]
    table: str
    where: str | None = None
    bound: tuple[str, Any] | None = None

    def build_sql(self, value: str) -> str:
        """Args:
        value: what stands for the bound value: a placeholder, never the value itself.
        """
        conditions = []
        if self.where:
            # The line break keeps a trailing comment from swallowing the bracket.
            conditions.append(f"({self.where}\n)")
        if self.bound:
            conditions.append(f"({self.bound[0].replace('{value}', value)})")
        selected = ", ".join(column.sql for column in self.columns)
        return f"select {selected} from {self.table}" + (f" where {' and '.join(conditions)}" if conditions else "")


def read(database: Database, query: Query, *, place: str) -> Iterator[pa.Table]:
    """Read the rows, at least one (maybe empty) table of them.

    Raises:
        SourceUnavailable: the load's time is up.
    """
    reader = _read_postgres if database.url.drivername == "postgresql+psycopg2" else _read_rows
    for table in reader(database, query, place):
        yield table
        database.check_time()


def _read_postgres(database: Database, query: Query, place: str) -> Iterator[pa.Table]:
    import adbc_driver_manager
    import adbc_driver_postgresql.dbapi as adbc

    url = database.url.set(drivername="postgresql").update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_SECONDS)})
    names, types = _get_names(query), _get_types(query)
    try:
        with adbc.connect(url.render_as_string(hide_password=False)) as connection, connection.cursor() as cursor:
            cursor.execute("set timezone = 'UTC'")
            cursor.execute(f"set statement_timeout = {int(database.timeout_seconds * 1000)}")
            if query.bound:
                # COPY takes no parameters: a session setting carries the value, bound, and the statement stays text.
                cursor.execute("select set_config('fabric.cursor', $1, false)", (query.bound[1],))
                cursor.fetchall()
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_TARGET_BYTES)})
            cursor.execute(query.build_sql("current_setting('fabric.cursor')"))
            reader = cursor.fetch_record_batch()
            empty = True
            for batch in reader:
                empty = False
                yield arrow_types.conform(pa.table(batch.columns, names=names), types, place=place)
            if empty:
                yield _build_empty(query)
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        raise database.explain(error, place=place) from None


def _read_rows(database: Database, query: Query, place: str) -> Iterator[pa.Table]:
    size, empty = _FIRST_ROWS, True
    try:
        with database.engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(_build_text(query), {"value": query.bound[1]} if query.bound else {})
            while rows := result.fetchmany(size):
                empty = False
                table = _build_table(rows, query, place, sqlite=database.dialect == "sqlite")
                size = max(100, min(_MOST_ROWS, int(len(rows) * _TARGET_BYTES / max(table.nbytes, 1))))
                yield table
            if empty:
                yield _build_empty(query)
    except SQLAlchemyError as error:
        raise database.explain(error, place=place) from None


def find_types(database: Database, query: Query, *, place: str) -> dict[str, pa.DataType]:
    """Ask the table what its columns hold: the types of those whose declaration does not bind.

    Args:
        query: the columns in question, over the rows in question.
    """
    if not query.columns:
        return {}
    try:
        with database.engine.connect() as connection:
            return (_find_sqlite_types if database.dialect == "sqlite" else _find_numeric_types)(connection, query)
    except SQLAlchemyError as error:
        raise database.explain(error, place=place) from None


def _find_sqlite_types(connection: sqla.Connection, query: Query) -> dict[str, pa.DataType]:
    columns = [(column.sql, column.declared) for column in query.columns]
    misfits = replace(query, columns=(SqlColumn("", "1", "", None),), bound=(sqlite_columns.build_misfit_sql(columns), None))
    if connection.exec_driver_sql(f"{misfits.build_sql('')} limit 1").first() is None:
        return {column.name: sqlite_columns.get_declared_type(column.declared) for column in query.columns}
    facts = replace(query, columns=(SqlColumn("", sqlite_columns.build_facts_sql(columns), "", None),))
    return sqlite_columns.read_types(connection.exec_driver_sql(facts.build_sql("")).one(), [(column.name, column.declared) for column in query.columns])


def _find_numeric_types(connection: sqla.Connection, query: Query) -> dict[str, pa.DataType]:
    select = ", ".join(_UNDECLARED_FITS.replace("{c}", column.sql.removesuffix("::text")) for column in query.columns)
    row = connection.execute(_build_text(replace(query, columns=(SqlColumn("", select, "", None),)))).one()
    return {column.name: UNDECLARED_DECIMAL if fits else arrow_types.TEXT for column, fits in zip(query.columns, row, strict=True)}


def _build_text(query: Query) -> sqla.TextClause:
    """SQLAlchemy reads `:word` as a parameter; everything but our own is plain SQL."""
    return sqla.text(query.build_sql("\0").replace(":", "\\:").replace("\0", ":value"))


def _build_table(rows: Sequence[Any], query: Query, place: str, *, sqlite: bool) -> pa.Table:
    arrays = []
    for column, values in zip(query.columns, zip(*rows, strict=True), strict=True):
        assert column.kind is not None
        if sqlite:
            arrays.append(sqlite_columns.build_array(values, column.kind, place=place, column=column.name))
        else:
            arrays.append(_build_array(values, column, column.kind, place))
    return pa.table(arrays, names=_get_names(query))


def _build_array(values: Sequence[Any], column: SqlColumn, kind: pa.DataType, place: str) -> pa.Array:
    if (convert := column.convert) is not None:
        try:
            values = [None if value is None else convert(value) for value in values]
        except (ValueError, ArithmeticError) as error:
            raise arrow_types.build_misfit_error(place, column.name, kind, str(error)) from None
    return arrow_types.build_array(values, kind, place=place, column=column.name)


def _build_empty(query: Query) -> pa.Table:
    return pa.schema(_get_types(query).items()).empty_table()


def _get_names(query: Query) -> list[str]:
    return [column.name for column in query.columns]


def _get_types(query: Query) -> dict[str, pa.DataType]:
    return {column.name: column.kind or arrow_types.TEXT for column in query.columns}
