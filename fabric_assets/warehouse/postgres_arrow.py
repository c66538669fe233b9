"""Arrow data -> the form that the Postgres driver takes; and the driver's results -> our Arrow types."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows.arrow_types import JSON
from fabric_assets.rows.nested_types import map_lists


def encode_json(rows: pa.Table) -> pa.Table:
    """Encode JSON for a binary COPY: a jsonb value is the format number 1 and then its text."""
    for number, field in enumerate(rows.schema):
        if field.type == JSON:
            parts = [pa.scalar(b"\x01", pa.large_binary()), rows.column(number).cast(pa.large_binary()), pa.scalar(b"", pa.large_binary())]
            rows = rows.set_column(number, field.name, pc.binary_join_element_wise(*parts))
    return rows


def unwrap(table: pa.Table) -> pa.Table:
    """Convert the driver's results: it returns numeric as text and jsonb as an extension type."""
    for number, field in enumerate(table.schema):
        kind = field.type
        if isinstance(kind, pa.BaseExtensionType):
            column = table.column(number).cast(kind.storage_type)
            is_number = getattr(kind, "type_name", "") == "numeric"
            column = pa.chunked_array([_read_numbers(column)]) if is_number else column.cast(JSON)
            table = table.set_column(number, field.name, column)
        elif pa.types.is_list(kind) and getattr(kind.value_type, "type_name", "") == "numeric":
            lists = map_lists(table.column(number).combine_chunks(), lambda values: _read_numbers(values.cast(pa.string())))
            table = table.set_column(number, field.name, pa.chunked_array([lists]))
    return table


def _read_numbers(texts: Any) -> pa.Array:
    return pa.array([None if text is None else Decimal(text) for text in texts.to_pylist()])
