"""A column's type at the source -> its value form in a table of an earlier release (FIRST), if today's form differs."""

from typing import Any

import pyarrow as pa

from fabric_assets.rows.arrow_types import JSON, get_word
from fabric_assets.rows.nested_types import choose_nested, has_type
from fabric_assets.rows.value_forms import name_list_form

# SQLAlchemy's names of types, by dialect, that release FIRST read as text in another spelling than today's.
_DECLARED = {
    "postgresql": {"JSON": "json", "JSONB": "json", "HSTORE": "text", "INET": "text", "MONEY": "text"},
    "mysql": {"JSON": "json"},
    "mariadb": {"JSON": "json"},
}
# Arrays whose text cannot be parsed for sure: a type unknown to SQLAlchemy may separate values by another character than a comma.
_UNKNOWN_VALUES = frozenset({"NullType", "HSTORE"})


def find_declared_form(declared: Any, dialect: str, kind: Any) -> str:
    """Find the earlier form of a database's column.

    Args:
        declared: the column's type as SQLAlchemy has reflected it.
        kind: the Arrow type in which its values are read today.
    """
    declared = _unwrap(declared)
    if dialect == "postgresql" and type(declared).__name__ == "ARRAY":
        word = type(_unwrap(declared.item_type)).__name__
        if word not in _UNKNOWN_VALUES:
            return name_list_form({"REAL": "real", "JSON": "json", "JSONB": "json"}.get(word) or get_word(kind.value_type))
    return _DECLARED.get(dialect, {}).get(type(declared).__name__, "text")


def _unwrap(declared: Any) -> Any:
    """Return the base type of a domain."""
    while type(declared).__name__ == "DOMAIN" and getattr(declared, "data_type", None) is not None:
        declared = declared.data_type
    return declared


def find_carried_form(kind: pa.DataType) -> str | None:
    """Find the earlier form of an Arrow column; None if the form has not changed.

    Args:
        kind: the type in which the column's values arrive.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return {"arrow.uuid": "uuid", "arrow.json": "text"}.get(kind.extension_name)
    if not pa.types.is_nested(kind):
        return None
    present: Any = choose_nested(kind)
    if present != JSON:
        return name_list_form(get_word(present.value_type))
    # A map was a list of pairs.
    return "text" if has_type(kind, pa.types.is_map) else "json"
