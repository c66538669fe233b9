"""Nested values -> what a warehouse's column stores: a list of plain values stays a list, anything else becomes JSON.

`SourceJson` marks texts that the source database itself declares as JSON. They are not all parsed again: a search finds those that no
warehouse accepts (NUL, half surrogate pairs, NaN, huge exponents).
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows.arrow_types import JSON, TEXT, get_carried_type, spell_times, to_json, to_python

Column = Any  # pa.Array | pa.ChunkedArray
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view, pa.types.is_large_list_view)
# A cheap search for texts that Postgres may not accept as JSON; only these are parsed.
_SUSPICIOUS = r"\\u(?:0000|[dD][89a-fA-F])|NaN|nan|Infinity|inf|[eE][+-]?[0-9]{4,}"


class SourceJson(pa.ExtensionType):
    """The type of texts that their source declares as JSON. It exists inside one process only, so it is not registered."""

    def __init__(self) -> None:
        super().__init__(TEXT, "fabric.json")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "SourceJson":
        return cls()


SOURCE_JSON = SourceJson()


def mark_json(texts: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(SOURCE_JSON, texts.cast(TEXT))


def is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in _LISTS)


def choose_nested(kind: pa.DataType) -> pa.DataType:
    """Choose the type of a column of lists, objects or durations.

    That is a list if all its values are plain, JSON if they are nested, and text for durations.
    """
    if pa.types.is_duration(kind):
        return TEXT
    inner = get_carried_type(kind.value_type) if is_list(kind) else None
    return JSON if inner is None else pa.list_(inner)


def declare(kind: pa.DataType) -> pa.DataType:
    """Return the type with which a reader declares a column of a warehouse's type. The warehouse's JSON is text with wide offsets,
    which means plain text in a batch.
    """
    return SOURCE_JSON if kind == JSON else kind


def simplify_list(column: Column, plain: Callable[[Column], Column]) -> Column:
    """Convert a list of plain values, in any layout, to a list of a warehouse's type; leave any other list as it is.

    Args:
        plain: unwraps an array's values.
    """
    inner = column.type.value_type
    if is_list(inner) or (get_carried_type(inner) is None and not isinstance(inner, pa.BaseExtensionType)):
        return column
    simple = column.cast(pa.list_(inner))
    return map_lists(simple, lambda values: _carry(plain(values)))


def _carry(values: Column) -> Column:
    kind = get_carried_type(values.type)
    # Values finer than the warehouse's type stay as they are: the list then does not fit, and goes into the variant column.
    return values if kind is None or kind == values.type or pa.types.is_temporal(values.type) else values.cast(kind)


def map_lists(column: Column, convert: Callable[[Column], Column]) -> Column:
    """Convert the values of lists, all at once."""
    chunks = [_map_list(chunk, convert) for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])]
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array(chunks, chunks[0].type if chunks else pa.list_(convert(pa.array([], column.type.value_type)).type))
    return chunks[0]


def _map_list(column: Any, convert: Callable[[Column], Column]) -> Any:
    # Without what lies outside of a slice, and without values below a NULL.
    values = convert(column.flatten())
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, values, mask=column.is_null() if column.null_count else None)


def spell_spans(column: Column) -> Column:
    """Write nested times and durations as texts: Python has no negative times and no 24:00:00, and spells durations its own way."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([spell_spans(chunk) for chunk in column.chunks] or [spell_spans(pa.array([], column.type))])
    kind = column.type
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        return spell_times(column)
    if isinstance(kind, pa.BaseExtensionType) or not has_type(kind, pa.types.is_time, pa.types.is_duration):
        return column
    if is_list(kind):
        return map_lists(column.cast(pa.list_(kind.value_type)), spell_spans)
    if pa.types.is_map(kind):
        pairs = map_lists(column.cast(pa.list_(pa.struct([pa.field("key", kind.key_type, nullable=False), pa.field("value", kind.item_type)]))), spell_spans)
        # In a map array the offset of a NULL is NULL.
        offsets = pc.if_else(pa.concat_arrays([pairs.is_null(), pa.array([False])]), pa.scalar(None, pa.int32()), pairs.offsets)
        return pa.MapArray.from_arrays(offsets, *pairs.values.flatten())
    children = [spell_spans(child) for child in column.flatten()]
    return pa.StructArray.from_arrays(children, names=[kind.field(number).name for number in range(kind.num_fields)], mask=column.is_null())


def drop_views(kind: pa.DataType) -> pa.DataType:
    """Replace views of texts and bytes in a type, at any depth: pyarrow cannot take single rows of them."""
    if pa.types.is_string_view(kind):
        return TEXT
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if not has_type(kind, pa.types.is_string_view, pa.types.is_binary_view):
        return kind
    if is_list(kind):
        return pa.list_(drop_views(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(drop_views(kind.key_type), drop_views(kind.item_type))
    return pa.struct([kind.field(number).with_type(drop_views(kind.field(number).type)) for number in range(kind.num_fields)])


def read_lists(column: Column) -> Column:
    """Parse JSON texts as lists of texts; NULL where a text is not a list of plain values."""
    return pa.array([None if text is None else _read_list(text) for text in column.to_pylist()], pa.list_(TEXT))


def _read_list(text: str) -> list[str | None] | None:
    try:
        values = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or any(isinstance(value, dict | list) for value in values):
        return None
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


def find_rows_of_values(column: Column, condition: Callable[[Column], Column]) -> Column | None:
    """Mark the rows whose list has a value that meets a condition; None if no list has."""
    masks, found = [], False
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        parents = pc.list_parent_indices(chunk).filter(pc.fill_null(condition(chunk.flatten()), False))
        masks.append(pc.is_in(pa.array(range(len(chunk)), parents.type), parents))
        found = found or len(parents) > 0
    return pa.chunked_array(masks, pa.bool_()) if found else None


def write_json(column: Column) -> Column:
    """Write nested values as JSON, a map as an object; NULL where a warehouse would not accept the JSON."""
    values = to_python(column)
    if has_type(column.type, pa.types.is_map):
        values = [_build_objects(value, column.type) for value in values]
    return keep_json(pa.array([to_json(value) for value in values], TEXT))


def has_type(kind: pa.DataType, *tests: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type is, or holds at any depth, one that meets a test."""
    if any(test(kind) for test in tests):
        return True
    return any(has_type(kind.field(number).type, *tests) for number in range(kind.num_fields))


def _build_objects(value: Any, kind: pa.DataType) -> Any:
    """Turn maps, which Python has as pairs, into objects; a map with duplicate keys stays a list of pairs."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        pairs = [(key if isinstance(key, str) else (to_json(key) or "").strip('"'), _build_objects(item, kind.item_type)) for key, item in value]
        return dict(pairs) if len(dict(pairs)) == len(pairs) else pairs
    if is_list(kind):
        return [_build_objects(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {name: _build_objects(item, kind.field(name).type) for name, item in value.items()}
    return value


def keep_json(texts: Column) -> Column:
    """Type texts that are valid JSON for their writer as JSON; NULL where a warehouse would not accept one."""
    suspicious = pc.fill_null(pc.match_substring_regex(texts, _SUSPICIOUS), False)
    if not pc.any(suspicious).as_py():
        return texts.cast(JSON)
    fits = [not doubtful or is_json(text) for text, doubtful in zip(texts.to_pylist(), suspicious.to_pylist(), strict=True)]
    return pc.if_else(pa.array(fits), texts, pa.scalar(None, TEXT)).cast(JSON)


def parse_json(texts: Column) -> Column:
    """Type texts as JSON; NULL where a text is not JSON."""
    return pa.array([text if text is not None and is_json(text) else None for text in texts.to_pylist()], JSON)


def is_json(value: str) -> bool:
    """Whether a text is JSON that Postgres accepts too: without NaN, NUL, half surrogate pairs and numbers beyond its own."""
    try:
        text = json.dumps(json.loads(value, parse_int=_check_number, parse_float=_check_number), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return "\\u0000" not in text


def _check_number(text: str) -> str:
    exponent = text.lower().partition("e")[2]
    if len(text) > 16_000 or abs(int(exponent or 0)) > 16_000:
        raise ValueError("a number that no warehouse holds")
    return text
