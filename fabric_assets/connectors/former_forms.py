"""A column's type at the source -> the form of FIRST that it has in a table of an earlier release, where today's is another one."""

from typing import Any

import pyarrow as pa

# SQLAlchemy's names of types, by dialect: what the release before versions read as text in another spelling than today's.
_DECLARED = {
    "postgresql": {"ARRAY": "list", "JSON": "json", "JSONB": "json", "HSTORE": "text", "INET": "text", "MONEY": "text"},
    "mysql": {"JSON": "json"},
    "mariadb": {"JSON": "json"},
}


def find_declared_form(declared: Any, dialect: str) -> str | None:
    """Args:
    declared: the column's type as SQLAlchemy has reflected it.
    """
    while type(declared).__name__ == "DOMAIN" and getattr(declared, "data_type", None) is not None:
        declared = declared.data_type
    return _DECLARED.get(dialect, {}).get(type(declared).__name__)


def find_carried_form(kind: pa.DataType) -> str | None:
    """Args:
    kind: the type in which the column's values arrive.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return {"arrow.uuid": "uuid", "arrow.json": "text"}.get(kind.extension_name)
    return "list" if pa.types.is_nested(kind) else None
