"""Lines of JSON objects -> columns, by Arrow's own parser, where it gives the very values that Python's gives. All other lines are read one by one.

It takes objects of single values, and of objects of such, whose types a JSON Schema declares. It takes no value of another type, and no field that is unknown
or repeated. Nor does it take NaN, or a number that a double does not hold.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from fabric_assets.connectors.bridge.json_schema import read_types
from fabric_assets.rows.arrow_types import BIGINT, BOOL, DOUBLE, TEXT

# From here on a double does not hold each whole number.
_FIRST_INEXACT = 2.0**53
# Digits and points become 0, and what no number has becomes a space. So a number that a double may not hold is found by its length or exponent.
_SHAPES = bytes(ord("0") if chr(code) in "0123456789." else ord("e") if chr(code) in "eE" else code if chr(code) == "-" else ord(" ") for code in range(256))
_INEXACT = (b"0" * 17, b"0e-000")
# Blocks of this size are parsed side by side. A longer line is read by itself.
_BLOCK_BYTES = 1 << 20
# Objects within one another that become columns.
_MOST_DEPTH = 20


def read_fields(schema: Mapping[str, Any], *, depth: int = 0) -> pa.StructType | None:
    """Read how the objects of a JSON Schema are parsed into columns; None if a field may be a list, or of several types.

    Args:
        depth: how many objects lie around these.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties or depth > _MOST_DEPTH:
        return None
    types, fields = read_types(schema), list[tuple[str, pa.DataType]]()
    for name, declared in properties.items():
        kind = _get_parsed_type(types[name]) if name in types else _read_other(declared, depth)
        if kind is None:
            return None
        fields.append((name, kind))
    return pa.struct(fields)


def _read_other(declared: Any, depth: int) -> pa.DataType | None:
    """Read how an object is parsed, or a field that has no value yet."""
    words = declared.get("type") if isinstance(declared, Mapping) else None
    kinds = {words} if isinstance(words, str) else {*words} if isinstance(words, list) else set()
    if kinds == {"null"}:
        return pa.null()
    return read_fields(declared, depth=depth + 1) if kinds - {"null"} == {"object"} else None


def _get_parsed_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that JSON itself has for a value."""
    if kind in (BIGINT, BOOL):
        return kind
    return DOUBLE if kind == DOUBLE or pa.types.is_decimal(kind) else TEXT


def read_columns(block: bytes, number: int, schema: pa.Schema) -> pa.Table | None:
    """Read lines that are objects of these fields; None if one of them is anything else. A field that an object lacks is NULL.

    Args:
        number: of the lines.
    """
    if any(kind == DOUBLE for kind in _list_leaves(schema)):
        shapes = block.translate(_SHAPES)
        if any(shape in shapes for shape in _INEXACT):
            return None
    if not _is_text(block):
        return None
    parsed = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        table = pj.read_json(pa.BufferReader(block), read_options=pj.ReadOptions(block_size=_BLOCK_BYTES), parse_options=parsed)
    except pa.ArrowInvalid:
        return None
    # Two objects on a line.
    if table.num_rows != number:
        return None
    return table if all(_is_exact(column) for column in table.columns) else None


def list_present(table: pa.Table, block: bytes) -> list[str]:
    """List the columns of a table that one of its objects has a field for."""

    def is_named(name: str) -> bool:
        spelt = {json.dumps(name).encode(), json.dumps(name, ensure_ascii=False).encode()}
        return any(form + end in block for form in spelt for end in (b":", b" :"))

    return [name for name in table.column_names if table[name].null_count < table.num_rows or is_named(name)]


def _list_leaves(fields: Any) -> Iterator[pa.DataType]:
    for each in fields:
        if pa.types.is_struct(each.type):
            yield from _list_leaves(each.type)
        else:
            yield each.type


def _is_text(block: bytes) -> bool:
    try:
        return block.isascii() or bool(block.decode())
    except UnicodeDecodeError:
        return False


def _is_exact(column: Any) -> bool:
    """Whether each number of a column is one that Python's parser gives, too."""
    if pa.types.is_struct(column.type):
        return all(_is_exact(part) for part in column.flatten())
    if column.type != DOUBLE or column.null_count == len(column):
        return True
    return bool(pc.all(pc.less(pc.abs(column), _FIRST_INEXACT)).as_py())
