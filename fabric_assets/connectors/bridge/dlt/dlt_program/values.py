"""Python's values -> JSON, each number with all its digits; and the types of those that JSON does not have."""

import base64
import json
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

MOST_DIGITS = 38


def fold_below(value: Any, nesting: int) -> Any:
    if isinstance(value, dict):
        return {name: _fold_inner(inner, nesting) for name, inner in value.items()}
    if isinstance(value, list):
        return [fold_below(inner, nesting) if isinstance(inner, dict) else inner for inner in value]
    return value


def _fold_inner(value: Any, nesting: int) -> Any:
    if isinstance(value, dict | list):
        return write_json(value).decode() if nesting <= 0 else fold_below(value, nesting - 1)
    return value


def get_object(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    dump = getattr(row, "model_dump", None) or getattr(row, "_asdict", None)
    return dump() if dump else {"value": row}


def describe_value(value: Any, types: dict[str, str], name: str = "") -> dict[str, Any]:
    """Describe a value as a JSON Schema, and note the type of one that JSON does not have."""
    kind = type(value)
    if value is None:
        return {"type": "null"}
    if kind is bool or kind is int or kind is str:
        return {"type": {bool: "boolean", int: "integer", str: "string"}[kind]}
    if kind is float:
        return {"type": "number"}
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: describe_value(inner, {}) for key, inner in value.items()}}
    if isinstance(value, list | tuple | set | frozenset):
        return {"type": "array"}
    word = "timestamp" if isinstance(value, datetime) else "date" if isinstance(value, date) else "time" if isinstance(value, time) else None
    if isinstance(value, Decimal):
        types.setdefault(name, f"decimal({MOST_DIGITS},9)")
        return {"type": "number"}
    if word:
        types.setdefault(name, word)
    return {"type": "string"}


def write_json(value: Any) -> bytes:
    """Write a value as JSON, each of its numbers with all digits."""
    import orjson

    try:
        return orjson.dumps(value, _encode, orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Whole numbers beyond 64 bits, and halves of surrogate pairs.
        return "".join(_iterate(value)).encode()


def _encode(value: Any) -> Any:
    import orjson

    if isinstance(value, Decimal):
        return orjson.Fragment(str(value) if value.is_finite() else "null")
    return _make_plain(value)


def _make_plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    from dlt.common.json import custom_encode

    return custom_encode(value)


def _iterate(value: Any) -> Iterator[str]:
    """Yield the parts of a value's JSON."""
    if isinstance(value, dict):
        yield "{"
        for index, (name, inner) in enumerate(value.items()):
            yield f"{', ' if index else ''}{json.dumps(str(name))}: "
            yield from _iterate(inner)
        yield "}"
    elif isinstance(value, list | tuple | set | frozenset):
        yield "["
        for index, inner in enumerate(value):
            yield ", " if index else ""
            yield from _iterate(inner)
        yield "]"
    elif isinstance(value, Decimal):
        yield str(value) if value.is_finite() else "null"
    elif value is None or isinstance(value, str | int | float | bool):
        yield json.dumps(value)
    else:
        yield from _iterate(_make_plain(value))
