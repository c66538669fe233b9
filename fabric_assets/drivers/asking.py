"""A connection -> `Ask`, a function from a query to its rows. Code that only reads takes an `Ask`, for any database."""

import contextlib
from collections.abc import Callable
from typing import Any

from fabric_assets.quoting import quote_text

Rows = list[tuple[Any, ...]]
Ask = Callable[[str], Rows]


def build_ask(connection: Any) -> Ask:
    """Build an `Ask` of a DB-API connection; the caller closes the connection."""

    def ask(sql: str) -> Rows:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    return ask


def has_column(ask: Ask, schema: str, table: str, column: str) -> bool:
    where = f"table_schema = {quote_text(schema)} and table_name = {quote_text(table)} and column_name = {quote_text(column)}"
    return bool(ask(f"select 1 from information_schema.columns where {where}"))


def has_table(ask: Ask, schema: str, table: str) -> bool:
    return bool(ask(f"select 1 from information_schema.tables where table_schema = {quote_text(schema)} and table_name = {quote_text(table)}"))
