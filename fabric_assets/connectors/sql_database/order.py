"""A cursor that is read as text -> a refusal where its source counts by it, so that its order is not that of the texts.

A column of numbers is read as text where one of them fits no type (NaN, an empty text among integers). Its values stay exact so. But as a cursor it would lose
rows without a message: '10' sorts before '9', so a load that has come to '9' misses it.
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

# What servers, whose declarations bind, have of numbers and times that may come as text; MySQL's words are SQLAlchemy's.
_COUNTS = re.compile("NUMERIC|DECIMAL|BIGNUM|INTERVAL|TIME|MONEY")
# Texts that begin with a date follow one another as their days do.
_NO_DAY = "{c} is not null and (typeof({c}) <> 'text' or date(substr({c}, 1, 10), '+0 days') is not substr({c}, 1, 10))"


def check_order(database: Database, query: Query, column: SqlColumn, *, label: str) -> None:
    """Raises:
    DataError: the column's values have another order than their texts.
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
    """Whether the column is refused whatever it holds, and the condition of a wrong value; None where the type does not tell."""
    counts = _COUNTS.match(column.declared) is not None
    has_misfits = counts and dialect == "postgresql" and column.declared != "MONEY"
    return counts, UNDECLARED_MISFIT.replace("{c}", column.sql.removesuffix("::text")) if has_misfits else None


def _judge_sqlite(query: Query, column: SqlColumn) -> tuple[bool, str | None]:
    """The same where values have types of their own."""
    kind = sqlite_columns.get_declared_type(column.declared)
    if pa.types.is_temporal(kind):
        return False, _NO_DAY.replace("{c}", column.sql)
    if kind != arrow_types.TEXT:
        return True, sqlite_columns.build_misfit_sql(column.sql, kind)
    if any(word in column.declared.upper() for word in ("CHAR", "CLOB", "TEXT")):
        # SQLite makes texts of numbers there.
        return False, None
    numbers = replace(query, bound=(f"typeof({column.sql}) in ('integer', 'real')", None)).build_sql(select="1")
    return False, f"typeof({column.sql}) in ('text', 'blob') and exists ({numbers})"


def _find_first(database: Database, query: Query, label: str) -> str | None:
    return next((value for table in sql_readers.read(database, query, label=label) for value in table.column(0).to_pylist()), None)
