"""Dagster's storage -> the columns that still name a tenant, of all columns of text or of packed text in every table.

The search does not depend on the removal. So it also finds a table that the removal forgets, or that a later version of Dagster adds.
"""

import base64
import binascii
import contextlib
import zlib
from collections import Counter
from collections.abc import Sequence

from fabric_assets.factories.instance.records.databases import Database, Transaction
from fabric_assets.factories.instance.records.runs import escape
from fabric_assets.factories.translators import TENANT_TAG
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher

# The beginnings of values that Dagster packs into a column of text: zlib's header in base64.
_PACKED = ("eJ", "eN", "eA")


def search_databases(databases: Sequence[Database], matcher: TenantNameMatcher) -> list[str]:
    """List each table and column that names the tenant, with the number of rows."""
    found = []
    for database in databases:
        counts: Counter[str] = Counter()
        with database.begin() as sql:
            for table, columns in sorted(database.tables.items()):
                texts = set(database.get_text_columns(table))
                for column, kind in columns.items():
                    if column in texts:
                        counts[f"{table}.{column}"] += _count_texts(database, sql, table, column, matcher)
                    elif "blob" in kind or "bytea" in kind or "binary" in kind:
                        counts[f"{table}.{column}"] += sum(matcher.found_in(_unpack(body)) for (body,) in sql.stream(f'select "{column}" from {table}'))
                if {"key", "value"} <= columns.keys():
                    ((tags,),) = sql.ask(f"select count(*) from {table} where key = :key and value = :value", key=TENANT_TAG, value=matcher.tenant)
                    counts[f"{table}.value"] += tags
        found += [f"Dagster's storage, {database.name}: {column}, {number} rows" for column, number in counts.items() if number]
    return found


def _count_texts(database: Database, sql: Transaction, table: str, column: str, matcher: TenantNameMatcher) -> int:
    text = f'cast("{column}" as text)' if "json" in database.tables[table][column] else f'"{column}"'
    plain = sql.stream(f"select {text} from {table} where {text} like :some escape '!'", some=f"%{escape(matcher.tenant)}%")
    packed = sql.stream(f"select {text} from {table} where {' or '.join(f'{text} like :p{number}' for number in range(len(_PACKED)))}", **_get_beginnings())
    return sum(matcher.found_in(value) for (value,) in plain) + sum(matcher.found_in(_unpack_text(value)) for (value,) in packed)


def _get_beginnings() -> dict[str, str]:
    return {f"p{number}": f"{beginning}%" for number, beginning in enumerate(_PACKED)}


def _unpack(body: bytes | memoryview | None) -> str:
    content = bytes(body or b"")
    with contextlib.suppress(zlib.error):
        content = zlib.decompress(content)
    return content.decode(errors="replace")


def _unpack_text(text: str) -> str:
    try:
        return zlib.decompress(base64.b64decode(text, validate=True)).decode(errors="replace")
    except (binascii.Error, ValueError, zlib.error):
        return text
