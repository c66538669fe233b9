"""Values as a source's driver gives them (lists, texts) -> the column's type; a value that does not fit stays beside the others as text."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows import arrow_types
from fabric_assets.rows.mixed_columns import ARROW_MISFITS, cast_texts, convert_in_halves, mix_texts
from fabric_assets.rows.nested_types import SOURCE_JSON, map_lists, mark_json


def carry_lists(lists: pa.Array, kind: Any) -> pa.Array:
    """Cast the values of lists; a list with a value that does not fit stays beside the others, as JSON text."""

    def cast(part: pa.Array) -> pa.Array:
        return map_lists(part, lambda values: _cast(values, kind.value_type))

    try:
        return cast(lists)
    except ARROW_MISFITS:
        return mix_texts(convert_in_halves(lists, kind, cast), arrow_types.to_json_text(lists))


def carry(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast what the source wrote as text; where a value does not fit, its text stays beside the others."""
    if kind == SOURCE_JSON:
        return mark_json(text)
    return cast_texts(text, kind, lambda part: _cast(part, kind))


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind) and kind.tz and values.type == arrow_types.TEXT:
        return values.cast(pa.timestamp("us")).cast(kind)
    if kind == arrow_types.LARGE and values.type == arrow_types.TEXT and pc.any(pc.invert(pc.match_substring_regex(values, r"^-?[0-9]{1,38}$"))).as_py():
        # Arrow silently changes numbers from 2^127 on.
        raise pa.ArrowInvalid("more than 38 digits")
    return values.cast(kind)
