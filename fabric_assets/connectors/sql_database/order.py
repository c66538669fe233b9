"""A cursor that is read as text -> an error if the source's values are numbers or times, whose order is not that of the texts.

A column of numbers is read as text if one of them fits no type (NaN, an empty text among integers). So its values stay exact. But as a cursor it would lose
rows silently: '10' sorts before '9', so a load that has come to '9' misses it.
"""

import re
from dataclasses import replace

import pyarrow as pa

from fabric_assets.connectors.sql_database import readers as sql_readers
from fabric_assets.connectors.sql_database import sqlite_columns
from fabric_assets.connectors.sql_database.columns import UNDECLARED_MISFIT, SqlColumn, get_kind
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import Query
from fabric_assets.errors import DataError
from fabric_assets.rows import arrow_types

# Types of numbers and times that may be read as text, on servers whose declarations are binding; MySQL's names are SQLAlchemy's.
_COUNTS = re.compile("NUMERIC|DECIMAL|BIGNUM|INTERVAL|TIME|MONEY")
# Texts that begin with a date are in the order of their days.
_NO_DAY = "{c} is not null and (typeof({c}) <> 'text' or date(substr({c}, 1, 10), '+0 days') is not substr({c}, 1, 10))"


def check_order(database: Database, query: Query, column: SqlColumn, *, label: str) -> None:
    """Check that the order of a cursor's values is that of their texts.

    Raises:
        DataError: it is not.
    """
    if get_kind(column) != arrow_types.TEXT:
        return
    counts, misfit = _judge_sqlite(query, column) if database.dialect == "sqlite" else _judge_declared(column, database.dialect)
    value = _find_first(database, replace(query, columns=(column,), bound=(misfit, None)), label) if misfit else None
    if not counts and value is None:
        return
    holds = "is read" if value is None else f"holds {value!r}, and so is read"
    raise DataError(
        f"{label}: the cursor {column.name} ({column.declared or 'without a declared type'}) {holds} as text, by which new rows look old: 10 comes before 9",
        remedy="correct such values at the source, or leave their rows out on purpose by the stream's where, then load with --full-refresh; "
        "or choose another cursor",
    )


def _judge_declared(column: SqlColumn, dialect: str) -> tuple[bool, str | None]:
    """Whether the column is refused by its type alone, and the condition of a wrong value; None if the type has none."""
    counts = _COUNTS.match(column.declared) is not None
    has_misfits = counts and dialect == "postgresql" and column.declared != "MONEY"
    return counts, UNDECLARED_MISFIT.replace("{c}", column.sql.removesuffix("::text")) if has_misfits else None


def _judge_sqlite(query: Query, column: SqlColumn) -> tuple[bool, str | None]:
    """The same for SQLite, where each value has its own type."""
    kind = sqlite_columns.get_declared_type(column.declared)
    if pa.types.is_temporal(kind):
        return False, _NO_DAY.replace("{c}", column.sql)
    if kind != arrow_types.TEXT:
        return True, sqlite_columns.build_misfit_sql(column.sql, kind)
    if any(word in column.declared.upper() for word in ("CHAR", "CLOB", "TEXT")):
        # SQLite converts numbers to texts there.
        return False, None
    numbers = replace(query, bound=(f"typeof({column.sql}) in ('integer', 'real')", None)).build_sql(select="1")
    return False, f"typeof({column.sql}) in ('text', 'blob') and exists ({numbers})"


def _find_first(database: Database, query: Query, label: str) -> str | None:
    return next((value for table in sql_readers.read(database, query, label=label) for value in table.column(0).to_pylist()), None)
